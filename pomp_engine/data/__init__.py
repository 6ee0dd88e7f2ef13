"""Data that detectors and segmenters share: photos, derived files, the data root."""
