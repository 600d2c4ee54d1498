"""Asking for permission in tests: the mock agent asks, and somebody answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio

from actors.talking import LIMIT, Client, prompt
from sandbox_actors.messages import AnswerPermission, Patch
from sandbox_actors.native import Changes

if TYPE_CHECKING:
    from collections.abc import Callable

    from actors.talking import House, Told, Watch
    from sandbox_actors.permissions import Policy
    from sandbox_actors.permissions.permission import Permission

__all__ = [
    "ASK",
    "OPTIONS",
    "REQUESTED",
    "RESOLVED",
    "agent_heard",
    "answer",
    "asks",
    "everything",
    "nothing_left",
    "opened",
]

REQUESTED = "_sandboxagent/permission/requested"
RESOLVED = "_sandboxagent/permission/resolved"

ASK = "session/request_permission"
OPTIONS = [
    {"optionId": "yes", "name": "Allow", "kind": "allow_once"},
    {"optionId": "ever", "name": "Always", "kind": "allow_always"},
    {"optionId": "no", "name": "Reject", "kind": "reject_once"},
]


async def opened(house: House, id: str = "s", policy: Policy | None = None) -> tuple[Client, Watch, str]:
    """A session with the mock agent, introduced, and an ACP session in it."""
    client, watch = await house.open(id, "mock")
    await client.call("initialize", protocolVersion=1)
    result = await client.call("session/new", cwd="/code", mcpServers=[])
    if policy is not None:
        await client.session.ref.ask(Patch(Changes(policy=policy)))
    return client, watch, str(result["sessionId"])


async def asks(client: Client, acp: str, **call: Any) -> Callable[[], Any]:
    """Have the agent ask for permission for a tool call; gives what waits for the turn's end."""
    params = {"options": OPTIONS, "toolCall": {"toolCallId": "t", **call}}
    return await client.start("session/prompt", **prompt(acp, f"/ask-client {ASK} {json.dumps(params)}"))


async def answer(client: Client, id: str, **how: Any) -> Permission:
    with trio.fail_after(LIMIT):
        return await client.session.ref.ask(AnswerPermission(id, **how))


def agent_heard(watch: Watch) -> list[str]:
    """What the agent says that it was answered."""
    updates = [told.params["update"] for told in watch.told if told.method == "session/update"]
    return [update["content"]["text"] for update in updates if update["sessionUpdate"] == "agent_message_chunk"]


def nothing_left(client: Client) -> bool:
    """No entry, no row, no timer."""
    session = client.session
    return not (session.permissions.pending() or session.memory.permissions or session.timers.names())


async def everything(client: Client, watch: Watch) -> list[Told]:
    """All events up to now."""
    last = client.session.log.next_seq - 1
    while not watch.told or watch.told[-1].seq < last:
        await watch.next()
    return watch.told
