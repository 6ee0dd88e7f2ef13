"""What corrections teach: prompts, thresholds of words, and detectors of one's own boxes."""
