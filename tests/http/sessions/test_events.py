"""Events over HTTP: pages, streams that end or follow, filters, gaps; the same frames on every way."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio

from sandbox_actors.journal import Origin, Retention, open_journal
from sandbox_actors.kinds import Kinds
from sandbox_http.sessions.events import SCANNED_BYTES, page_of
from sandbox_http.sessions.selection import Selection
from support.daemon import running
from support.session_client import SessionClient, parse_frames, session_client

if TYPE_CHECKING:
    from pathlib import Path

Json = Any


async def replayed(app: SessionClient, query: str = "", **headers: str) -> list[Json]:
    """All frames of a stream that does not follow."""
    joint = "&" if query else "?"
    async with app.stream(f"{query}{joint}follow=false", **headers) as stream:
        assert stream.head.headers["content-type"] == "text/event-stream"
        return parse_frames(await stream.rest())


async def paged(app: SessionClient, limit: int, query: str = "") -> list[Json]:
    """All events, page by page."""
    events: list[Json] = []
    after = 0
    while True:
        page = await app.events(f"?limit={limit}&after={after}{query}")
        events += page["events"]
        assert len(page["events"]) <= limit
        if page["next"] == page["head"]:
            return events
        assert page["next"] > after
        after = page["next"]


async def test_pages_and_streams_tell_the_same_and_every_envelope_as_it_was(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.say("hello\n/tool x\n/stream 100")
        whole = await app.events("?limit=10000")
        events = whole["events"]
        assert [one["seq"] for one in events] == list(range(1, whole["head"] + 1))
        assert (whole["next"], whole["floor"]) == (whole["head"], 1)
        assert {one["direction"] for one in events} == {"agent", "client", "daemon", "notice"}
        assert {"type", "seq", "at", "kind", "direction", "incarnation", "envelope"} == set(events[0])
        for limit in (1, 7, 64):
            assert await paged(app, limit) == events
        frames = await replayed(app)
        assert frames[:-1] == events
        assert frames[-1] == {"type": "replay_complete", "seq": whole["head"]}


async def test_a_stream_begins_behind_the_number_that_it_is_given(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.say("hello")
        head = (await app.get())["head"]
        for query, headers, first in (
            ("?after=2", {}, 3),
            ("", {"Last-Event-ID": "2"}, 3),
            ("?after=1", {"Last-Event-ID": "2"}, 3),
            ("?after=latest", {}, head + 1),
            ("", {}, 1),
        ):
            frames = await replayed(app, query, **headers)
            assert [one["seq"] for one in frames if one["type"] == "event"] == list(range(first, head + 1)), query
            assert frames[-1] == {"type": "replay_complete", "seq": head}


async def test_a_stream_goes_on_with_what_comes(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app, app.stream("?after=latest") as stream:
        await stream.until(b"replay_complete")
        await app.say("hello")
        frames = parse_frames(await stream.until(b"turn.ended"))
        assert frames[0]["type"] == "replay_complete"
        assert frames[1]["kind"] == "turn.queued"


async def test_filters_choose_kinds_and_turns_on_every_way(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        first, second = await app.say("one"), await app.say("two")
        chosen: list[tuple[str, set[str]]] = [
            ("?kind=turn.*", {"turn.queued", "turn.started", "turn.ended"}),
            ("?kind=agent_message_chunk&kind=turn.ended", {"agent_message_chunk", "turn.ended"}),
            ("?kind=nothing", set()),
        ]
        for query, wanted in chosen:
            page = await app.events(query)
            assert {one["kind"] for one in page["events"]} == wanted
            assert page["next"] == page["head"]
            assert (await replayed(app, query))[:-1] == page["events"]
        for turn, other in ((first, second), (second, first)):
            events = (await app.events(f"?turn={turn['turnId']}"))["events"]
            kinds = [one["kind"] for one in events]
            assert (kinds[0], kinds[-1], kinds.count("session/prompt")) == ("turn.queued", "turn.ended", 1)
            assert other["turnId"] not in json.dumps(events)
            # From the middle it is the rest.
            middle = events[3]["seq"]
            rest = (await app.events(f"?turn={turn['turnId']}&after={middle}"))["events"]
            assert rest == events[4:]
        assert (await app.events("?turn=nobody"))["events"] == []


async def test_a_filter_lets_a_page_move_its_reader_on(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.say("/stream 500")
        assert len(await paged(app, 3, "&kind=turn.*")) == 3


async def test_a_page_of_a_turn_that_began_long_before_moves_its_reader_on(tmp_path: Path) -> None:
    async with open_journal(tmp_path / "journal.db", synchronous="NORMAL") as journal:
        log = await journal.create("s", "mock")
        large = b'{"method":"%b"}' % (b"x" * SCANNED_BYTES)
        for envelope in (large, large, b'{"method":"y"}', b'{"method":"z"}'):
            journal.append(log, 1, Origin.AGENT.value, [envelope])
        while log.head < 4:
            await log.park()
        for after in (0, 1, 2, 3):
            selection = Selection(log.cursor(0), after, Kinds([]), "turn", everything=False)
            page = json.loads(await page_of(selection, 10, journal.epoch))
            assert page["events"] == []
            assert page["next"] > after


async def test_a_cursor_of_another_journal_gets_a_gap_and_then_all(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        await app.say("hello")
        page = await app.events()
        head, epoch = page["head"], page["epoch"]
        for query in ("?after=99999", "?after=2&epoch=another"):
            found = await app.events(query)
            assert found["events"] == page["events"], query
            assert found["gap"]["next"] == 1
            assert found["gap"]["epoch"] == epoch
            frames = await replayed(app, query)
            assert (frames[0]["type"], frames[-1]) == ("gap", {"type": "replay_complete", "seq": head})
            assert frames[1:-1] == page["events"]
        assert "gap" not in await app.events(f"?after=2&epoch={epoch}")


async def test_what_retention_has_dropped_is_told(tmp_path: Path) -> None:
    async with session_client(tmp_path, retention=Retention(max_events=50)) as app:
        await app.say("/stream 3000")
        with trio.fail_after(10):
            while (floor := (await app.get())["floor"]) == 1:
                await app.say("/stream 500")
        frames = await replayed(app, "?after=0")
        assert frames[0]["type"] == "gap"
        assert (frames[0]["from"], frames[0]["reason"]) == (1, "retention")
        assert frames[1]["seq"] == frames[0]["next"] >= floor
        page = await app.events("?after=0&limit=1")
        assert page["gap"]["reason"] == "retention"
        assert page["events"][0]["seq"] == page["gap"]["next"]
        assert (await app.get("/usage"))["complete"] is False
        transcript = (await app.ask("GET", "/transcript")).body.decode()
        assert "Agent" in transcript


async def test_parameters_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        for query in ("?after=x", "?after=-1", "?limit=0", "?limit=x", "?limit=99999999", "?kind=a" + "&kind=a" * 80):
            answer = await app.ask("GET", f"/events{query}")
            assert (answer.status, answer.problem) == (400, "invalid_request"), query
        answer = await app.ask("GET", "/events?follow=maybe", headers={"Accept": "text/event-stream"})
        assert (answer.status, answer.problem) == (400, "invalid_request")
        answer = await app.ask("GET", "/events", headers={"Last-Event-ID": "x"})
        assert (answer.status, answer.problem) == (400, "invalid_request")
        answer = await app.ask("GET", "/events", headers={"Accept": "text/html"})
        assert (answer.status, answer.problem) == (406, "not_acceptable")


async def test_deleting_the_session_ends_its_streams(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app, app.stream() as stream:
        await stream.until(b"replay_complete")
        assert (await app.ask("DELETE", "")).status == 204
        assert parse_frames(await stream.rest())[-1] == {"type": "deleted"}


async def test_the_head_alone_is_told_to_who_asks_for_it(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        for path, accept in (("/events", "text/event-stream"), ("/events", "application/json"), ("/transcript", "*/*")):
            answer = await app.ask("HEAD", path, headers={"Accept": accept})
            assert (answer.status, answer.body) == (200, b"")


async def test_a_shutdown_is_told_and_a_later_daemon_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    with trio.fail_after(60):
        async with running(tmp_path) as daemon:
            app: Any = SessionClient(daemon)
            await app.create(cwd=str(tmp_path))
            await app.say("hello")
            before = (await app.events())["events"]
            async with app.stream("?after=latest") as stream:
                await stream.until(b"replay_complete")
                await daemon.stop()
                assert parse_frames(await stream.rest())[-1] == {"type": "stopping"}
            await daemon.start()
            assert (await app.get())["state"] == "hibernated"
            assert (await app.events())["events"][: len(before)] == before
            assert "hello" in (await app.say("/recite"))["text"]
