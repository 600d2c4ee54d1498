"""How stored MCP servers get into an ACP session: into the request that opens it, where the client names none itself.

The file is read before the session's actor hears of the request, since the actor waits for nothing. Which servers the
agent can talk to is known to the session alone, so it makes the choice, and the request, at the moment that it goes to
the agent. What the client sent stays what is recorded.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio
from msgspec import Raw

from ..envelope import Json, decode, replace_members
from ..errors import Refusal
from ..memory import OPENING
from .entries import MCP
from .servers import Skipped, StoredServers, as_acp, not_trusted

if TYPE_CHECKING:
    from msgspec import UnsetType

    from ..envelope import Params
    from ..memory import McpCapabilities
    from .store import DirectoryConfig

__all__ = ["merged", "stored_servers"]

log = structlog.get_logger()

DEMANDING = ("session/new", "session/load")
"""Where ACP demands the member `mcpServers`: some agents fail without it, and some clients leave it out."""

READ_WITHIN = 2.0
"""Seconds for a file that is read for a session: one that takes longer lies on a disk that hangs."""


class _Opening(msgspec.Struct, rename="camel"):
    cwd: Json = None
    mcp_servers: Json = None


async def stored_servers(config: DirectoryConfig, method: str, params: Params | UnsetType) -> StoredServers | None:
    """What is stored for the directory of a session that is about to be opened.

    Returns:
      None where the request is not to be touched: it opens no session, or its client names servers itself.
    """
    if method not in OPENING:
        return None
    opening = _read(params)
    if opening is None or opening.mcp_servers not in (None, []):
        return None
    directory: Json = opening.cwd
    if not isinstance(directory, str) or not os.path.isabs(directory):
        return StoredServers()  # relative to what, only the agent knows
    stored = StoredServers(skipped=(Skipped(None, "config_unreadable", "the disk does not answer in time"),))
    with trio.move_on_after(READ_WITHIN):
        try:
            found = await config.vetted(MCP, directory)
            usable = as_acp(found.stored, directory, config.environment)
            stored = replace(usable, skipped=(*usable.skipped, *not_trusted(found.foreign, directory)))
        except Refusal as refusal:
            stored = StoredServers(skipped=(Skipped(None, "config_unreadable", str(refusal)),))
    for one in stored.skipped:
        log.warning("MCP server left out", server=one.server, directory=directory, reason=one.message)
    return stored


def merged(envelope: bytes, stored: StoredServers, capabilities: McpCapabilities) -> tuple[bytes, list[Skipped]]:
    """The request that opens a session as the agent gets it, and the servers that are not in it."""
    head = decode(envelope)
    servers, skipped = stored.for_agent(capabilities)
    demanded = head.method_name in DEMANDING and head.member("params", "mcpServers") is None
    if isinstance(head.params, Raw) and (servers or demanded):
        params = replace_members(bytes(head.params), {"mcpServers": Raw(msgspec.json.encode(servers))})
        envelope = replace_members(envelope, {"params": Raw(params)})
    return envelope, skipped


def _read(params: Params | UnsetType) -> _Opening | None:
    try:
        return msgspec.json.decode(msgspec.json.encode(params), type=_Opening)
    except (msgspec.MsgspecError, RecursionError, TypeError):
        return None
