"""The page of ``pomp app``."""
