"""What the embedded segmenter is trained on; see ``tools/build_mini_segmenter.py``."""
