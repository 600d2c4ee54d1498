"""The scripted model: a loopback server whose answer is a function of the request alone.

A real coding agent needs a model. This one reads four dialects (Chat Completions, Messages, Responses,
GenerateContent) into one `Conversation`, lets the user's last prompt decide, and streams the decision back in the
dialect it was asked in:

    say N                   streams "1 2 3 ... N ", one number a chunk
    write PATH CONTENT      calls the agent's write tool, or its shell tool where it has no other
    run COMMAND             calls the agent's shell tool
    hold                    streams ticks until the agent hangs up
    recite                  tells, as a JSON list, every user prompt that the request carried
    fail STATUS             an HTTP error
    anything else           "ok"

After a tool result it says "done". A request without tools is the agent's own side business (a title, a summary) and
gets a title. No state decides an answer, so a retry, a second session and a resumed one each get what the request
deserves; `Model` only remembers the conversations and counts the held streams, for tests to look at.
"""

from __future__ import annotations

import json
import shlex
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, assert_never

import h11
import trio

from interop.model_dialects import DIALECTS, Call, ChatCompletions, Conversation, Dialect, Json, Tool

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator

__all__ = ["Conversation", "Model", "open_model"]

TICK_SECONDS = 0.05  # between the chunks of a held answer


# The script


@dataclass(frozen=True, slots=True)
class Say:
    chunks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hold:
    pass


@dataclass(frozen=True, slots=True)
class Fail:
    status: int


TRANSCRIPT_END = "[end of the transcript]"
"""How a text ends that the daemon has added to a prompt: an agent has lost the conversation and is told it."""

Answer: TypeAlias = Say | Hold | Call | Fail


def answer(conversation: Conversation) -> Answer:
    if not conversation.tools:
        return Say(("A conversation",))
    if conversation.results:
        return Say(("done",))
    last = max((at for at, text in enumerate(conversation.prompts) if not text.endswith(TRANSCRIPT_END)), default=None)
    verb, _, rest = ("" if last is None else conversation.prompts[last]).partition(" ")
    match verb:
        case "say":
            return Say(tuple(f"{number} " for number in range(1, int(rest) + 1)))
        case "write":
            path, _, content = rest.partition(" ")
            return _writing(conversation.tools, path, content)
        case "run":
            return _running(conversation.tools, rest)
        case "hold":
            return Hold()
        case "recite":
            return Say((json.dumps([text for at, text in enumerate(conversation.prompts) if at != last]),))
        case "fail":
            return Fail(int(rest))
        case _:
            return Say(("ok",))


def _writing(tools: tuple[Tool, ...], path: str, content: str) -> Call:
    for tool in tools:
        if tool.name.lower() in {"write", "write_file"}:
            where = next(name for name in tool.parameters if "path" in name.lower())
            return Call(tool.name, {where: path, "content": content})
    return _running(tools, f"printf %s {shlex.quote(content)} > {shlex.quote(path)}")


def _running(tools: tuple[Tool, ...], command: str) -> Call:
    for tool in tools:
        if tool.name.lower() in {"bash", "shell", "shell_command", "exec_command", "run_shell_command", "terminal"}:
            where = next(name for name in tool.parameters if name in {"command", "cmd"})
            words = tool.parameters[where].get("type") == "array"
            arguments: dict[str, Json] = {where: ["sh", "-c", command] if words else command}
            if "description" in tool.parameters:
                arguments["description"] = "Run what the prompt says"
            if "sandbox_permissions" in tool.parameters:  # codex asks only before what its sandbox would not allow
                arguments |= {"sandbox_permissions": "require_escalated", "justification": "The prompt says so"}
            return Call(tool.name, arguments)
    raise LookupError(f"no shell among {[tool.name for tool in tools]}")


# The server


class Model:
    """The running server, and what it saw."""

    def __init__(self) -> None:
        self.url = ""
        self.conversations: list[Conversation] = []
        """Every request with tools, in order of arrival."""
        self.holding = 0
        """Held answers whose agent still listens."""
        self._changed = trio.Event()

    async def until(self, condition: Callable[[Model], bool]) -> None:
        """Wait until the model's state fits; the caller brings the deadline."""
        while not condition(self):
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        """One request, one answer, one connection: `connection: close` spares us pipelining."""
        peer = h11.Connection(h11.SERVER)
        request, body = await _receive(stream, peer)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_hangup, stream, nursery.cancel_scope)
            with suppress(trio.BrokenResourceError):  # it hung up while we spoke: the watcher may be a moment behind
                await self._respond(partial(_send, stream, peer), request.target.decode(), body)
            nursery.cancel_scope.cancel()

    async def _respond(self, send: Send, target: str, body: bytes) -> None:
        path = target.partition("?")[0]
        dialect = next((each for ending, each in DIALECTS.items() if path.endswith(ending)), None)
        if dialect is None:
            await _refuse(send, 404, f"nothing at {path}")
            return
        conversation = dialect.read(json.loads(body))
        if conversation.tools:
            self.conversations.append(conversation)
            self._tell()
        decided = answer(conversation)
        if isinstance(decided, Fail):
            await _refuse(send, decided.status, "the script says so")
            return
        await send(h11.Response(status_code=200, headers=[("content-type", "text/event-stream"), _CLOSE]))
        match decided:
            case Say(chunks):
                await self._emit(send, dialect.text_opened())
                for chunk in chunks:
                    await self._emit(send, dialect.text_said(chunk))
                await self._emit(send, dialect.text_closed("".join(chunks)))
            case Hold():
                await self._hold(send, dialect)
            case Call():
                await self._emit(send, dialect.called(decided))
            case _:
                assert_never(decided)
        if isinstance(dialect, ChatCompletions):
            await send(h11.Data(b"data: [DONE]\n\n"))
        await send(h11.EndOfMessage())

    async def _hold(self, send: Send, dialect: Dialect) -> None:
        self.holding += 1
        self._tell()
        try:
            await self._emit(send, dialect.text_opened())
            while True:  # ends by the hang-up, which cancels us
                await self._emit(send, dialect.text_said("tick "))
                await trio.sleep(TICK_SECONDS)
        finally:
            self.holding -= 1
            self._tell()

    async def _emit(self, send: Send, events: Iterator[Json]) -> None:
        for event in events:
            head = f"event: {event['type']}\n" if "type" in event else ""
            await send(h11.Data(f"{head}data: {json.dumps(event)}\n\n".encode()))


Send: TypeAlias = "Callable[[h11.Event], Awaitable[None]]"
_CLOSE = ("connection", "close")


async def _receive(stream: trio.SocketStream, peer: h11.Connection) -> tuple[h11.Request, bytes]:
    request: h11.Request | None = None
    body = bytearray()
    while True:
        match peer.next_event():
            case h11.NEED_DATA:
                if peer.they_are_waiting_for_100_continue:
                    await _send(stream, peer, h11.InformationalResponse(status_code=100, headers=[]))
                peer.receive_data(await stream.receive_some())
            case h11.Request() as request:
                pass
            case h11.Data(data=data):
                body += data
            case h11.EndOfMessage():
                assert request is not None
                return request, bytes(body)
            case _:
                raise h11.RemoteProtocolError("the agent hung up before it had asked")


async def _send(stream: trio.SocketStream, peer: h11.Connection, event: h11.Event) -> None:
    data = peer.send(event)
    if data:
        await stream.send_all(data)


async def _refuse(send: Send, status: int, message: str) -> None:
    body = json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": message}}).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(body))), _CLOSE]
    await send(h11.Response(status_code=status, headers=headers))
    await send(h11.Data(body))
    await send(h11.EndOfMessage())


async def _watch_hangup(stream: trio.SocketStream, answering: trio.CancelScope) -> None:
    with suppress(trio.BrokenResourceError):
        while await stream.receive_some():
            pass
    answering.cancel()


@asynccontextmanager
async def open_model() -> AsyncGenerator[Model]:
    model = Model()

    async def handle(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):  # killed in the middle of its request
            await model.serve(stream)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        model.url = f"http://127.0.0.1:{port}"
        yield model
        nursery.cancel_scope.cancel()
