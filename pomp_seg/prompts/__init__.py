"""Text side of a segmenter: prompt learners and the features of class names."""
