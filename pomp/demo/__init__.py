"""The whole loop on the photos of the package, ``pomp demo``."""
