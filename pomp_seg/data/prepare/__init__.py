"""Label folders made from published annotations, one module for each data set."""
