"""Training, evaluation and their start-up checks; ``tools/train_net.py`` is a thin shell around it."""
