"""A backend, one of several: it drives a session while it holds the lease, and writes what it does, a line each.

Usage: python backend.py URL TOKEN OPENER STORE SESSION NAME TTL guarded|careless

A careless one takes the lease once, never looks at it again, and goes on until the server refuses.
"""

from __future__ import annotations

import json
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio

from sandbox_agent import SandboxAgent
from sandbox_agent.errors import LeaseHeld, LeaseLost, StaleGeneration, StoreUnavailable
from sandbox_agent.persistence import SessionKey
from sandbox_agent.persistence.racer import open_store

if TYPE_CHECKING:
    from sandbox_agent import Session
    from sandbox_agent.persistence import Store

ASKED_EVERY = 0.02
"""Seconds."""


def tell(**members: object) -> None:
    print(json.dumps(members), flush=True)


async def drive(session: Session, name: str) -> None:
    """Prompt until that is refused."""
    tell(holds=session.generation)
    number = 0
    while True:
        number += 1
        try:
            await session.prompt(f"{name} {number}")
        except (LeaseLost, StaleGeneration) as refusal:
            tell(refused=type(refusal).__name__)
            return
        tell(said=number)


async def careless(sandbox: SandboxAgent, store: Store, id: str, name: str, ttl: float) -> None:
    while True:
        try:
            lease = await store.acquire(SessionKey(sandbox.url, id), name, ttl)
            break
        except LeaseHeld:
            await anyio.sleep(ASKED_EVERY)
    session = await sandbox.session(id)
    session.generation = lease.generation
    await drive(session, name)


async def guarded(sandbox: SandboxAgent, id: str, name: str) -> None:
    while True:
        try:
            session = await sandbox.session(id)
            break
        except (LeaseHeld, LeaseLost, StoreUnavailable):
            await anyio.sleep(ASKED_EVERY)
    await drive(session, name)


async def main(*args: str) -> None:
    url, token, opener, target, id, name, ttl, how = args
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(opener, target))
        if how == "careless":
            sandbox = await stack.enter_async_context(SandboxAgent.connect(url, token))
            await careless(sandbox, store, id, name, float(ttl))
        else:
            sandbox = await stack.enter_async_context(
                SandboxAgent.connect(url, token, store=store, owner=name, lease_ttl=float(ttl))
            )
            await guarded(sandbox, id, name)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:])
