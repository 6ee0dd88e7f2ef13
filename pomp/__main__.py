"""``python -m pomp``: the same as the command ``pomp``."""

from pomp.console import pomp

if __name__ == "__main__":
    pomp()
