"""The event stream of `/v1/acp/{id}`, byte by byte."""

from __future__ import annotations

import json
import re
from contextlib import aclosing
from typing import TYPE_CHECKING, cast

import pytest
import trio

from sandbox_actors.journal import SessionLog
from sandbox_actors.journal.store import SessionRow
from sandbox_http.streams import HEARTBEAT, Streams, server_sent_events
from support.clients import Session
from support.serving import script, serving
from support.wire import Stream, exchange

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from trio.testing import MockClock

    from sandbox_actors.journal import Journal
    from support.clients import Json
    from support.serving import Local

EVENT = re.compile(rb"event: message\nid: (\d+)\ndata: ([^\n]*)\n\n")
UNNUMBERED = re.compile(rb"event: message\ndata: ([^\n]*)\n\n")
HEARTBEAT_COMMENT = b": heartbeat\n\n"
JSON = {"Content-Type": "application/json"}
WITHIN = 10


async def initialized(daemon: Local, server: str = "s", agent: str = "mock") -> bytes:
    """A session with one answer in its log; gives the answer."""
    envelope = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}'
    answer = await exchange(daemon.port, "POST", f"/v1/acp/{server}?agent={agent}", JSON, envelope)
    assert answer.status == 200
    return answer.body


def numbered(body: bytes) -> dict[int, bytes]:
    """The numbered events, after a check that nothing but events and heartbeats is there."""
    assert EVENT.sub(b"", UNNUMBERED.sub(b"", body)).replace(HEARTBEAT_COMMENT, b"") == b""
    events = [(int(number), data) for number, data in EVENT.findall(body)]
    assert [number for number, _ in events] == sorted({number for number, _ in events})
    return dict(events)


def notice(body: bytes, method: str) -> Json:
    """The params of the one notification without a number that has this method."""
    told = [json.loads(data) for data in UNNUMBERED.findall(EVENT.sub(b"", body))]
    [params] = [message["params"] for message in told if message["method"] == method]
    return params


async def test_an_event_is_three_lines_and_a_blank_one(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        answer = await initialized(daemon)
        with trio.fail_after(WITHIN):
            async with Stream.open(daemon.port, "/v1/acp/s") as stream:
                assert stream.head.status == 200
                assert stream.head.headers["content-type"] == "text/event-stream"
                assert stream.head.headers["cache-control"] == "no-cache"
                assert stream.head.headers["transfer-encoding"] == "chunked"
                assert "content-length" not in stream.head.headers
                # The request has a number, too, but is not shown.
                body = await stream.until(b"\n\nevent: message\nid: 2\ndata: " + answer + b"\n\n")
                assert body == HEARTBEAT_COMMENT + b"event: message\nid: 2\ndata: " + answer + b"\n\n"


async def test_silence_is_broken_by_heartbeats(autojump_clock: MockClock) -> None:
    row = SessionRow(key=1, id="s", agent="mock", created_ms=0, floor=1, head=0, incarnation=1, memory=b"")
    silent = SessionLog(cast("Journal", None), row).cursor(0)  # it asks the journal for nothing, at the end of its log
    stream = server_sent_events(silent, Streams(), "epoch")
    start = trio.current_time()
    async with aclosing(cast("AsyncGenerator[bytes]", stream)) as body:
        assert await anext(body) == HEARTBEAT_COMMENT
        assert trio.current_time() == start
        for number in range(1, 4):
            assert await anext(body) == HEARTBEAT_COMMENT
            assert trio.current_time() == pytest.approx(start + number * HEARTBEAT)


@pytest.mark.parametrize("header", ["", " ", "0", "+0", "2", "+2", "002", "3"])
async def test_a_stream_goes_on_behind_the_last_event_id(tmp_path: Path, header: str) -> None:
    async with serving(tmp_path) as daemon:
        first = await initialized(daemon)  # events 1 and 2
        second = await initialized(daemon)  # events 3 and 4
        with trio.fail_after(WITHIN):
            async with Stream.open(daemon.port, "/v1/acp/s", {"Last-Event-ID": header}) as stream:
                events = numbered(await stream.until(b"id: 4\ndata: " + second + b"\n\n"))
        whole = {2: first, 4: second}
        assert events == {id: data for id, data in whole.items() if id > int(header.strip() or 0)}


@pytest.mark.parametrize(
    "header", ["-1", "1.0", "0x1", "1 2", "++5", "none", "18446744073709551616", "9" * 100, "\xb2"]
)
async def test_a_last_event_id_that_is_no_number_is_refused(tmp_path: Path, header: str) -> None:
    async with serving(tmp_path) as daemon:
        await initialized(daemon)
        answer = await exchange(daemon.port, "GET", "/v1/acp/s", {"Last-Event-ID": header})
        assert (answer.status, answer.detail) == (400, "invalid request: Last-Event-ID must be a positive integer")


@pytest.mark.parametrize("header", ["5", "1000", "18446744073709551615"])
async def test_a_last_event_id_of_a_lost_journal_is_told_and_everything_follows(tmp_path: Path, header: str) -> None:
    async with serving(tmp_path) as daemon:
        answer = await initialized(daemon)
        with trio.fail_after(WITHIN):
            async with Stream.open(daemon.port, "/v1/acp/s", {"Last-Event-ID": header}) as stream:
                body = await stream.until(answer + b"\n\n")
        gap = notice(body, "_sandboxagent/journal/gap")
        assert (gap["reason"], gap["next"]) == ("ahead", 1)
        assert gap["epoch"] == stream.head.headers["sandbox-agent-epoch"]
        assert numbered(body) == {2: answer}


async def test_a_number_of_another_epoch_is_told_and_everything_follows(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        answer = await initialized(daemon)
        with trio.fail_after(WITHIN):
            async with Stream.open(daemon.port, "/v1/acp/s?epoch=another", {"Last-Event-ID": "1"}) as stream:
                body = await stream.until(answer + b"\n\n")
            assert notice(body, "_sandboxagent/journal/gap")["reason"] == "epoch"
            epoch = stream.head.headers["sandbox-agent-epoch"]
            async with Stream.open(daemon.port, f"/v1/acp/s?epoch={epoch}", {"Last-Event-ID": "1"}) as stream:
                assert b"gap" not in await stream.until(answer + b"\n\n")


async def test_accept_is_looked_at_before_the_last_event_id_and_that_before_the_session(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        bad = {"Accept": "application/json", "Last-Event-ID": "x"}
        answer = await exchange(daemon.port, "GET", "/v1/acp/nope", bad)
        assert (answer.status, answer.detail) == (406, "not acceptable: accept must allow text/event-stream")
        answer = await exchange(daemon.port, "GET", "/v1/acp/nope", {**bad, "Accept": "text/*;q=0"})
        assert answer.status == 400
        answer = await exchange(daemon.port, "GET", "/v1/acp/nope%2F", {"Accept": "application/json, */*"})
        assert (answer.status, answer.problem) == (404, "session_not_found")
        assert answer.json["sessionId"] == "nope/"
        assert answer.detail == "session not found: nope/"


async def test_a_stream_asked_for_beside_the_first_post_waits_for_its_session(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon, trio.open_nursery() as nursery:
        opened = trio.Event()

        async def listen() -> None:
            async with Stream.open(daemon.port, "/v1/acp/s") as stream:
                assert stream.head.status == 200
                await stream.until(b'"protocolVersion":1')
                opened.set()

        with trio.fail_after(WITHIN):
            nursery.start_soon(listen)
            # Its request is there before the POST's: the daemon takes connections in their order.
            await exchange(daemon.port, "GET", "/v1/health")
            assert not opened.is_set()
            await initialized(daemon)
            await opened.wait()


async def test_every_subscriber_gets_everything_and_the_same(tmp_path: Path) -> None:
    bodies: list[bytes] = []

    async def listen(after: str) -> None:
        async with Stream.open(daemon.port, "/v1/acp/s", {"Last-Event-ID": after}) as stream:
            body = await stream.until(b'"stopReason"')
            bodies.append(body[body.index(b'data: {"jsonrpc":"2.0","id":1') :].partition(b'"stopReason"')[0])

    async with serving(tmp_path) as daemon:
        session = Session(daemon)
        await session.open()
        with trio.fail_after(WITHIN):
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(listen, "1" if number % 2 else "")
                nursery.start_soon(session.prompt, "/stream 2000")
    assert len(bodies) == 4
    assert len(set(bodies)) == 1
    assert bodies[0].count(b"agent_message_chunk") == 2000


NOISE = r"""
say(b'\xff\xfe not UTF-8')
say('npm warn')
say('[1]')
say('')
say('   ')
say('{"jsonrpc":"2.0",\r"method":"told"}\r')
heard()
say('{"id":1,"result":{}}')
heard()
"""


async def test_what_is_no_message_is_wrapped_and_blank_lines_are_dropped(tmp_path: Path) -> None:
    async with serving(tmp_path, agents={"noise": script(tmp_path / "noise.py", NOISE)}) as daemon:
        await initialized(daemon, agent="noise")
        with trio.fail_after(WITHIN):
            async with Stream.open(daemon.port, "/v1/acp/s") as stream:
                events = list(numbered(await stream.until(b'data: {"id":1,"result":{}}\n\n')).values())
    wrapped = [json.loads(data) for data in events[:3]]
    assert {message["method"] for message in wrapped} == {"_adapter/invalid_stdout"}
    assert [message["params"]["raw"] for message in wrapped] == [
        "\N{REPLACEMENT CHARACTER}" * 2 + " not UTF-8",
        "npm warn",
        "[1]",
    ]
    assert events[3] == b'{"jsonrpc":"2.0", "method":"told"}'
    assert len(events) == 5


async def test_a_stream_ends_cleanly_when_its_session_is_deleted(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        answer = await initialized(daemon)
        with trio.fail_after(WITHIN):
            async with Stream.open(daemon.port, "/v1/acp/s") as stream:
                await stream.until(answer)
                assert (await exchange(daemon.port, "DELETE", "/v1/acp/s")).status == 204
                events = numbered(await stream.rest())
        last = json.loads(events[max(events)])
        assert last["method"] == "_adapter/agent_exited"
        assert last["params"]["reason"] == "stopped"


async def test_numbers_go_on_when_an_id_is_deleted_and_made_again(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        await initialized(daemon)
        await exchange(daemon.port, "DELETE", "/v1/acp/s")
        answer = await initialized(daemon)
        with trio.fail_after(WITHIN):
            async with Stream.open(daemon.port, "/v1/acp/s", {"Last-Event-ID": "2"}) as stream:
                events = numbered(await stream.until(answer + b"\n\n"))
        assert answer in events.values()
        assert min(events) > 3


async def test_the_permission_flow_passes_through_the_raw_wire(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        session = Session(daemon)
        await session.open()
        results: list[Json] = []

        async def prompt() -> None:
            results.append(await session.prompt("/permission edit: Write it"))

        with trio.fail_after(WITHIN):
            async with session.subscribed() as subscriber, trio.open_nursery() as nursery:
                nursery.start_soon(prompt)
                question = subscriber.events[await subscriber.until_method("session/request_permission")].message
                assert question["params"]["toolCall"]["title"] == "Write it"
                chosen = {"outcome": {"outcome": "selected", "optionId": question["params"]["options"][0]["optionId"]}}
                answer = {"jsonrpc": "2.0", "id": question["id"], "result": chosen}
                assert (await session.post(answer)).status_code == 202
                assert (await session.post(answer)).status_code == 202  # too late, and dropped
        assert results[0]["result"]["stopReason"] == "end_turn"
