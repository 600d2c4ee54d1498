"""The logs of processes: filtered pages, and streams that begin where a page ended, tell what is missing, and end."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from support.process_client import ProcessClient, log_bytes, parse_log_events
from support.serving import serving
from support.wire import Stream, exchange

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


Json = Any
WITHIN = 20
LOGS = "/v1/processes/proc_1/logs"
THREE = "echo 1; sleep 0.05; echo 2 >&2; sleep 0.05; echo 3"


@asynccontextmanager
async def process(home: Path, *argv: str, **more: Json) -> AsyncGenerator[ProcessClient]:
    """An application of a daemon with one process, `proc_1`."""
    with trio.fail_after(WITHIN):
        async with serving(home) as daemon:
            app = ProcessClient(daemon)
            assert await app.create(*argv, **more) == "proc_1"
            yield app


async def followed(app: ProcessClient, query: str, headers: dict[str, str]) -> list[tuple[str, Json]]:
    """A stream from its beginning to its end."""
    async with Stream.open(app.daemon.port, LOGS + query, headers) as stream:
        assert stream.head.status == 200
        return parse_log_events(await stream.rest())


async def test_a_page_has_what_was_written_and_where(tmp_path: Path) -> None:
    async with process(tmp_path, "sh", "-c", THREE) as app:
        assert (await app.follow("proc_1"))[-1][0] == "exit"
        page = await app.get("/proc_1/logs")
        assert (page["processId"], page["stream"], "gap" in page) == ("proc_1", "combined", False)
        assert list(page["entries"][0]) == ["sequence", "stream", "timestampMs", "data", "encoding", "offset"]
        told = [
            (one["sequence"], one["stream"], one["data"], one["encoding"], one["offset"]) for one in page["entries"]
        ]
        assert told == [
            (1, "stdout", "MQo=", "base64", 0),
            (2, "stderr", "Mgo=", "base64", 0),
            (3, "stdout", "Mwo=", "base64", 2),
        ]


BEGINNINGS: list[tuple[str, dict[str, str], list[int]]] = [
    ("", {}, [1, 2, 3]),
    ("?stream=stdout", {}, [1, 3]),
    ("?stream=stderr", {}, [2]),
    ("?stream=pty", {}, []),
    ("?stream=combined&since=1", {}, [2, 3]),
    ("?since=3", {}, []),
    ("?since=1000", {}, []),
    ("?tail=0", {}, []),
    ("?tail=2", {}, [2, 3]),
    ("?tail=100", {}, [1, 2, 3]),
    ("?stream=stdout&tail=1", {}, [3]),
    ("?since=1&tail=1", {}, [3]),
    ("", {"Last-Event-ID": "2"}, [3]),
    ("?since=1", {"Last-Event-ID": "2"}, [3]),
    ("?since=2", {"Last-Event-ID": "1"}, [3]),
    ("?since=2", {"Last-Event-ID": " "}, [3]),
]


async def test_a_page_and_a_stream_begin_where_they_are_told(tmp_path: Path) -> None:
    async with process(tmp_path, "sh", "-c", THREE) as app:
        await app.follow("proc_1")
        for query, headers, numbers in BEGINNINGS:
            page = (await exchange(app.daemon.port, "GET", LOGS + query, headers)).json
            assert [entry["sequence"] for entry in page["entries"]] == numbers, query
            events = await followed(app, f"{query}{'&' if query else '?'}follow=true", headers)
            assert [entry["sequence"] for name, entry in events if name == "log"] == numbers, query
            assert events[-1] == ("exit", {"processId": "proc_1", "exitCode": 0})


BAD_PARAMETERS: list[tuple[str, dict[str, str]]] = [
    ("?stream=all", {}),
    ("?tail=x", {}),
    ("?tail=-1", {}),
    ("?since=1.5", {}),
    ("?follow=yes", {}),
    ("?follow=1", {}),
    ("", {"Last-Event-ID": "x"}),
    ("?follow=true", {"Last-Event-ID": "-1"}),
]


async def test_parameters_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    async with process(tmp_path, "true") as app:
        for query, headers in BAD_PARAMETERS:
            answer = await exchange(app.daemon.port, "GET", LOGS + query, headers)
            assert (answer.status, answer.problem) == (400, "invalid_request"), query


async def test_a_stream_goes_on_from_what_was_there_without_a_seam_and_ends_with_the_process(tmp_path: Path) -> None:
    script = "while read line; do echo $line; done; exit 3"
    async with process(tmp_path, "sh", "-c", script) as app:
        expected = b""
        async with trio.open_nursery() as nursery:
            results: dict[int, bytes] = {}

            async def follow(number: int) -> None:
                events = await app.follow("proc_1")
                assert [entry["sequence"] for _, entry in events[:-1]] == list(range(1, len(events)))
                assert events[-1] == ("exit", {"processId": "proc_1", "exitCode": 3})
                results[number] = log_bytes([entry for _, entry in events[:-1]])

            for number in range(30):
                if number % 10 == 0:
                    nursery.start_soon(follow, number)
                line = f"line {number}\n"
                expected += line.encode()
                await app.post("/proc_1/input", {"data": line, "encoding": "text", "eof": number == 29})
        assert results == dict.fromkeys((0, 10, 20), expected)


async def test_a_stream_that_is_left_and_taken_up_again_misses_nothing(tmp_path: Path) -> None:
    async with process(tmp_path, "cat") as app:
        await app.post("/proc_1/input", {"data": "one", "encoding": "text"})
        async with Stream.open(app.daemon.port, f"{LOGS}?follow=true") as stream:
            seen = parse_log_events(await stream.until(b'"sequence":1'))
        await app.post("/proc_1/input", {"data": "two", "encoding": "text", "eof": True})
        last = seen[-1][1]["sequence"]
        rest = await followed(app, "?follow=true", {"Last-Event-ID": str(last)})
        assert log_bytes([entry for name, entry in seen + rest if name == "log"]) == b"onetwo"


async def test_what_was_dropped_is_told_on_the_page_and_in_the_stream(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with serving(tmp_path) as daemon:
            app = ProcessClient(daemon)
            await app.post("/config", {**await app.get("/config"), "maxLogBytesPerProcess": 1000})
            await app.create("sh", "-c", "for word in a b c d; do head -c 600 /dev/zero; sleep 0.05; done")
            await app.follow("proc_1")
            page = await app.get("/proc_1/logs")
            assert len(log_bytes(page["entries"])) == 1000
            first = page["entries"][0]["sequence"]
            assert page["gap"] == {"from": 1, "to": first - 1}
            assert page["entries"][0]["offset"] == 1400
            events = await app.follow("proc_1")
            assert events[0] == ("gap", {"from": 1, "to": first - 1, "bytes": 1400})
            assert [entry for name, entry in events if name == "log"] == page["entries"]


async def test_the_stream_of_a_process_by_a_signal_tells_which(tmp_path: Path) -> None:
    async with process(tmp_path, "sh", "-c", "kill -TERM $$") as app:
        events = await app.follow("proc_1")
        assert events == [("exit", {"processId": "proc_1", "exitCode": None, "signal": 15})]


async def test_a_terminals_log_is_its_own_stream(tmp_path: Path) -> None:
    async with process(tmp_path, "echo", "hello", tty=True) as app:
        await app.follow("proc_1")
        page = await app.get("/proc_1/logs")
        assert (page["stream"], log_bytes(page["entries"])) == ("pty", b"hello\r\n")
        assert {entry["stream"] for entry in page["entries"]} == {"pty"}
        for stream in ("stdout", "stderr", "combined"):
            assert (await app.get(f"/proc_1/logs?stream={stream}"))["entries"] == []


async def test_a_stream_ends_with_a_stop(tmp_path: Path) -> None:
    async with process(tmp_path, "cat") as app, Stream.open(app.daemon.port, f"{LOGS}?follow=true") as stream:
        await stream.until(b"heartbeat")
        await app.post("/proc_1/stop")
        assert parse_log_events(await stream.rest()) == [
            ("exit", {"processId": "proc_1", "exitCode": None, "signal": 15})
        ]


async def test_the_head_alone_is_told_to_who_asks_for_it(tmp_path: Path) -> None:
    async with process(tmp_path, "cat") as app:
        for target, kind in ((LOGS, "application/json"), (f"{LOGS}?follow=true", "text/event-stream")):
            answer = await exchange(app.daemon.port, "HEAD", target)
            assert (answer.status, answer.headers["content-type"], answer.body) == (200, kind, b"")
