"""What an application keeps of its own: the events of its sessions, and who drives each.

    async with SqliteStore.open("sessions.db") as store:
        async with SandboxAgent.start(provider, store=store, owner="backend-1") as sandbox:
            session = await sandbox.create_session("claude")

`store` says what a store is, `conformance` whether one of yours keeps to it. Works under asyncio and Trio.
"""

from __future__ import annotations

from .lease import Held, holding
from .mirror import Mirror
from .postgres import PostgresStore
from .sqlite import SqliteStore
from .store import Entry, EventRecord, GapRecord, Lease, Position, Record, SessionKey, Store, StoredSession

__all__ = [
    "Entry",
    "EventRecord",
    "GapRecord",
    "Held",
    "Lease",
    "Mirror",
    "Position",
    "PostgresStore",
    "Record",
    "SessionKey",
    "SqliteStore",
    "Store",
    "StoredSession",
    "holding",
]
