"""Shared by the tests of experiments."""

from ..support.detector import make_tiny, photo
from ..support.segmenter import tiny
from ..support.tables import shapes_root, tiny_root
from ..support.tools import call_tool, picture_folder, run_tool, start_tool, tiny_model

__all__ = [
    "call_tool",
    "make_tiny",
    "photo",
    "picture_folder",
    "run_tool",
    "shapes_root",
    "start_tool",
    "tiny",
    "tiny_model",
    "tiny_root",
]
