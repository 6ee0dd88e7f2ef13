"""Shared by the tests of benchmarks."""

from ...support.benchmarks import in_this_process

__all__ = ["in_this_process"]
