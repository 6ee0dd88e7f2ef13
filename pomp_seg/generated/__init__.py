"""Features of pixels made from words, from which a classifier of unseen classes learns: ZS3 and CaGNet."""
