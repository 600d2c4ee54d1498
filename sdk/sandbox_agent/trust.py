"""What HTTP clients trust: what the machine does, loaded once, for it takes a tenth of a second of the event loop."""

from __future__ import annotations

import ssl
from functools import cache

import httpx

__all__ = ["trusted"]


def trusted(url: str) -> ssl.SSLContext:
    """For what is asked at this URL. Where that is plain HTTP, nothing is trusted, and nothing is loaded."""
    return _machine() if url.startswith("https:") else _nothing()


@cache
def _nothing() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@cache
def _machine() -> ssl.SSLContext:
    return httpx.create_ssl_context()
