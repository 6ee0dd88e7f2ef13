"""Heads: pixel decoder, transformer decoder, and the predictor of masks and class embeddings."""
