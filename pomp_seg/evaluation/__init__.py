"""Evaluation of the segmenter: predictions on disk, one confusion matrix, published metrics."""
