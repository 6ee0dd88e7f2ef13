"""A model with its words, whatever its task."""
