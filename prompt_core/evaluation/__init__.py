"""Scores of prompts and methods on sets of photos, and the protocol that each number follows."""
