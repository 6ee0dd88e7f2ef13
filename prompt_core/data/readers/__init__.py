"""Readers of image sets, one module per layout on disk."""
