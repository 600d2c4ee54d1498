"""A program on the PyPI package `agent-client-protocol`, as its users write them: asyncio, the package untouched.

It is run by a Python of its own, says by lines of JSON on stdout what it found, and takes from its environment where
the server is and what to prompt: `SCENARIO` is an object with `url`, `headers`, `transport` (`http` or `ws`), `cwd`,
the texts `stream`, `ask`, `hold` and `recite`, and `replayed`: what must come of the agent's first answer.
"""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import acp  # type: ignore[import-not-found]  # not of this repository's environment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

SCENARIO: dict[str, Any] = json.loads(os.environ["SCENARIO"])


def tell(what: str, **facts: object) -> None:
    print(json.dumps({"tell": what, **facts}), flush=True)


class Client:
    """What the package calls; by name, so that it needs no base class."""

    def __init__(self) -> None:
        self.chunks: list[tuple[str, str]] = []
        self.asked: list[str] = []
        self._news = asyncio.Event()

    async def session_update(self, session_id: str, update: Any, **kwargs: Any) -> None:
        text = getattr(getattr(update, "content", None), "text", None)
        if text is not None:
            self.chunks.append((update.session_update, text))
            self._news.set()

    async def request_permission(self, session_id: str, tool_call: Any, options: Any, **kwargs: Any) -> Any:
        self.asked.append(session_id)
        option = next(one for one in options if one.kind == "allow_once")
        chosen = acp.schema.AllowedOutcome(outcome="selected", option_id=option.option_id)
        return acp.schema.RequestPermissionResponse(outcome=chosen)

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """What the server tells beside the agent needs no answer."""

    def said(self, kind: str = "agent_message_chunk") -> str:
        return "".join(text for who, text in self.chunks if who == kind)

    async def until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._news.clear()
            await self._news.wait()


@asynccontextmanager
async def connected(client: Client) -> AsyncGenerator[Any]:
    if SCENARIO["transport"] == "http":
        from acp.http import create_http_stream  # type: ignore[import-not-found]

        transport = create_http_stream(SCENARIO["url"], headers=SCENARIO["headers"])
    else:
        from acp.ws import create_websocket_stream  # type: ignore[import-not-found]

        transport = await create_websocket_stream(SCENARIO["url"], headers=SCENARIO["headers"])
    connection = acp.connect_to_agent(client, transport)
    try:
        yield connection
    finally:
        await connection.close()


async def prompt(connection: Any, session: str, name: str) -> str:
    answer = await connection.prompt(session_id=session, prompt=[acp.text_block(SCENARIO[name])])
    stop_reason: str = answer.stop_reason
    return stop_reason


async def main() -> None:
    ann = Client()
    async with connected(ann) as connection:
        greeting = await connection.initialize(protocol_version=acp.PROTOCOL_VERSION)
        tell("greeted", version=greeting.protocol_version, loads=greeting.agent_capabilities.load_session)
        session = (await connection.new_session(cwd=SCENARIO["cwd"], mcp_servers=[])).session_id

        stop_reason = await prompt(connection, session, "stream")
        tell("streamed", stop_reason=stop_reason, text=ann.said())

        stop_reason = await prompt(connection, session, "ask")
        tell("asked", stop_reason=stop_reason, times=len(ann.asked), of_session=set(ann.asked) == {session})

        before = len(ann.chunks)
        holding = asyncio.ensure_future(prompt(connection, session, "hold"))
        await ann.until(lambda: len(ann.chunks) > before)
        await connection.cancel(session_id=session)
        tell("cancelled", stop_reason=await holding)

    bob = Client()
    async with connected(bob) as connection:
        await connection.initialize(protocol_version=acp.PROTOCOL_VERSION)
        await connection.load_session(cwd=SCENARIO["cwd"], session_id=session, mcp_servers=[])
        if SCENARIO["transport"] == "http":
            # The server sends the replay first; but by another socket: a busy client may read this one first.
            said, heard = SCENARIO["stream"], SCENARIO["replayed"]
            await bob.until(lambda: said in bob.said("user_message_chunk") and heard in bob.said())
        tell("loaded", prompts=bob.said("user_message_chunk"), answers=bob.said())
        before = len(bob.said())
        stop_reason = await prompt(connection, session, "recite")
        tell("recited", stop_reason=stop_reason, text=bob.said()[before:])


asyncio.run(main())
