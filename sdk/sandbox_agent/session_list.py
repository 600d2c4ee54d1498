"""The sessions of a server, read page by page."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .models import SessionInfo

if TYPE_CHECKING:
    from .transport import Params, Transport

__all__ = ["read_sessions"]


class _Sessions(msgspec.Struct, rename="camel"):
    sessions: list[SessionInfo]
    next_cursor: str | None = None


async def read_sessions(transport: Transport, params: Params) -> list[SessionInfo]:
    """All that fit, by id."""
    found: list[SessionInfo] = []
    cursor: str | None = None
    while True:
        page = await transport.ask(_Sessions, "GET", "/v1/sessions", params={**params, "cursor": cursor})
        found += page.sessions
        if (cursor := page.next_cursor) is None:
            return found
