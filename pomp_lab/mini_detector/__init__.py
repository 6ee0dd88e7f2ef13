"""How the weights of the embedded detector are made; see ``tools/build_mini_detector.py``."""
