"""Data of the detector: registration by one data root, checks, preparation, mixed sampling."""
