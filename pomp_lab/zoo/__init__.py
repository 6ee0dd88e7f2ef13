"""The model zoo page: what each configuration file is, how it is run, and which numbers there are of it.

``configurations`` reads the files, ``measured`` and ``published`` find their numbers, ``page`` writes the page. Nothing
is listed by hand but which published row belongs to which file (``assets/zoo.json``).
"""
