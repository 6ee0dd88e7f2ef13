"""A run is what it says it is: what all runs, whatever they learn, keep about their state and their folder."""
