"""Files derived from published annotations, one module for each data set."""
