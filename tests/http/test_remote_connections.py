"""Connections: how they end, what they hold, and how requests and questions are told apart."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from sandbox_actors.catalog import Agent, Catalog
from sandbox_actors.envelope import decode, id_text, replace_members
from sandbox_actors.journal import open_journal
from sandbox_actors.sessions import open_sessions
from sandbox_actors.setting import Setting
from sandbox_http.config import BadConfig, Config
from sandbox_http.daemon import open_daemon
from sandbox_http.remote.connections import open_connections
from sandbox_http.remote.labels import Label, label_id, label_of, question_id, question_of
from sandbox_supervisor import Node
from support.remote import Remote
from support.serving import Resources, serving
from support.wire import WebSocket

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from trio.testing import MockClock

    from sandbox_actors.session import Session
    from sandbox_http.remote.connection import Connection
    from sandbox_http.remote.connections import Connections

KINDS = ("initialize", "open", "new", "list", "connection", "session")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def sent(id: Raw) -> Raw:
    """An id as it comes back from whoever got it."""
    head = decode(replace_members(b'{"jsonrpc":"2.0","id":0,"result":{}}', {"id": id}))
    assert isinstance(head.id, Raw)
    return head.id


@given(kind=st.sampled_from(KINDS), number=st.integers(0, 2**40), session=st.none() | st.text(), id=JSON)
def test_an_answer_gets_back_the_id_that_its_client_gave(kind: Any, number: int, session: str | None, id: Any) -> None:
    own_id = Raw(msgspec.json.encode(id))
    label = label_of("by_x", sent(label_id("by_x", Label(kind, number, session, own_id))))
    assert label is not None
    assert (label.kind, label.number, label.session, bytes(label.id)) == (kind, number, session, bytes(own_id))


@given(id=JSON)
def test_an_id_of_anybody_else_has_no_label(id: Any) -> None:
    text = Raw(msgspec.json.encode(id))
    assert label_of("by_x", text) is None
    assert label_of("by_y", label_id("by_x", Label("session", 1, None, text))) is None
    for broken in ("by_x", "by_x[", 'by_x["session",1]', 'by_x["other",1,null,1]', "by_x{}"):
        assert label_of("by_x", Raw(msgspec.json.encode(broken))) is None


@given(key=st.integers(0, 10**18 - 1), incarnation=st.integers(0, 10**18 - 1), id=JSON)
def test_a_question_is_answered_under_the_agents_own_id(key: int, incarnation: int, id: Any) -> None:
    own_id = Raw(msgspec.json.encode(id))
    question = question_of(sent(question_id(key, incarnation, own_id)))
    assert question is not None
    assert (question.key, question.incarnation) == (key, incarnation)
    assert id_text(question.id) == id_text(own_id)


@given(id=JSON)
def test_an_id_that_no_question_has_belongs_to_none(id: Any) -> None:
    if not isinstance(id, str) or ":" not in id:
        assert question_of(Raw(msgspec.json.encode(id))) is None


NO_QUESTIONS = [
    "9" * 5000 + ".1:1",
    "1." + "9" * 5000 + ":1",
    "1.1:}{garbage",
    "1.1:",
    "1.1:1,",
    "1.1:1 2",
    '1.1:1\n,"x":\n2',
    "1.1:" + "[" * 100_000,
    "1.1:" + "9" * 5000,
    "\u0661.1:1",
]


@pytest.mark.parametrize("text", NO_QUESTIONS, ids=range(len(NO_QUESTIONS)))
def test_an_id_that_would_be_more_than_a_value_is_none(text: str) -> None:
    assert question_of(Raw(msgspec.json.encode(text))) is None


def test_an_id_of_several_lines_becomes_one() -> None:
    question = question_of(Raw(msgspec.json.encode('1.1:{\n"a":\r\n1}')))
    assert question is not None
    assert bytes(question.id).split() == [b"{", b'"a":', b"1}"]
    label = label_of("by_x", Raw(msgspec.json.encode('by_x["new",1,null,{\n"a":1}]')))
    assert label is not None
    assert b"\n" not in bytes(question.id) + bytes(label.id)


async def test_an_answer_to_what_nobody_can_have_asked_is_taken_and_harms_nothing(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        with trio.fail_after(15):
            remote = await Remote.connect(daemon)
            session = await remote.new_session()
            async with remote.events(session) as events:
                asked = await remote.prompt(session, "/permission")
                question = await events.method("session/request_permission")
                own = question["id"].partition(":")[0]
                for text in (*NO_QUESTIONS, f"{own}:}}{{garbage", f'{own}:"mock-1"\n,"x":\n{{}}'):
                    assert (await remote.post({"id": text, "result": {}})).status == 202
                await remote.reply(question, {"outcome": {"outcome": "cancelled"}})
                assert (await events.answer(asked))["result"]["stopReason"]


@asynccontextmanager
async def opened(folder: Path, idle_limit: float) -> AsyncGenerator[tuple[Connections, Session]]:
    """Connections, and a session whose agent does not run."""
    catalog = Catalog({"mock": Agent("mock", "Mock")}, folder, {})
    async with open_journal(folder / "journal.db") as journal:
        await journal.create("s", "mock")
        async with (
            open_sessions(catalog, Setting(journal, "tests", "run"), Node("house", "root")) as sessions,
            open_connections(sessions, idle_limit=idle_limit) as connections,
        ):
            yield connections, sessions.get("s")


def entered(connections: Connections, session: Session) -> Connection:
    connection = connections.open()
    connections.enter(connection, session, made=False)
    return connection


async def test_a_connection_that_nobody_uses_ends(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with opened(tmp_path, 600) as (connections, session):
        first = entered(connections, session)
        await trio.sleep(400)
        second = entered(connections, session)
        with second.used():
            await trio.sleep(199)
            assert connections.get(first.id) is first
            await trio.sleep(2)
            assert (connections.get(first.id), first.ended) == (None, True)
            await trio.sleep(5000)
            assert connections.get(second.id) is second
        await trio.sleep(599)
        assert connections.get(second.id) is second
        await trio.sleep(2)
        assert connections.get(second.id) is None
        third = entered(connections, session)
        await trio.sleep(601)
        assert third.ended


async def test_what_is_used_twice_is_idle_when_both_have_ended(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with opened(tmp_path, 10) as (connections, session):
        connection = entered(connections, session)
        with connection.used():
            with connection.used():
                await trio.sleep(100)
            await trio.sleep(100)
            assert not connection.ended
        await trio.sleep(11)
        assert connection.ended


async def test_neither_streams_nor_sockets_leave_anything_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        remote = await Remote.connect(daemon, "?agent=mock&session=s")
        session = await remote.new_session()
        before = Resources.now()
        with trio.fail_after(30):
            for _ in range(5):
                async with remote.events() as own, remote.events(session) as events:
                    await events.answer(await remote.prompt(session, "/stream 20"))
                    await own.answer(await remote.send("session/list", {}))
                async with WebSocket.open(daemon.port, "/acp?session=s") as socket:
                    await socket.send_json({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
                    await socket.until(id=1)
        await before.back()


async def test_a_default_agent_that_is_none_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.RaisesGroup(
        pytest.RaisesExc(BadConfig, match="--default-agent: unsupported agent: nope"), allow_unwrapped=True
    ):
        async with open_daemon(Config(data_dir=tmp_path, port=0, default_agent="nope")):
            pass
