"""Prompts, detectors and segmenters side by side."""
