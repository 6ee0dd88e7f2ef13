"""Runs of a segmenter: checks, training, evaluation."""
