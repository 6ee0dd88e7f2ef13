"""Evaluation of detectors: predictions stream to disk, the files are scored, and scored again without inference."""
