"""Shared by the tests of fetching: a web server on this machine."""

from ...support.web_server import web

__all__ = ["web"]
