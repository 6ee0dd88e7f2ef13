"""Tables of the paper from end to end: what is missing is run, what is done is found, ours stand beside theirs.

A table is data: ``plan`` says what it is, ``paper`` and ``laptop`` hold them. ``data_folders`` knows where data sets
lie, ``scored_sets`` opens what is scored, ``jobs`` are rows with seeds, ``runner`` learns and scores them and knows no
method by name, ``scoring`` scores, ``show`` prints; ``cost`` measures the table of costs; ``command`` is the whole of
it.
"""
