"""An application that works with files: its requests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from .wire import exchange

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .daemon import Daemon
    from .wire import Answer

__all__ = ["JSON", "FileClient"]

JSON = {"Content-Type": "application/json"}


class FileClient:
    """Requests about files, of a daemon whose HOME is `home`."""

    def __init__(self, daemon: Daemon, home: Path) -> None:
        self.daemon = daemon
        self.home = home

    async def __call__(
        self, method: str, route: str, body: object = b"", headers: Mapping[str, str] | None = None, /, **query: str
    ) -> Answer:
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {**(JSON if not isinstance(body, bytes) else {}), **(headers or {})}
        target = f"/v1/fs/{route}" + (f"?{urlencode(query)}" if query else "")
        return await exchange(self.daemon.port, method, target, given, text)

    async def put(self, path: str, body: bytes, headers: dict[str, str] | None = None, **query: str) -> Answer:
        return await self("PUT", "file", body, headers, path=path, **query)

    async def get(self, path: str, headers: dict[str, str] | None = None, **query: str) -> Answer:
        return await self("GET", "file", b"", headers, path=path, **query)
