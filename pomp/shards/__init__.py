"""Many photos on many machines: shards of the list, a Parquet part for each, any number of processes."""
