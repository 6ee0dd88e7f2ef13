"""Data of the segmenter: label sets, registration, preparation, and the mappers from records to examples."""
