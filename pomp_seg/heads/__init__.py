"""Heads: pixel decoder, transformer decoder, and what predicts masks and class embeddings from both."""
