"""Shared by the tests of command lines."""

from ..support.benchmarks import in_this_process
from ..support.tables import shapes_root, tiny_root
from ..support.tools import call_tool, picture_folder, run_tool, start_tool, tiny_model
from ..support.web_server import web

__all__ = [
    "call_tool",
    "in_this_process",
    "picture_folder",
    "run_tool",
    "shapes_root",
    "start_tool",
    "tiny_model",
    "tiny_root",
    "web",
]
