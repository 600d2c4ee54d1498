"""Talking to sessions in tests: real agents in real processes, a real journal, no HTTP."""

from __future__ import annotations

import json
import os
import sys
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from sandbox_actors.catalog import Agent, Catalog
from sandbox_actors.envelope import decode
from sandbox_actors.files import FileSystem
from sandbox_actors.journal import Gap, Origin, open_journal
from sandbox_actors.messages import Say
from sandbox_actors.processes import Cgroups, open_processes
from sandbox_actors.sessions import open_sessions
from sandbox_actors.setting import Setting
from sandbox_supervisor import Node, RestartPolicy, StopLadder, pids

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from typing import TypeAlias

    from sandbox_actors.journal import Journal
    from sandbox_actors.messages import Accepted
    from sandbox_actors.processes import Processes
    from sandbox_actors.session import Session
    from sandbox_actors.sessions import Sessions

    OpenHouse: TypeAlias = Callable[..., AbstractAsyncContextManager["House"]]

__all__ = ["LIMIT", "QUICK", "Client", "House", "OpenHouse", "Told", "Watch", "open_house", "prompt"]

# No wait is longer, even on a busy machine.
LIMIT = 20.0

QUICK = RestartPolicy(backoff=0.01, backoff_limit=0.01)

SCRIPTED = Path(__file__).with_name("scripted_agent.py")


@dataclass(frozen=True, slots=True)
class Told:
    """One event of the journal, decoded."""

    seq: int
    origin: Origin
    message: dict[str, Any]

    @property
    def method(self) -> str:
        return str(self.message.get("method", ""))

    @property
    def params(self) -> dict[str, Any]:
        params: dict[str, Any] = self.message["params"]
        return params


class Watch:
    """Reads a session's events; keeps all it has read."""

    def __init__(self, session: Session, after: int = 0) -> None:
        self._cursor = session.log.cursor(after)
        self._unread: list[Told] = []
        self.told: list[Told] = []

    async def next(self) -> Told:
        while not self._unread:
            pages = await anext(self._cursor)
            assert not isinstance(pages, Gap)
            self._unread += [
                Told(event.seq, event.origin, json.loads(event.envelope)) for page in pages for event in page.events()
            ]
        self.told.append(self._unread.pop(0))
        return self.told[-1]

    async def until(self, matches: str | Callable[[Told], bool]) -> Told:
        """The next event of a method, or that matches."""
        with trio.fail_after(LIMIT):
            while True:
                told = await self.next()
                if told.method == matches if isinstance(matches, str) else matches(told):
                    return told

    def methods(self, origin: Origin) -> list[str]:
        return [told.method for told in self.told if told.origin is origin]


@dataclass(slots=True)
class Client:
    """Says things to a session as HTTP would, and counts its ids for itself."""

    session: Session
    _count: int = 0

    async def say(self, message: Mapping[str, object]) -> Accepted:
        text = json.dumps({"jsonrpc": "2.0", **message}).encode()
        return await self.session.ref.ask(Say(text, decode(text)))

    async def start(self, method: str, /, **params: object) -> Callable[[], Any]:
        """Send a request; gives what waits for its answer."""
        self._count += 1
        accepted = await self.say({"id": self._count, "method": method, "params": params})
        assert accepted.answer is not None
        reply, id = accepted.answer, self._count

        async def answer() -> dict[str, Any]:
            with trio.fail_after(LIMIT):
                message: dict[str, Any] = json.loads(await reply.wait())
            assert message["id"] == id
            return message

        return answer

    async def call(self, method: str, /, **params: object) -> Any:
        """The result of a request."""
        answer = await (await self.start(method, **params))()
        assert "result" in answer, answer
        return answer["result"]


def prompt(session_id: str, text: str) -> dict[str, object]:
    return {"sessionId": session_id, "prompt": [{"type": "text", "text": text}]}


@dataclass(slots=True)
class House:
    """What a daemon is without HTTP."""

    sessions: Sessions
    journal: Journal
    node: Node
    run: str
    flags: Path
    commands: Processes

    def processes(self) -> list[int]:
        """The agents that run, with all they have started."""
        return pids(lambda cookie: cookie.run == self.run)

    async def open(self, id: str = "s", agent: str = "scripted") -> tuple[Client, Watch]:
        with trio.fail_after(LIMIT):
            session = await self.sessions.obtain(id, agent)
        return Client(session), Watch(session)


@asynccontextmanager
async def open_house(
    folder: Path,
    policy: RestartPolicy = QUICK,
    *,
    serving: bool = False,
    limits: Mapping[str, Any] | None = None,
    **environment: str,
) -> AsyncGenerator[House]:
    """Sessions with the agents `mock`, `scripted` and `missing`; in the same folder again, it is the next daemon.

    When it is left, no process of it may be left.

    Args:
      serving: whether agents are served whose clients do not serve them: with files of the folder, and processes.
      limits: members of `Setting` that are not to have their defaults.
    """
    run = uuid.uuid4().hex
    flags = folder / "flags"
    await trio.Path(flags).mkdir(exist_ok=True)
    catalog = Catalog(
        {
            "mock": Agent("mock", "Mock"),
            "scripted": Agent("scripted", "Scripted", command=[sys.executable, str(SCRIPTED), str(flags)]),
            "missing": Agent("missing", "Missing", command=["/does/not/exist"]),
        },
        folder,
        {"PATH": os.environ["PATH"], "MOCK_AGENT_HOME": str(folder / "mock"), **environment},
    )
    node = Node("house", "root")
    async with open_journal(folder / "journal.db", synchronous="NORMAL") as journal:
        ladder = StopLadder(stdin=0.3, term=0.3, kill=5)
        async with open_processes(
            {"PATH": os.environ["PATH"]}, owner="tests", run=run, reaper=None, node=node, cgroups=Cgroups.none()
        ) as processes:
            setting = Setting(journal, "tests", run, policy=policy, ladder=ladder, **(limits or {}))
            if serving:
                setting = replace(setting, files=FileSystem(folder, folder), processes=processes)
            async with open_sessions(catalog, setting, node) as sessions:
                house = House(sessions, journal, node, run, flags, processes)
                yield house
    assert house.processes() == []
