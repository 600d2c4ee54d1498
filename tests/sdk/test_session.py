"""Sessions, against a real daemon and the mock agent: turns, permissions, events, and the session itself."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from sandbox_agent import Answer, SandboxAgent
from sandbox_agent.errors import (
    IdempotencyConflict,
    InvalidRequest,
    NotSupported,
    PermissionNotFound,
    PermissionResolved,
    SessionBusy,
    SessionClosed,
    SessionDeleted,
    SessionNotFound,
    StaleGeneration,
    TurnNotFound,
)
from sandbox_agent.events import (
    Event,
    Gap,
    MessageChunk,
    PermissionRequested,
    PlanUpdate,
    ToolCall,
    ToolCallUpdate,
    TurnEnded,
    TurnQueued,
    TurnStarted,
)
from support.scripted import event_stream, hang, refused, said, scripted
from support.transports import lasting

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from sandbox_agent import Permission, Session
    from support.daemon import Daemon
    from support.scripted import Asked

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])

WITHIN = 30
"""Seconds for one test."""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    with lasting(tmp_path_factory.mktemp("session")) as daemon:
        yield daemon


@asynccontextmanager
async def opened(daemon: Daemon, **members: object) -> AsyncGenerator[Session]:
    """A session of its own."""
    with anyio.fail_after(WITHIN):
        async with SandboxAgent.connect(daemon.url, daemon.token) as sandbox:
            yield await sandbox.create_session("mock", cwd=str(daemon.home), **members)  # type: ignore[arg-type]


def under(backend: str, daemon: Daemon, body: Callable[[Session], Awaitable[None]]) -> None:
    async def run() -> None:
        async with opened(daemon) as session:
            await body(session)

    anyio.run(run, backend=backend)


async def allow(permission: Permission) -> str:
    return "allow_once"


# -- turns


@BACKENDS
def test_a_prompt_has_a_result(backend: str, daemon: Daemon) -> None:
    async def body(session: Session) -> None:
        result = await session.prompt("Hello there")
        assert (result.text, result.outcome, result.stop_reason, result.error) == (
            "Hello there",
            "completed",
            "end_turn",
            None,
        )
        assert result.completed
        assert not result.text_truncated
        turn = await session.turn(result.turn_id)
        assert (turn.state, turn.outcome, turn.stop_reason) == ("ended", "completed", "end_turn")
        blocks = [{"type": "text", "text": "context"}, {"type": "text", "text": "/echo a block"}]
        assert (await session.prompt(blocks)).text == "a block"

    under(backend, daemon, body)


async def test_a_result_s_text_is_what_the_server_makes_of_it(daemon: Daemon) -> None:
    """Messages are what stands between other things; thoughts and updates of a tool do not end one."""
    steps = ("/echo one", "/think hm", "/echo two", "/tool", "/echo three", "/plan a; b", "/echo four", "/usage")
    script = "\n".join((*steps, "/echo five", "/write x.txt hi"))
    async with opened(daemon) as session:
        ours = await session.prompt(script)
        answer = await session.transport.request(
            "POST", session.path("/prompt"), params={"wait": True}, json={"content": script}
        )
    assert ours.text == answer.json()["text"]
    assert "one" in ours.text
    assert "\n\n" in ours.text


@BACKENDS
def test_the_events_of_a_turn_come_from_its_beginning_to_its_end(backend: str, daemon: Daemon) -> None:
    async def body(session: Session) -> None:
        await session.prompt("another one")
        async with session.stream("/tool\n/plan a; b\n/echo done") as turn:
            with pytest.raises(RuntimeError, match="not ended yet"):
                _ = turn.result
            events = [event async for event in turn]
            assert [event async for event in turn] == []
        kinds = [type(event) for event in events]
        assert kinds[-1] is TurnEnded
        assert kinds.count(TurnEnded) == kinds.count(TurnStarted) == 1
        assert TurnQueued not in kinds
        assert {ToolCall, ToolCallUpdate, PlanUpdate, MessageChunk} <= set(kinds)
        seqs = [event.seq for event in events if isinstance(event, Event)]
        assert seqs == sorted(set(seqs))
        assert seqs[0] > turn.turn.seq
        assert turn.result.turn_id == turn.turn.turn_id
        assert turn.result.text.endswith("done")

    under(backend, daemon, body)


@BACKENDS
def test_a_turn_that_fails_is_a_result(backend: str, daemon: Daemon) -> None:
    async def body(session: Session) -> None:
        failed = await session.prompt("/echo before\n/crash 7")
        assert (failed.outcome, failed.completed, failed.text) == ("failed", False, "before")
        assert failed.error is not None
        assert failed.error["type"].endswith("agent_process_exited")
        assert (await session.prompt("after")).text == "after"
        refused = await session.prompt("/error -32000 no such thing")
        assert refused.outcome == "failed"
        assert "no such thing" in json.dumps(refused.error)

    under(backend, daemon, body)


@BACKENDS
def test_a_turn_is_cancelled_while_it_is_read(backend: str, daemon: Daemon) -> None:
    async def body(session: Session) -> None:
        async with session.stream("/echo busy\n/hang") as turn:
            async for event in turn:
                if isinstance(event, MessageChunk):
                    await turn.cancel()
        assert turn.result.outcome == "cancelled"
        assert turn.result.text == "busy"

    under(backend, daemon, body)


@BACKENDS
def test_who_leaves_early_cancels_nothing(backend: str, daemon: Daemon) -> None:
    async def body(session: Session) -> None:
        async with session.stream("/stream 20 200 20") as turn:
            async for event in turn:
                if isinstance(event, MessageChunk):
                    break
        with anyio.move_on_after(0.05):
            await session.prompt("queued behind it")
        async with session.events(turn=turn.turn.turn_id) as events:
            async for event in events:
                if isinstance(event, TurnEnded):
                    break
        assert event.outcome == "completed"  # type: ignore[union-attr]

    under(backend, daemon, body)


@BACKENDS
def test_many_prompts_at_once_have_each_their_own_result(backend: str, daemon: Daemon) -> None:
    async def body(session: Session) -> None:
        results: dict[str, str] = {}

        async def ask(text: str) -> None:
            results[text] = (await session.prompt(text)).text

        texts = [f"text {n}" for n in range(6)]
        async with anyio.create_task_group() as tasks:
            for text in texts:
                tasks.start_soon(ask, text)
        assert results == {text: text for text in texts}

    under(backend, daemon, body)


async def test_the_same_key_is_the_same_turn(daemon: Daemon) -> None:
    async with opened(daemon) as session:
        first = await session.prompt("once", key="k")
        again = await session.prompt("once", key="k")
        assert again == first
        with pytest.raises(IdempotencyConflict):
            await session.prompt("something else", key="k")
        assert len(await session.turns()) == 1


async def test_a_prompt_that_makes_no_sense_is_refused(daemon: Daemon) -> None:
    async with opened(daemon) as session:
        with pytest.raises(InvalidRequest):
            await session.prompt("")
        with pytest.raises(InvalidRequest):
            await session.prompt([{"type": "of tomorrow"}])
        with pytest.raises(TurnNotFound):
            await session.turn("no/such turn")
        assert await session.cancel() == []


@pytest.mark.parametrize("ends_behind", [False, True])
async def test_a_turn_that_is_lost_is_not_waited_for_and_is_a_result(ends_behind: bool) -> None:
    """The server does not know it any more: so it has ended, and only what is left of its events may tell how."""
    gap = b'event: gap\nid: 0\ndata: {"from":8,"to":7,"reason":"epoch","next":1,"epoch":"new"}\n\n'
    end = b'event: event\nid: 9\ndata: {"type":"event","seq":9,"at":"2026-01-01T12:00:00.000Z","kind":"turn.ended",'
    end += b'"direction":"notice","incarnation":1,"envelope":{"params":{"turnId":"t","outcome":"completed"}}}\n\n'
    told = [end] if ends_behind else []
    replayed = b'event: replay_complete\ndata: {"type":"replay_complete","seq":9}\n\n'

    async def answer(asked: Asked, stream: Any) -> None:
        script = said()
        if asked.path.endswith("/prompt"):
            script = said(b'{"turnId":"t","seq":7,"state":"queued"}', 202)
        elif asked.path.endswith("/events") and "follow" in asked.query:
            assert (asked.query["after"], asked.query["kind"]) == (["0"], ["turn.ended"])
            script = event_stream(*told, replayed)
        elif asked.path.endswith("/events"):
            script = event_stream(gap, *told, replayed, then=hang)
        elif asked.path.endswith("/turns/t"):
            script = refused(404, "turn_not_found")
        elif asked.path.endswith("/s"):
            script = said(b'{"id":"s","agent":"mock","state":"ready"}')
        await script(asked, stream)

    async with scripted(answer) as server, SandboxAgent.connect(server.url) as sandbox:
        session = await sandbox.session("s")
        with anyio.fail_after(WITHIN):
            result = await session.prompt("hello")
    assert (result.turn_id, result.text_truncated) == ("t", True)
    if ends_behind:
        assert (result.outcome, result.error) == ("completed", None)
    else:
        assert result.outcome == "failed"
        assert result.error is not None
        assert result.error["type"].endswith(":turn_not_found")


# -- permissions


@BACKENDS
def test_a_callback_decides_what_is_asked_during_a_prompt(backend: str, daemon: Daemon) -> None:
    asked: list[Permission] = []

    async def choose(permission: Permission) -> Answer:
        asked.append(permission)
        return Answer(option_id=next(each.option_id for each in permission.options if each.kind == "reject_once"))

    async def body(session: Session) -> None:
        assert (await session.prompt("/permission execute: ls", on_permission=allow)).text == "permission: allow_once"
        assert (await session.prompt("/permission edit: it", on_permission=choose)).text == "permission: reject_once"
        assert asked[0].tool_call["title"] == "it"
        session.on_permission = allow
        both = await session.prompt("/permission execute: a\n/permission execute: b")
        assert both.text.count("permission: allow_once") == 2
        assert await session.permissions() == []
        assert len(await session.permissions(all=True)) == 4

    under(backend, daemon, body)


@BACKENDS
def test_a_callback_that_decides_at_once_need_not_be_async(backend: str, daemon: Daemon) -> None:
    def choose(permission: Permission) -> str | Answer | None:
        return "allow_once" if permission.tool_call["title"] == "ls" else Answer(outcome="reject_once")

    def fail(permission: Permission) -> None:
        raise ZeroDivisionError(permission.permission_id)

    async def body(session: Session) -> None:
        assert (await session.prompt("/permission execute: ls", on_permission=choose)).text == "permission: allow_once"
        assert (await session.prompt("/permission execute: rm", on_permission=choose)).text == "permission: reject_once"
        with pytest.raises(ZeroDivisionError):
            await session.prompt("/permission execute: ls", on_permission=fail)
        await session.cancel()

    under(backend, daemon, body)


@BACKENDS
def test_what_the_callback_raises_comes_out_of_the_prompt(backend: str, daemon: Daemon) -> None:
    async def fail(permission: Permission) -> str:
        raise ZeroDivisionError(permission.permission_id)

    async def body(session: Session) -> None:
        with pytest.raises(ZeroDivisionError):
            await session.prompt("/permission execute: ls", on_permission=fail)
        assert len(await session.permissions()) == 1, "the turn goes on"
        await session.cancel()

    under(backend, daemon, body)


@BACKENDS
def test_a_callback_that_is_late_or_leaves_it_to_others_harms_nothing(backend: str, daemon: Daemon) -> None:
    async def leave(permission: Permission) -> None:
        return None

    async def body(session: Session) -> None:
        async def late(permission: Permission) -> str:
            await session.answer(permission.permission_id, outcome="reject_once")
            return "allow_once"

        assert (await session.prompt("/permission execute: ls", on_permission=late)).text == "permission: reject_once"
        async with session.stream("/permission execute: ls", on_permission=leave) as turn:
            async for event in turn:
                if isinstance(event, PermissionRequested):
                    await session.answer(event.permission.permission_id, outcome="cancelled")
        assert turn.result.text == "permission: cancelled"

    under(backend, daemon, body)


@BACKENDS
def test_requests_come_one_after_the_other_whoever_has_prompted(backend: str, daemon: Daemon) -> None:
    async def body(session: Session) -> None:
        seen: list[str] = []

        async def decide() -> None:
            async with session.permission_requests() as requests:
                async for permission in requests:
                    seen.append(permission.tool_call["title"])
                    settled = await session.answer(permission.permission_id, outcome="allow_once")
                    assert settled.outcome == "selected"
                    if len(seen) == 3:
                        return

        async with session.stream("/permission execute: first\n/permission execute: second") as turn:
            async for event in turn:
                if isinstance(event, PermissionRequested) and not seen:
                    break  # one is open before anybody looks
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(decide)
                assert (await session.prompt("/permission execute: third")).text == "permission: allow_once"
        assert seen == ["first", "second", "third"]

    under(backend, daemon, body)


async def test_an_answer_is_given_once(daemon: Daemon) -> None:
    async with opened(daemon) as session, session.stream("/permission execute: ls") as turn:
        async for event in turn:
            if isinstance(event, PermissionRequested):
                id = event.permission.permission_id
                with pytest.raises(InvalidRequest):
                    await session.answer(id)
                with pytest.raises(InvalidRequest):
                    await session.answer(id, option_id="no such option")
                assert (await session.answer(id, option_id="yes")).option_id == "yes"
                with pytest.raises(PermissionResolved) as raised:
                    await session.answer(id, outcome="cancelled")
                assert raised.value.problem["outcome"] == "selected"
                with pytest.raises(PermissionNotFound):
                    await session.answer("no/such", outcome="cancelled")


async def test_a_form_is_filled_in(daemon: Daemon) -> None:
    form = {
        "mode": "form",
        "message": "Who?",
        "requestedSchema": {"type": "object", "properties": {"name": {"type": "string"}}},
    }

    async def fill(permission: Permission) -> Answer:
        assert permission.kind == "elicitation"
        assert permission.elicitation["message"] == "Who?"
        return Answer(action="accept", content={"name": "Ada"})

    async with opened(daemon) as session:
        told = await session.prompt(f"/ask-client elicitation/create {json.dumps(form)}", on_permission=fill)
        assert "Ada" in told.text


# -- events


@BACKENDS
def test_events_are_followed_from_anywhere(backend: str, daemon: Daemon) -> None:
    async def body(session: Session) -> None:
        await session.prompt("one")
        async with session.events(follow=False) as events:
            everything = [event async for event in events]
        assert [event.seq for event in everything if isinstance(event, Event)] == list(range(1, len(everything) + 1))
        async with session.events(after=3, epoch=session.info.epoch, follow=False) as events:
            assert [event async for event in events] == everything[3:]
        async with session.events(kinds=["turn.*"], follow=False) as events:
            assert [type(event) for event in [event async for event in events]] == [TurnQueued, TurnStarted, TurnEnded]
        async with session.events(after="latest") as events:
            result = await session.prompt("two")
            new = [await anext(events)]
            while not isinstance(new[-1], TurnEnded):
                new.append(await anext(events))
        assert all(isinstance(event, Event) and event.seq > len(everything) for event in new)
        assert isinstance(new[-1], TurnEnded)
        assert new[-1].turn_id == result.turn_id
        async with session.events(turn=result.turn_id, follow=False) as events:
            assert [event async for event in events if isinstance(event, TurnEnded)] == [new[-1]]

    under(backend, daemon, body)


async def test_a_cursor_of_another_journal_is_told_as_a_gap(daemon: Daemon) -> None:
    async with opened(daemon) as session:
        for after, epoch, reason in ((2, "of old", "epoch"), (10_000, None, "ahead")):
            async with session.events(after=after, epoch=epoch) as events:
                first = await anext(events)
                assert isinstance(first, Gap)
                assert (first.reason, first.epoch) == (reason, session.info.epoch)
                second = await anext(events)
                assert isinstance(second, Event)
                assert second.seq == first.next
                assert (events.seq, events.epoch) == (first.next, session.info.epoch)


async def test_pages_lead_to_the_head(daemon: Daemon) -> None:
    async with opened(daemon) as session:
        await session.prompt("/tool\n/echo " + "x" * 100)
        numbers: list[int] = []
        after = 0
        while True:
            page = await session.page(after, limit=3)
            assert len(page.events) <= 3
            numbers += [event.seq for event in page.events]
            after = page.next
            if after == page.head:
                break
        assert numbers == list(range(1, page.head + 1))
        assert page.gap is None
        assert (await session.page(10_000)).gap is not None
        assert [event.kind for event in (await session.page(kinds=["turn.ended"])).events] == ["turn.ended"]


async def test_half_a_character_comes_through_pages_and_streams(daemon: Daemon) -> None:
    message = rb'{"jsonrpc":"2.0","method":"x/y","params":{"half":"\ud83d","whole":"\ud83d\ude00"}}'
    async with opened(daemon) as session:
        json_type = {"Content-Type": "application/json"}
        await session.transport.request("POST", f"/v1/acp/{session.id}", content=message, headers=json_type)
        async with session.events(kinds=["x/y", "mock/echo"]) as events:
            said, echoed = await anext(events), await anext(events)
        assert isinstance(said, Event)
        assert isinstance(echoed, Event)
        assert said.raw == message
        assert echoed.envelope["params"]["message"] == json.loads(message) == said.envelope
        page = await session.page(kinds=["x/y", "mock/echo"])
        assert [event.envelope for event in page.events] == [said.envelope, echoed.envelope]


@BACKENDS
def test_a_session_that_is_deleted_ends_its_streams(backend: str, daemon: Daemon) -> None:
    async def body(session: Session) -> None:
        async with session.events() as events:
            await anext(events)  # so it is connected

            async def read() -> None:
                with pytest.raises(SessionDeleted):
                    async for _ in events:
                        pass

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                await session.delete()
        with pytest.raises(SessionNotFound):
            await session.refresh()
        with pytest.raises(SessionNotFound):
            await session.delete()

    under(backend, daemon, body)


# -- the session itself


async def test_terms_are_changed(daemon: Daemon) -> None:
    async with opened(daemon, title="Old", tags={"a": "1"}, permission_policy="allow_all") as session:
        assert session.info.title == "Old"
        assert (await session.prompt("/permission execute: ls")).text == "permission: allow_once"
        info = await session.update(title="New", tags={"b": "2"}, permission_policy="deny_all", idle_limit_ms=0)
        assert (info.title, info.tags, info.idle_limit_ms) == ("New", {"b": "2"}, 0)
        assert (await session.update(title=None)).title is None
        assert (await session.prompt("/permission execute: ls")).text.startswith("permission: reject")
        assert (await session.set_mode("plan")).id == session.id
        await session.set_config({"model": "mock-fast"})
        await session.prompt("hello")
        assert (await session.refresh()).mode == "plan"
        with pytest.raises(InvalidRequest):
            await session.set_mode("no such mode")


async def test_a_session_rests_is_restarted_and_closed(daemon: Daemon) -> None:
    async with opened(daemon) as session:
        first = session.info.pid
        await session.prompt("remember")
        async with session.stream("/sleep 30") as turn:
            with pytest.raises(SessionBusy):
                await session.hibernate()
            await session.restart()
            async for _ in turn:
                pass
            assert turn.result.outcome == "failed"
        assert "remember" in (await session.prompt("/recite")).text
        assert (await session.refresh()).pid != first
        await session.hibernate()
        assert "remember" in (await session.prompt("/recite")).text
        assert (await session.close()).state == "closed"
        with pytest.raises(SessionClosed):
            await session.prompt("hello")
        assert "remember" in await session.transcript()


async def test_a_fork_knows_what_was_said(daemon: Daemon) -> None:
    async with opened(daemon, title="Trunk") as session:
        await session.prompt("remember me")
        fork = await session.fork(title="Branch", key="fork once")
        assert (await session.fork(title="Branch", key="fork once")).id == fork.id
        assert fork.info.title == "Branch"
        assert fork.info.forked_from is not None
        assert fork.info.forked_from.id == session.id
        assert "remember me" in (await fork.prompt("/recite")).text
    async with opened(daemon, env={"MOCK_AGENT_CAPABILITIES": "none"}) as session:
        with pytest.raises(NotSupported):
            await session.fork()


async def test_what_was_said_and_used_is_told(daemon: Daemon) -> None:
    async with opened(daemon) as session:
        result = await session.prompt("/think aloud\n/echo hello\n/usage 10 100")
        assert "hello" in await session.transcript()
        told = json.loads(await session.transcript("json", turn=result.turn_id, thoughts=False))
        assert told["sessionId"] == session.id
        assert [entry["role"] for entry in told["entries"] if entry["type"] == "message"] == ["agent"]
        assert len((await session.transcript("jsonl")).splitlines()) >= len(told["entries"])
        usage = await session.usage()
        assert (usage.session_id, usage.complete, usage.total.turns) == (session.id, True, 1)
        assert (usage.context[0].used, usage.context[0].size) == (10, 100)


async def test_an_owner_of_before_may_not_act_any_more(daemon: Daemon) -> None:
    async with opened(daemon) as session:
        session.generation = 2
        await session.prompt("mine")
        session.generation = 1
        with pytest.raises(StaleGeneration):
            await session.prompt("theirs")
        with pytest.raises(StaleGeneration):
            await session.update(title="theirs")
        assert (await session.refresh()).generation == 2
