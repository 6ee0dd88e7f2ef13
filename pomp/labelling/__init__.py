"""The commands ``pomp classify``, ``pomp detect`` and ``pomp segment``: a folder of photos in, files about them out."""
