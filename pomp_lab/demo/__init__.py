"""The demonstration: images, a learned prompt, a classifier, scores, one page."""
