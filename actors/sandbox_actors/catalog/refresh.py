"""Fetching a registry document: by whoever asks for it, once, and never by the daemon on its own.

A document from the network decides what programs are installed here. So it comes over https, or from this machine; a
redirect must not lead out of that; and it replaces the cached one only when it was read and found to be one.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import trio

from .changes import with_registry
from .entry import BAD_PROXY, BadCatalog, is_loopback
from .registry import MAX_DOCUMENT, Skipped, parse_registry
from .sources import shipped_agents

if TYPE_CHECKING:
    from .changes import Change

__all__ = ["clear_registry", "refresh_registry"]

WITHIN = 60.0
"""Seconds for the whole document, and half of it for each of its steps."""

REDIRECTS = 5


async def refresh_registry(source: str, cache: Path) -> tuple[list[Change], list[Skipped]]:
    """Fetch a registry document into the cache.

    Args:
      source: a URL (https, http on loopback, file) or a path.

    Returns: what it means for the agents that we ship, and the entries that cannot be used.

    Raises:
      BadCatalog: it cannot be fetched or kept, or is no registry document. The cached one is as it was.
    """
    document = await _fetch(source)
    if len(document) > MAX_DOCUMENT:
        raise BadCatalog(f"the registry document {_told(source)} is larger than {MAX_DOCUMENT >> 20} MiB")
    registry = parse_registry(document, f"the registry document {_told(source)}")
    _, changes = with_registry(shipped_agents(), registry)
    try:
        await trio.to_thread.run_sync(_keep, document, cache)
    except OSError as error:
        raise BadCatalog(f"cannot write the registry document to {cache}: {error.strerror}") from None
    return changes, list(registry.skipped)


def clear_registry(cache: Path) -> bool:
    """Forget the cached document; says whether there was one.

    Raises:
      BadCatalog: it cannot be removed.
    """
    try:
        cache.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise BadCatalog(f"cannot remove the registry document {cache}: {error.strerror}") from None
    return True


async def _fetch(source: str) -> bytes:
    try:
        url = httpx.URL(source)
    except httpx.InvalidURL:
        if "://" in source:
            raise BadCatalog("the URL of the registry document cannot be understood") from None
        url = httpx.URL("")  # a path
    if url.scheme in ("http", "https"):
        return await _download(url)
    path = Path(url.path if url.scheme == "file" else source)
    if url.scheme == "file" and url.host not in ("", "localhost"):
        raise BadCatalog(f"the registry document {source} is on another machine: give its https URL")
    if url.scheme not in ("", "file") and "://" in source:
        raise BadCatalog(f"a registry document cannot be fetched by {url.scheme}: give an https URL or a file")
    try:
        return await trio.to_thread.run_sync(_read, path)
    except OSError as error:
        raise BadCatalog(f"cannot read the registry document {path}: {error.strerror}") from None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_DOCUMENT + 1)


async def _download(url: httpx.URL) -> bytes:
    _check(url)
    told = _told(str(url))
    try:
        with trio.fail_after(WITHIN):
            for _ in range(REDIRECTS + 1):
                async with (
                    _client(url) as client,
                    # Not compressed: then what is read is what came, and its size is known before it is in memory.
                    client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response,
                ):
                    if response.next_request is None:
                        return await _body(response, told)
                    target = response.next_request.url
                if url.scheme == "https" and target.scheme != "https":
                    raise BadCatalog(f"the registry document {told} is redirected to another place without https")
                _check(target)
                url = target
    except trio.TooSlowError:
        raise BadCatalog(f"cannot fetch the registry document {told}: not there within {WITHIN:.0f} s") from None
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise BadCatalog(f"cannot fetch the registry document {told}: {reason}") from None
    raise BadCatalog(f"cannot fetch the registry document {told}: more than {REDIRECTS} redirects")


def _client(url: httpx.URL) -> httpx.AsyncClient:
    try:
        # What is in the environment about proxies is for other machines.
        return httpx.AsyncClient(timeout=WITHIN / 2, trust_env=not is_loopback(url.host))
    except (ImportError, ValueError):
        raise BadCatalog(BAD_PROXY) from None


async def _body(response: httpx.Response, told: str) -> bytes:
    if response.status_code != 200:
        raise BadCatalog(f"cannot fetch the registry document {told}: the server answered {response.status_code}")
    body = bytearray()
    try:
        async for data in response.aiter_raw():
            body += data
            if len(body) > MAX_DOCUMENT:
                # Not `break`: httpx leaves the generators below this one open. Now the next read fails, through all.
                await response.aclose()
    except httpx.HTTPError:
        if len(body) <= MAX_DOCUMENT:
            raise
    return bytes(body)


def _check(url: httpx.URL) -> None:
    if not url.host:
        raise BadCatalog("the URL of the registry document names no host")
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.host)):
        raise BadCatalog(
            f"the registry document {_told(str(url))} must come over https; http is for this machine alone"
        )


def _told(source: str) -> str:
    """A source as messages may have it: without a password, and without what stands behind a question mark."""
    try:
        url = httpx.URL(source)
    except httpx.InvalidURL:
        return source
    return str(url.copy_with(userinfo=b"", query=None, fragment=None)) if url.host else source


def _keep(document: bytes, cache: Path) -> None:
    """Replace the cached document; after a crash at any point there is the old one or the new one."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=cache.parent, prefix=f".{cache.name}.")  # of mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(document)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, cache)
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    folder = os.open(cache.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
