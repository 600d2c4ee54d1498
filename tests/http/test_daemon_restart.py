"""A daemon that is killed and begun again: what anybody has seen is still there, nothing of the old life still runs."""

from __future__ import annotations

import os
import re
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from support.clients import EventStream, Session, method_of, numbers, parse_events, pid_in, refused, texts
from support.daemon import free_port, running
from support.journal import kept, visible
from support.processes import alive, children_of, command_of, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from support.clients import Seen
    from support.daemon import Daemon

STRAY = re.compile(r"(?:grandchild|orphan) pid (\d+)")
GONE_WITHIN = 5.0

# trio-websocket leaves the socket of a connection that was torn down to the garbage collector.
# Alone: between a daemon and the next, which listens where it did, another test might take the port.
pytestmark = [pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning"), pytest.mark.alone]


async def lost_prompt(session: Session, text: str) -> None:
    """A prompt whose answer never comes, because the daemon is killed."""
    with pytest.raises(httpx.TransportError):
        await session.prompt(text)


def sentinel_of(daemon: Daemon) -> int:
    [sentinel] = [pid for pid in children_of(daemon.pid) if "bearers.py" in command_of(pid)]
    return sentinel


async def epoch_of(daemon: Daemon, server: str) -> str:
    async with EventStream.open(daemon, server) as stream:
        return stream.headers["sandbox-agent-epoch"]


@pytest.mark.parametrize("guarded", [True, False], ids=["with its sentinel", "its sentinel killed before it"])
async def test_killed_in_mid_stream_and_begun_again_it_serves_every_event_under_its_old_number(
    tmp_path: Path, guarded: bool
) -> None:
    async with running(tmp_path) as daemon:
        session = Session(daemon)
        with trio.fail_after(60):
            await session.open()
            await session.prompt("the password is swordfish")
            async with AsyncExitStack() as stack:
                nursery = await stack.enter_async_context(trio.open_nursery())
                streams = [await stack.enter_async_context(session.subscribed(0)) for _ in range(3)]
                sockets = [(await stack.enter_async_context(session.connected()))[1] for _ in range(2)]
                strays = "/grandchild\n/orphan\n/orphan 60 pipes"
                nursery.start_soon(lost_prompt, session, f"/state\n{strays}\n/stream 10000000 200 20000")
                agent = pid_in(streams[0].events[await streams[0].until(pid_in)])
                for client in streams + sockets:
                    await client.until(lambda event: numbers([event]) >= [3000])
                stray_pids = [int(pid) for pid in STRAY.findall(texts(streams[0].events[:40]))]
                assert len(stray_pids) == 3
                first_life = [pid for pid in daemon.processes() if pid != daemon.pid]
                assert {agent, *stray_pids} < set(first_life)
                if not guarded:
                    os.kill(sentinel_of(daemon), signal.SIGKILL)
                await daemon.kill()
                for client in streams + sockets:
                    await client.ended.wait()
                    assert client.cut
            if not guarded:
                assert any(map(alive, stray_pids)), "nobody was there to end them: the next start has to"
            epoch = streams[0].headers["sandbox-agent-epoch"]

            await daemon.start()
            with trio.fail_after(GONE_WITHIN):
                await eventually(lambda: not any(map(alive, first_life)))
            assert await epoch_of(daemon, session.server) == epoch

            # The end of the first life's turn is told right behind what was streamed of it.
            async with session.subscribed(0) as later:
                exited = await later.until_method("_adapter/agent_exited")
            history = later.events[: exited + 1]
            assert [method_of(event) for event in history[-3:]] == [
                "",
                "_sandboxagent/turn/failed",
                "_adapter/agent_exited",
            ]
            assert refused(history[-3].message) == "agent_process_exited"
            assert history[-1].message["params"]["reason"] == "daemon_died"
            streamed = numbers(history)
            assert streamed == list(range(1, len(streamed) + 1))
            for client in streams + sockets:
                assert client.events == history[: len(client.events)]
                assert await session.replay(history[-1].id or 0, after=client.last) == history[len(client.events) :]
            print(f"{len(history)} events; the clients had seen {[len(client.events) for client in streams + sockets]}")

            # Nobody names the agent: the daemon knows.
            async with session.subscribed(history[-1].id) as awake:
                answer = await session.prompt("/recite")
                assert answer["result"]["stopReason"] == "end_turn"
                await awake.until(lambda event: b'"stopReason"' in event.data)
            assert "the password is swordfish" in texts(awake.events)
            [recovered] = [event for event in awake.events if method_of(event) == "_sandboxagent/session/recovered"]
            assert recovered.message["params"]["fidelity"] == "resumed"
            in_file = visible(kept(daemon, session.server))
            assert in_file == history + awake.events


async def test_killed_again_and_again_under_many_sessions_it_loses_nothing(tmp_path: Path) -> None:
    seen: dict[str, list[Seen]] = {}
    async with running(tmp_path) as daemon:
        sessions = [Session(daemon, f"s{number}") for number in range(4)]
        with trio.fail_after(60):
            for session in sessions:
                await session.open()
                seen[session.server] = []
            for life in range(5):
                async with trio.open_nursery() as clients:
                    done: list[str] = []

                    async def follow(session: Session, life: int, done: list[str]) -> None:
                        known = seen[session.server]
                        async with session.subscribed(known[-1].id if known else 0) as client:
                            await client.until(lambda event: numbers([event]) >= [100 * (life + 1)])
                            done.append(session.server)
                            if len(done) == len(sessions):
                                await daemon.kill()
                            await client.ended.wait()
                        known.extend(client.events)

                    for session in sessions:
                        clients.start_soon(follow, session, life, done)
                        clients.start_soon(lost_prompt, session, "/stream 10000000 200 2000")
                await daemon.start()
            for session in sessions:
                known = seen[session.server]
                assert await session.replay(known[-1].id or 0) == known
                assert visible(kept(daemon, session.server))[: len(known)] == known


async def test_state_directory_of_another_daemon_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        with trio.fail_after(20):
            second = await daemon.launch("--port", str(free_port()))
            assert await second.wait() == 1
        assert f"another daemon uses the state directory {daemon.state_dir}; stop it" in daemon.said
        assert "Traceback" not in daemon.said
        with trio.fail_after(10):
            await Session(daemon).open()


async def test_port_of_another_program_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        with trio.fail_after(20):
            second = await daemon.launch("--state-dir", str(tmp_path / "other"))
            assert await second.wait() == 1
        assert f"cannot listen on 127.0.0.1 port {daemon.port}: Address already in use" in daemon.said


def damage_head(path: Path) -> None:
    path.write_bytes(b"no journal" + path.read_bytes()[10:])


def damage_middle(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))


def damage_end(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def damage_all(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [damage_head, damage_middle, damage_end, damage_all])
async def test_damaged_journal_is_put_aside_and_stale_readers_are_told(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    async with running(tmp_path) as daemon:
        session = Session(daemon)
        with trio.fail_after(60):
            await session.open()
            await session.prompt("/stream 5000 200")
            epoch = await epoch_of(daemon, session.server)
            async with session.subscribed(0) as old:
                await old.until(lambda event: b'"stopReason"' in event.data)
            await daemon.stop()
            damage(daemon.state_dir / "journal.db")

            await daemon.start()
            await session.open()
            assert await epoch_of(daemon, session.server) != epoch
            if damage is not damage_all:
                assert "journal is damaged" in daemon.said
                assert list(daemon.state_dir.glob("journal.db.damaged-*"))
            async with session.subscribed(old.last) as stale:
                await stale.until(lambda event: b'"sessionId":"' in event.data)
            gap = stale.events[0]
            assert gap.id is None
            assert method_of(gap) == "_sandboxagent/journal/gap"
            assert gap.message["params"]["reason"] == "ahead"
            assert gap.message["params"]["epoch"] == await epoch_of(daemon, session.server)
            assert stale.events[1:] == await session.replay(stale.last)


async def test_one_damaged_page_hides_nothing_that_comes_behind_it(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon:
        session = Session(daemon)
        with trio.fail_after(60):
            await session.open()
            await session.prompt("/stream 20000 200")
            last = await last_of(session)
            whole = await session.replay(last)
            await daemon.stop()
            with (daemon.state_dir / "journal.db").open("r+b") as file:
                file.seek(300 * 4096)
                file.write(os.urandom(4096))
            await daemon.start()
            async with session.subscribed(0) as reader:
                await reader.until(lambda event: event.id == last)
        assert any(method_of(event) == "_sandboxagent/journal/gap" for event in reader.events)
        assert whole[-1] in reader.events


@pytest.mark.parametrize("option", [("--retention-events", "500"), ("--retention-bytes", "100000")], ids=str)
async def test_what_retention_has_dropped_is_told_as_a_gap_with_its_range(
    tmp_path: Path, option: tuple[str, str]
) -> None:
    async with running(tmp_path, *option) as daemon:
        session = Session(daemon)
        with trio.fail_after(60):
            await session.open()
            await session.prompt("/stream 60000 200")
            await session.prompt("done")
            last = await last_of(session)
            for after in (0, 7):
                replayed = await session.replay(last, after)
                gap, *rest = replayed
                assert gap.id is None
                assert method_of(gap) == "_sandboxagent/journal/gap"
                params = gap.message["params"]
                assert params["reason"] == "retention"
                assert params["from"] == after + 1
                assert params["to"] == params["next"] - 1
                assert rest[0].id == params["next"], "the newest pages are full of updates"
                in_file = kept(daemon, session.server)
                assert rest == visible(in_file)
                assert numbers(rest)[-1] == 60_000
                streamed = numbers(rest)
                assert streamed == list(range(streamed[0], 60_001))
            # At least what was asked for, and at most a few pages more.
            asked = int(option[1])
            size = len(in_file) if "events" in option[0] else sum(len(event.envelope) for event in in_file)
            page = 1_000 if "events" in option[0] else 128 << 10
            assert asked <= size <= asked * 9 / 8 + 3 * page
            print(f"{option}: {size} kept")
            # A reader without a number asks for what there is, and is told of no gap.
            async with session.subscribed() as fresh:
                await fresh.until(lambda event: event.id == last)
            assert fresh.events == rest


async def last_of(session: Session) -> int:
    """The number of the last event that is visible."""
    async with session.subscribed() as reader:
        mark = session.next_answer()
        await session.request("no/such/method", {})
        return reader.events[await reader.until(lambda event: mark in event.data)].id or 0


async def test_reader_that_lags_behind_the_retention_is_told_of_each_gap(tmp_path: Path) -> None:
    async with running(tmp_path, "--retention-bytes", "100000") as daemon:
        session = Session(daemon)
        with trio.fail_after(60):
            await session.open()
            async with EventStream.open(daemon, session.server, 0, buffer=4096) as slow:
                await session.prompt("/stream 100000 200")
                last = await last_of(session)
                events: list[Seen] = []
                while not events or events[-1].id != last:
                    text = await slow.read()
                    assert text is not None
                    events += parse_events(text)
        gaps = [index for index, event in enumerate(events) if event.id is None]
        assert gaps
        expected = 1
        for event in events:
            if event.id is None:
                params = event.message["params"]
                assert params["reason"] == "retention"
                assert expected <= params["from"] <= expected + 8, "but for the events that are not shown"
                expected = params["next"]
            else:
                assert expected <= event.id <= expected + 8
                expected = event.id + 1
