"""What the daemon does for an agent in the place of its clients: text files and terminals.

An agent may ask its client to read and write files and to run commands, if the client has said that it can
(`clientCapabilities` of `initialize`). What the client does not do, the daemon does: by the same files and processes
that its HTTP API has, so the same root and the same limits hold. Each request is a task of the incarnation that asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio
from msgspec import Raw

from ..envelope import Json, id_text, members_of, text_of
from ..errors import Refusal
from ..messages import Served
from .declared import SERVED, declared
from .errors import CANCELLED, INVALID_PARAMS, METHOD_NOT_FOUND, OVERLOADED, ServiceError, error_answer, refused
from .files import ReadTextFile, WriteTextFile, read_text_file, write_text_file
from .terminals import CreateTerminal, OneTerminal, Terminals

if TYPE_CHECKING:
    from sandbox_supervisor import ActorRef

    from ..files import FileSystem
    from ..memory import Memory
    from ..messages import Message
    from ..processes import Processes
    from ..routed import Asked

__all__ = ["Services"]

LIMIT = 64
"""Requests of one agent at a time: each may hold a thread, or a file's worth of memory."""


class Services:
    """See the module. One for a session; `run` is a task of each incarnation.

    Args:
      files, processes: None: the daemon does not serve that.
    """

    def __init__(
        self, files: FileSystem | None, processes: Processes | None, memory: Memory, session: ActorRef[Message]
    ) -> None:
        self._files = files
        self._processes = processes
        self._memory = memory
        self._session = session
        self._nursery: trio.Nursery | None = None
        self._terminals: Terminals | None = None
        self._tasks: dict[bytes, trio.CancelScope] = {}

    @property
    def busy(self) -> int:
        """How many requests are under way."""
        return len(self._tasks)

    @property
    def runs_terminals(self) -> bool:
        """Whether a command runs that the agent has started."""
        return self._terminals is not None and self._terminals.any_running

    def serves(self, method: str) -> bool:
        """Whether a request of the agent's is the daemon's to answer."""
        if method not in SERVED:
            return False
        able = self._files if method.startswith("fs/") else self._processes
        return able is not None and not declared(self._memory, method)

    def begin(self, asked: Asked) -> bytes | None:
        """Begin to serve a request; its answer if that is known at once: it is an error then."""
        if self._nursery is None or len(self._tasks) >= LIMIT or id_text(asked.id) in self._tasks:
            return error_answer(asked.id, OVERLOADED, f"more than {LIMIT} requests at a time, or two of one id")
        self._tasks[id_text(asked.id)] = scope = trio.CancelScope()
        self._nursery.start_soon(self._serve, asked, scope, self._terminals)
        return None

    def withdraw(self, id: Raw) -> None:
        """The agent does not want an answer any more: it gets the error that says so."""
        if (scope := self._tasks.get(id_text(id))) is not None:
            scope.cancel()

    async def run(self) -> None:
        """Serve one incarnation, until cancelled. What it has started is ended then."""
        terminals = None if self._processes is None else Terminals(self._processes)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery, self._terminals = nursery, terminals
                await trio.sleep_forever()
        finally:
            self._nursery = self._terminals = None
            self._tasks.clear()
            if terminals is not None:
                with trio.CancelScope(shield=True):
                    await terminals.end()

    async def _serve(self, asked: Asked, scope: trio.CancelScope, terminals: Terminals | None) -> None:
        answer = error_answer(asked.id, CANCELLED, "Request cancelled")
        try:
            with scope:
                answer = await self._answer(asked, terminals)
        finally:
            self._tasks.pop(id_text(asked.id), None)
        await self._session.tell(Served(answer))

    async def _answer(self, asked: Asked, terminals: Terminals | None) -> bytes:
        try:
            result = await self._result(asked, terminals)
        except ServiceError as error:
            return error_answer(asked.id, error.code, str(error))
        except Refusal as refusal:
            return refused(asked.id, refusal, text_of(members_of(asked.params).get("path")))
        except (msgspec.MsgspecError, RecursionError) as error:
            return error_answer(asked.id, INVALID_PARAMS, f"Invalid params: {error}")
        return msgspec.json.encode({"jsonrpc": "2.0", "id": asked.id, "result": result})

    async def _result(self, asked: Asked, terminals: Terminals | None) -> dict[str, Json]:
        params = Raw(b"{}") if asked.params is None else asked.params
        match asked.method:
            case "fs/read_text_file" if self._files is not None:
                return await read_text_file(self._files, msgspec.json.decode(params, type=ReadTextFile))
            case "fs/write_text_file" if self._files is not None:
                return await write_text_file(self._files, msgspec.json.decode(params, type=WriteTextFile))
            case "terminal/create" if terminals is not None:
                cwd = self._memory.directory_of(text_of(members_of(params).get("sessionId")))
                return await terminals.create(msgspec.json.decode(params, type=CreateTerminal), cwd)
            case "terminal/output" if terminals is not None:
                return terminals.output(_terminal(params))
            case "terminal/wait_for_exit" if terminals is not None:
                return await terminals.wait_for_exit(_terminal(params))
            case "terminal/kill" if terminals is not None:
                return await terminals.kill(_terminal(params))
            case "terminal/release" if terminals is not None:
                return await terminals.release(_terminal(params))
            case method:
                raise ServiceError(METHOD_NOT_FOUND, f"Method not found: {method}")


def _terminal(params: Raw) -> str:
    return msgspec.json.decode(params, type=OneTerminal).terminal_id
