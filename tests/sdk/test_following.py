"""Event streams over real sockets that break, lie and fall silent: every frame comes once, in order."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from sandbox_agent.errors import ConnectionFailed, SandboxAgentError, SandboxDestroyed, SessionDeleted, SessionNotFound
from sandbox_agent.event_stream import EventStream
from sandbox_agent.events import Event, Gap, MessageChunk, OtherEvent
from sandbox_agent.health import Health
from sandbox_agent.providers.provider import Endpoint
from sandbox_agent.transport import Timeouts, open_transport
from support.scripted import cut, event_stream, hang, refused, said, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from support.scripted import Asked, Script, Scripted

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])

PATH = "/v1/sessions/s/events"


@asynccontextmanager
async def reading(
    *scripts: Script, after: int | None = None, retry_within: float = 5.0, heartbeat: float = 5.0, **chosen: Any
) -> AsyncGenerator[tuple[Scripted, EventStream]]:
    """A stream from a server that answers like this."""
    timeouts = Timeouts(connect=2, silence=2, heartbeat=heartbeat, retry_within=retry_within)
    async with (
        scripted(*scripts) as server,
        open_transport(Endpoint(server.url), Health(watched=False), timeouts) as transport,
        EventStream(transport, PATH, after, **chosen) as stream,
    ):
        yield server, stream


def under(backend: str, body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with anyio.fail_after(10):
            await body()

    anyio.run(bounded, backend=backend)


def frame(type: str, seq: int | None = None, **members: Any) -> bytes:
    told = {"type": type, **({} if seq is None else {"seq": seq}), **members}
    id = "" if seq is None else f"id: {seq}\n"
    return f"event: {type}\n{id}data: {json.dumps(told, ensure_ascii=False)}\n\n".encode()


def event(seq: int, kind: str = "mock/echo", **envelope: Any) -> bytes:
    head = {"at": "2026-01-01T12:00:00.000Z", "kind": kind, "direction": "agent", "incarnation": 1}
    return frame("event", seq, **head, envelope=envelope)


def gap(first: int, last: int, reason: str, next: int, epoch: str) -> bytes:
    told = json.dumps({"type": "gap", "from": first, "to": last, "reason": reason, "next": next, "epoch": epoch})
    return f"event: gap\nid: {next - 1}\ndata: {told}\n\n".encode()


def seqs(events: list[Event | Gap]) -> list[int]:
    return [each.seq for each in events if isinstance(each, Event)]


async def read(stream: EventStream, count: int) -> list[Event | Gap]:
    return [await anext(stream) for _ in range(count)]


# -- what breaks


@BACKENDS
@pytest.mark.parametrize("end", [cut, None], ids=["cut", "ended"])
def test_a_stream_that_breaks_goes_on_behind_the_last_event(backend: str, end: Script | None) -> None:
    async def body() -> None:
        scripts = [
            event_stream(event(1), event(2), then=end, Sandbox_Agent_Epoch="e"),
            cut,
            event_stream(then=end),
            refused(503, "overloaded"),
            event_stream(event(3), event(4), then=hang),
        ]
        async with reading(*scripts) as (server, stream):
            assert seqs(await read(stream, 4)) == [1, 2, 3, 4]
            assert (stream.seq, stream.epoch) == (4, "e")
        assert [asked.headers.get("last-event-id") for asked in server.asked] == [None, "2", "2", "2", "2"]
        assert server.asked[0].query == {}
        assert server.asked[-1].query == {"after": ["2"], "epoch": ["e"]}

    under(backend, body)


@BACKENDS
def test_half_a_frame_is_no_frame(backend: str) -> None:
    async def body() -> None:
        whole = event(2)
        scripts = [event_stream(event(1), whole[: len(whole) // 2], then=cut), event_stream(event(2), then=hang)]
        async with reading(*scripts, heartbeat=0.3) as (_, stream):
            assert seqs(await read(stream, 2)) == [1, 2]

    under(backend, body)


@BACKENDS
def test_frames_come_in_any_pieces(backend: str) -> None:
    async def body() -> None:
        text = event(1, text="a\u2028b\u2029c\x85d\re\nf") + b": comment\n\n" + event(2, text="\U0001f600")
        pieces = [text[n : n + 1] for n in range(len(text))]
        async with reading(event_stream(*pieces, then=hang)) as (_, stream):
            first, second = await read(stream, 2)
        assert isinstance(first, OtherEvent)
        assert first.envelope == {"text": "a\u2028b\u2029c\x85d\re\nf"}
        assert json.dumps({"text": "\U0001f600"}, ensure_ascii=False).encode() == second.raw  # type: ignore[union-attr]

    under(backend, body)


@BACKENDS
def test_a_peer_that_has_fallen_silent_is_left(backend: str) -> None:
    async def body() -> None:
        scripts = [event_stream(event(1), then=hang), hang, event_stream(event(2), then=hang)]
        async with reading(*scripts, heartbeat=0.3) as (_, stream):
            assert seqs(await read(stream, 2)) == [1, 2]

    under(backend, body)


@BACKENDS
def test_the_server_says_when_to_come_back(backend: str) -> None:
    async def body() -> None:
        scripts = [refused(503, "shutting_down", Retry_After="1"), event_stream(event(1), then=hang)]
        async with reading(*scripts) as (_, stream):
            start = anyio.current_time()
            await anext(stream)
            assert anyio.current_time() - start >= 1

    under(backend, body)


@BACKENDS
def test_a_server_that_never_comes_back_is_told_in_time(backend: str) -> None:
    async def body() -> None:
        async with reading(event_stream(event(1), then=cut), cut, retry_within=0.5) as (_, stream):
            await anext(stream)
            start = anyio.current_time()
            with pytest.raises(ConnectionFailed):
                await anext(stream)
            assert anyio.current_time() - start < 2

    under(backend, body)


@BACKENDS
def test_a_recovery_is_waited_for_however_long_it_takes(backend: str) -> None:
    async def body() -> None:
        health = Health(watched=True, recovers=True)
        health.confirm()
        async with (
            scripted(event_stream(event(1), then=cut)) as before,
            scripted(event_stream(event(2))) as after,
            open_transport(Endpoint(before.url), health, Timeouts(retry_within=0.3)) as transport,
            EventStream(transport, PATH) as stream,
            anyio.create_task_group() as tasks,
        ):

            async def recover() -> None:
                await anyio.sleep(1)
                transport.endpoint = Endpoint(after.url)
                health.confirm()

            await anext(stream)
            tasks.start_soon(recover)
            assert seqs(await read(stream, 1)) == [2]

    under(backend, body)


@BACKENDS
def test_who_reads_a_server_that_is_given_up_gets_the_reason(backend: str) -> None:
    async def body() -> None:
        health = Health(watched=True, recovers=True)
        health.confirm()
        async with (
            scripted(event_stream(event(1), then=cut), cut) as server,
            open_transport(Endpoint(server.url), health, Timeouts()) as transport,
            EventStream(transport, PATH) as stream,
            anyio.create_task_group() as tasks,
        ):

            async def give_up() -> None:
                await anyio.sleep(0.3)
                health.give_up(SandboxDestroyed("it is gone"))

            await anext(stream)
            tasks.start_soon(give_up)
            with pytest.raises(SandboxDestroyed, match="it is gone"):
                await anext(stream)

    under(backend, body)


# -- what the frames say


@BACKENDS
def test_a_heartbeat_moves_the_cursor_of_a_filtered_stream(backend: str) -> None:
    async def body() -> None:
        scripts = [
            event_stream(event(3), frame("heartbeat", 900), then=cut),
            event_stream(event(901), then=hang),
        ]
        async with reading(*scripts, after=2, epoch="e", kinds=["turn.*", "plan"], turn="t") as (server, stream):
            assert seqs(await read(stream, 2)) == [3, 901]
        first, second = server.asked
        wanted = {"kind": ["turn.*", "plan"], "turn": ["t"], "epoch": ["e"]}
        assert first.query == {**wanted, "after": ["2"]}
        assert second.query == {**wanted, "after": ["900"]}
        assert second.headers["last-event-id"] == "900"

    under(backend, body)


@BACKENDS
def test_a_gap_is_told_and_the_cursor_is_of_the_new_journal(backend: str) -> None:
    async def body() -> None:
        scripts = [
            event_stream(event(70), then=cut, Sandbox_Agent_Epoch="old"),
            event_stream(gap(71, 70, "epoch", 1, "new"), event(1), then=cut, Sandbox_Agent_Epoch="new"),
            event_stream(event(2), then=hang, Sandbox_Agent_Epoch="new"),
        ]
        async with reading(*scripts) as (server, stream):
            events = await read(stream, 4)
            assert stream.epoch == "new"
        assert seqs(events) == [70, 1, 2]
        assert events[1] == Gap(first=71, last=70, reason="epoch", next=1, epoch="new")
        assert [asked.query.get("epoch") for asked in server.asked] == [None, ["old"], ["new"]]

    under(backend, body)


@BACKENDS
def test_a_break_before_the_gap_does_not_lose_it(backend: str) -> None:
    async def body() -> None:
        scripts = [
            event_stream(event(70), then=cut, Sandbox_Agent_Epoch="old"),
            event_stream(then=cut, Sandbox_Agent_Epoch="new"),
            event_stream(gap(71, 70, "epoch", 1, "new"), then=hang, Sandbox_Agent_Epoch="new"),
        ]
        async with reading(*scripts) as (server, stream):
            assert isinstance((await read(stream, 2))[1], Gap)
        assert server.asked[2].query["epoch"] == ["old"]

    under(backend, body)


@BACKENDS
def test_what_is_not_followed_ends_behind_what_there_is(backend: str) -> None:
    async def body() -> None:
        scripts = [event_stream(event(1), then=cut), event_stream(event(2), frame("replay_complete", 2))]
        async with reading(*scripts, follow=False) as (server, stream):
            assert seqs([each async for each in stream]) == [1, 2]
        assert [asked.query["follow"] for asked in server.asked] == [["false"]] * 2

    under(backend, body)


@BACKENDS
def test_a_shutdown_is_a_break_and_a_deleted_session_the_end(backend: str) -> None:
    async def body() -> None:
        scripts = [
            event_stream(frame("replay_complete", 0), event(1), frame("stopping")),
            event_stream(event(2), frame("deleted")),
        ]
        async with reading(*scripts) as (_, stream):
            assert seqs(await read(stream, 2)) == [1, 2]
            with pytest.raises(SessionDeleted):
                await anext(stream)

    under(backend, body)


async def test_a_refused_stream_is_not_asked_for_again() -> None:
    async with reading(refused(404, "session_not_found")) as (server, stream):
        with pytest.raises(SessionNotFound):
            await anext(stream)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "garbage",
    [
        b"event: event\nid: 1\ndata: no JSON\n\n",
        b"event: event\nid: 1\ndata: {}\n\n",
        b'event: event\nid: 1\ndata: {"seq":"x","envelope":{}}\n\n',
        b"event: event\nid: 1\ndata: \xff\xfe\n\n",
        b"event: gap\ndata: {}\n\n",
        b"event: heartbeat\ndata: []\n\n",
    ],
)
async def test_a_frame_that_makes_no_sense_is_an_error_and_not_asked_for_again(garbage: bytes) -> None:
    async with reading(event_stream(garbage, then=hang)) as (server, stream):
        with pytest.raises(SandboxAgentError, match="makes no sense"):
            await anext(stream)
    assert len(server.asked) == 1


async def test_frames_of_tomorrow_are_passed_over() -> None:
    frames = (frame("applause", 1, volume=11), event(2, "of_tomorrow"), frame("", None))
    async with reading(event_stream(*frames, then=hang)) as (_, stream):
        (told,) = await read(stream, 1)
    assert isinstance(told, OtherEvent)
    assert told.kind == "of_tomorrow"


async def test_what_is_no_event_stream_is_taken_for_a_broken_one() -> None:
    async with reading(said(b"<html>"), event_stream(event(1), then=hang)) as (_, stream):
        assert seqs(await read(stream, 1)) == [1]


# -- how it is left


@BACKENDS
def test_a_stream_may_be_left_and_cancelled_anywhere(backend: str) -> None:
    async def body() -> None:
        many = [event(n, "agent_message_chunk") for n in range(1, 50)]
        async with reading(event_stream(*many, then=hang)) as (_, stream):
            async for told in stream:
                assert isinstance(told, MessageChunk)
                break
        with anyio.move_on_after(0.3) as scope:
            async with reading(event_stream(*many, then=hang)) as (_, stream):
                async for _ in stream:
                    pass
        assert scope.cancelled_caught
        async with reading(hang) as (server, _):
            pass
        assert server.asked == []

    under(backend, body)


@BACKENDS
def test_a_read_that_is_cancelled_loses_nothing(backend: str) -> None:
    async def slowly(asked: Asked, stream: Any) -> None:
        for seq in range(int(asked.headers.get("last-event-id", 0)) + 1, 6):
            part = event(seq)
            await stream.send(b"%x\r\n%b\r\n" % (len(part), part))
            await anyio.sleep(0.1)
        await anyio.sleep_forever()

    async def body() -> None:
        async with reading(event_stream(then=slowly)) as (_, stream):
            events: list[Event | Gap] = []
            while len(events) < 5:
                with anyio.move_on_after(0.05):
                    events.append(await anext(stream))
        assert seqs(events) == [1, 2, 3, 4, 5]

    under(backend, body)
