"""Readers of image sets, one file for each layout on disk."""
