"""A first conversation, in the terminal: a daemon of its own, the mock agent, and a client that speaks HTTP to it.

Everything is on loopback and in a temporary directory; nothing is left behind.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import click
import httpx
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["run_demo"]

Envelope: TypeAlias = dict[str, Any]

CONVERSATION = (
    ("a prompt, streamed back", "Hello! Everything I say comes back."),
    ("a plan", "/plan read the code; change it; run the tests"),
    ("a tool call that asks for permission", "/write? greeting.txt Hello from a sandbox"),
    ("a crash in the middle of a turn", "/stream 3 200 20\n/crash 7"),
    ("and the next prompt: the agent is back, and still knows", "/recite"),
)
SPEED = 0.012
"""Seconds for each character of a prompt that is typed out."""


async def run_demo() -> None:
    """Show the conversation, from the daemon's start to its end."""
    from sandbox_http.config import Config
    from sandbox_http.daemon import open_daemon

    with tempfile.TemporaryDirectory(prefix="sandbox-agent-demo-") as directory:
        token = secrets.token_urlsafe(32)
        config = Config(data_dir=Path(directory), port=0, token=token, environment={"MOCK_AGENT_HOME": directory})
        async with (
            open_daemon(config) as daemon,
            httpx.AsyncClient(base_url=daemon.url, headers={"Authorization": f"Bearer {token}"}, timeout=60) as client,
        ):
            _say(f"daemon   {daemon.url}   (a token, a journal, no agent yet)")
            await _converse(_Client(client, "demo"), directory)
        _say("daemon   stopped, no process left")


async def _converse(client: _Client, directory: str) -> None:
    initialized = await client.request("initialize", {"protocolVersion": 1, "clientCapabilities": {}}, agent="mock")
    _say(f"agent    {initialized['agentInfo']['name']}, process {initialized['_meta']['pid']}")
    session = await client.request("session/new", {"cwd": directory, "mcpServers": []})
    _say(f"session  {session['sessionId']}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.listen)
        for title, text in CONVERSATION:
            click.echo()
            click.secho(f"  {title}", dim=True)
            await _type(text)
            prompt = [{"type": "text", "text": text}]
            try:
                answer = await client.request("session/prompt", {"sessionId": session["sessionId"], "prompt": prompt})
            except AgentError as error:
                await client.restarted()
                _say(f"turn     failed: {error}")
            else:
                await client.caught_up()
                _say(f"turn     {answer['stopReason']}")
        nursery.cancel_scope.cancel()
    await client.close()


class AgentError(Exception):
    """The answer was a JSON-RPC error."""


@dataclass(slots=True, eq=False)
class _Client:
    """The smallest client: POST for what we say, one event stream for what the agent says."""

    http: httpx.AsyncClient
    id: str
    _numbers: int = 0
    _answered: set[int] = field(default_factory=set[int])
    _news: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    _restarts: int = 0

    @property
    def path(self) -> str:
        return f"/v1/acp/{self.id}"

    async def request(self, method: str, params: Envelope, agent: str | None = None) -> Envelope:
        self._numbers += 1
        envelope = {"jsonrpc": "2.0", "id": self._numbers, "method": method, "params": params}
        response = await self.http.post(self.path, json=envelope, params={"agent": agent} if agent else None)
        answer = response.raise_for_status().json()
        if "error" in answer:
            raise AgentError(answer["error"]["message"])
        return answer["result"]  # type: ignore[no-any-return]  # JSON

    async def caught_up(self) -> None:
        """Wait until the stream has shown the answer as well: then all that came before it has been shown."""
        while self._numbers not in self._answered:
            await self._news.park()

    async def restarted(self) -> None:
        while not self._restarts:
            await self._news.park()

    async def close(self) -> None:
        await self.http.delete(self.path)

    async def listen(self) -> None:
        async with (
            self.http.stream("GET", self.path, headers={"Accept": "text/event-stream"}) as response,
            aclosing(cast("AsyncGenerator[str]", response.aiter_lines())) as lines,
        ):
            async for line in lines:
                if line.startswith("data: "):
                    await self._show(json.loads(line.removeprefix("data: ")))
                    self._news.unpark_all()

    async def _show(self, event: Envelope) -> None:
        params = event.get("params", {})
        match event:
            case {"method": "session/update"}:
                _show_update(params["update"])
            case {"method": "session/request_permission", "id": id}:
                option = next(each for each in params["options"] if each["kind"] == "allow_once")
                _say(f"asks     may I: {params['toolCall'].get('title')}?  →  {option['name']}")
                outcome = {"outcome": {"outcome": "selected", "optionId": option["optionId"]}}
                await self.http.post(self.path, json={"jsonrpc": "2.0", "id": id, "result": outcome})
            case {"method": "_adapter/agent_exited"}:
                _say(f"exited   code {params['code']}: the daemon knows at once")
            case {"method": "_sandboxagent/session/recovered"}:
                _say(f"back     incarnation {params['incarnation']}, session {params['fidelity']}")
            case {"method": "_sandboxagent/agent/restarted"}:
                self._restarts += 1
            case {"id": int(id)}:
                self._answered.add(id)
            case _:
                pass


def _show_update(update: Envelope) -> None:
    match update:
        case {"sessionUpdate": "agent_message_chunk", "content": {"text": str(text)}}:
            _terminal.stream(text.replace("\n", "\n           "))
        case {"sessionUpdate": "plan", "entries": entries}:
            _say("plan     " + "   ".join(f"[{each['status'][:4]}] {each['content']}" for each in entries))
        case {"sessionUpdate": "tool_call" | "tool_call_update", "toolCallId": str(id)}:
            _say(f"tool     {update.get('title', id)}: {update.get('status', 'pending')}")
        case _:
            pass


class _Terminal:
    """Lines of our own, and the agent's text, which comes in pieces and stays on its line until something else does."""

    def __init__(self) -> None:
        self._streaming = False

    def line(self, text: str) -> None:
        if self._streaming:
            click.echo()
        self._streaming = False
        click.echo(f"  {text}")

    def stream(self, text: str) -> None:
        if not self._streaming:
            click.secho("  agent    ", nl=False, fg="cyan")
        self._streaming = True
        click.secho(text, nl=False, fg="cyan")


_terminal = _Terminal()
_say = _terminal.line


async def _type(text: str) -> None:
    click.secho("  you      ", nl=False, bold=True)
    for character in text.replace("\n", " ⏎ "):
        click.secho(character, nl=False, bold=True)
        await trio.sleep(SPEED)
    click.echo()
