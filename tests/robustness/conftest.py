"""Shared by the tests of robustness."""

from ..support.web_server import web

__all__ = ["web"]
