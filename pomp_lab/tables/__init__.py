"""Tables of the paper from end to end: what is missing is run, what is done is found, ours stand beside theirs.

``plan`` says what a table is, ``tables_paper`` and ``tables_laptop`` hold the tables as data; ``sources`` finds data
sets, ``targets`` opens what is scored; ``store`` keeps results; ``jobs`` are rows with seeds, ``settings`` says what
decides their numbers; ``runner`` learns and scores and knows no method by name; ``work`` and ``estimate`` count what is
left, ``listing`` lists it; ``show`` prints; ``cost`` measures the table of costs; ``command`` is the whole of it.
"""
