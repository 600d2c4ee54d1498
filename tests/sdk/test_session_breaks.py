"""Sessions on a server of which we miss something: answers that were cut off, and events that are gone."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import anyio
import pytest

from sandbox_agent import SandboxAgent
from sandbox_agent.errors import ConnectionFailed, SessionNotFound
from support.scripted import cut, event_stream, hang, refused, said, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from sandbox_agent import Permission, Session
    from support.scripted import Asked, Script

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])

AT = "2026-01-01T12:00:0%d.000Z"

GAP = b'event: gap\nid: 8\ndata: {"from":8,"to":8,"reason":"floor","next":9,"epoch":"e"}\n\n'


@dataclass(slots=True)
class Server:
    """Of one session, `s`.

    Attributes:
      streams: what each connection to its events gets; behind the last one, silence.
      waiting: the questions that are open.
      turn: what is told of the only turn.
      others: what else is answered: by method and path, in order.
    """

    streams: list[list[bytes]] = field(default_factory=list[list[bytes]])
    waiting: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    turn: dict[str, Any] = field(default_factory=dict[str, Any])
    others: dict[str, list[Script]] = field(default_factory=dict[str, "list[Script]"])

    async def answer(self, asked: Asked, stream: Any) -> None:
        below = asked.path.removeprefix("/v1/sessions/s")
        does = f"{asked.method} {below}"
        script = said()
        if does in self.others:
            script = self.others[does].pop(0)
        elif does == "GET ":
            script = said(b'{"id":"s","agent":"mock","state":"ready","head":7,"epoch":"e"}')
        elif does == "POST /prompt":
            script = said(b'{"turnId":"t","seq":7,"state":"queued"}', 202)
        elif does == "GET /turns/t":
            script = said(json.dumps({"turnId": "t", "seq": 7, **self.turn}).encode())
        elif does == "GET /permissions":
            script = said(json.dumps({"permissions": self.waiting}).encode())
        elif does == "GET /events":
            script = event_stream(*(self.streams.pop(0) if self.streams else []), then=hang)
        elif asked.method == "POST" and below.startswith("/permissions/"):
            script = said(json.dumps(question(unquote(below.rpartition("/")[2]))).encode())
        await script(asked, stream)


def question(id: str, second: int = 5, acp: str | None = "a") -> dict[str, str]:
    told = {"permissionId": id, "askedAt": AT % second}
    return told if acp is None else {**told, "acpSessionId": acp}


def event(seq: int, event_kind: str, **params: Any) -> bytes:
    told = {"type": "event", "seq": seq, "at": AT % 6, "kind": event_kind, "direction": "notice", "incarnation": 1}
    data = json.dumps({**told, "envelope": {"jsonrpc": "2.0", "method": "x", "params": params}})
    return f"event: event\nid: {seq}\ndata: {data}\n\n".encode()


def requested(seq: int, id: str) -> bytes:
    return event(seq, "permission.requested", permissionId=id, kind="permission", sessionId="a")


ENDED = event(50, "turn.ended", turnId="t", outcome="completed")


@asynccontextmanager
async def session_on(server: Server) -> AsyncGenerator[Session]:
    async with scripted(server.answer) as scripts, SandboxAgent.connect(scripts.url) as sandbox:
        yield await sandbox.session("s")


def under(backend: str, server: Server, body: Callable[[Session], Awaitable[None]]) -> None:
    async def run() -> None:
        with anyio.fail_after(10):
            async with session_on(server) as session:
                await body(session)

    anyio.run(run, backend=backend)


# -- questions among the events that are gone


@BACKENDS
def test_a_question_that_is_missing_is_told_and_none_twice(backend: str) -> None:
    server = Server(waiting=[question("first")])

    async def body(session: Session) -> None:
        async with session.permission_requests() as requests:
            assert (await anext(requests)).permission_id == "first"
            server.streams = [[requested(8, "first"), requested(9, "second"), GAP, requested(20, "missed")]]
            server.streams[0] += [requested(21, "last")]
            assert (await anext(requests)).permission_id == "second"
            server.waiting = [question("first"), question("second"), question("missed"), question("also missed")]
            ids = [(await anext(requests)).permission_id for _ in range(3)]
            assert ids == ["missed", "also missed", "last"]

    under(backend, server, body)


@BACKENDS
@pytest.mark.parametrize("trouble", ["cancelled", "refused"])
def test_what_waits_is_asked_for_again_where_that_had_failed(backend: str, trouble: str) -> None:
    server = Server(streams=[[GAP]])

    async def body(session: Session) -> None:
        async with session.permission_requests() as requests:
            server.others["GET /permissions"] = [
                said(b'{"permissions":[]}'),
                hang if trouble == "cancelled" else refused(500, "internal_error"),
                said(json.dumps({"permissions": [question("missed")]}).encode()),
            ]
            with anyio.move_on_after(0.3):
                with pytest.raises(Exception, match="no") if trouble == "refused" else anyio.CancelScope():
                    await anext(requests)
            assert (await anext(requests)).permission_id == "missed"

    under(backend, server, body)


@BACKENDS
def test_a_callback_is_asked_what_a_gap_has_hidden_and_nothing_twice(backend: str) -> None:
    """What was asked before the turn, or in another conversation with the agent, is none of its questions."""
    asked: list[str] = []
    server = Server(
        streams=[[requested(8, "seen"), GAP, requested(20, "missed"), requested(21, "later"), ENDED]],
        waiting=[question("of before", 1), question("of another", acp="b"), question("seen"), question("missed")],
        turn={"state": "running", "startedAt": AT % 2, "acpSessionId": "a"},
    )
    server.waiting += [question("of no conversation", acp=None)]

    async def decide(permission: Permission) -> str:
        asked.append(permission.permission_id)
        return "allow_once"

    async def body(session: Session) -> None:
        async with session.stream("hello", on_permission=decide) as turn:
            async for _ in turn:
                await anyio.wait_all_tasks_blocked()  # so that the callback is called before the turn is over
        assert turn.result.outcome == "completed"

    under(backend, server, body)
    assert sorted(asked) == ["later", "missed", "of no conversation", "seen"]


@BACKENDS
def test_nobody_is_asked_what_a_turn_that_waits_cannot_have_asked(backend: str) -> None:
    server = Server(streams=[[GAP, ENDED]], waiting=[question("of another turn")], turn={"state": "queued"})

    async def decide(permission: Permission) -> str:
        raise AssertionError(permission)

    async def body(session: Session) -> None:
        assert (await session.prompt("hello", on_permission=decide)).outcome == "completed"

    under(backend, server, body)


# -- answers that were cut off


@BACKENDS
def test_a_delete_whose_answer_was_cut_off_has_worked(backend: str) -> None:
    gone = refused(404, "session_not_found")
    server = Server(others={"DELETE ": [cut, gone, gone]})

    async def body(session: Session) -> None:
        await session.delete()
        with pytest.raises(SessionNotFound):
            await session.delete()

    under(backend, server, body)


@BACKENDS
def test_only_the_cancel_of_a_turn_that_is_named_is_asked_twice(backend: str) -> None:
    answers: list[Script] = [cut, said(b'{"turnIds":["t"]}'), cut]
    server = Server(others={"POST /cancel": answers})

    async def body(session: Session) -> None:
        assert await session.cancel("t") == ["t"]
        with pytest.raises(ConnectionFailed, match="may have happened"):
            await session.cancel()
        assert answers == []

    under(backend, server, body)
