"""Tables of the paper end to end: missing runs are done, finished ones reused, and set next to the published numbers.

A table is data: ``plan`` defines it, ``paper`` and ``laptop`` hold them. ``data_folders`` locates data sets,
``scored_sets`` opens what is scored, ``jobs`` are rows with seeds, ``runner`` learns and scores them without knowing
any method by name, ``scoring`` scores, ``show`` prints, ``cost`` measures the table of costs, and ``command`` ties them
together.
"""
