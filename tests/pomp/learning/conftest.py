"""The tiny random model, as files."""

from ...support.tools import tiny_model

__all__ = ["tiny_model"]
