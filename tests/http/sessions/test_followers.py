"""Many WebSockets on one session whose agent and whose daemon die again and again: all see the same sequence."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import pytest
import trio
from trio_websocket import ConnectionClosed, HandshakeError, connect_websocket

from support.daemon import running
from support.journal import kept
from support.session_client import SessionClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio_websocket import WebSocketConnection

    from support.daemon import Daemon

FOLLOWERS = 50
LIVES = 4
KILLS_A_LIFE = 5
WITHIN = 100.0
SEED = 20

UPDATES = (1, 5)
"""How many updates of a turn are seen before the agent is killed."""

PATIENCE = (1, 300)
"""How many events a restless follower reads on one connection."""

# trio-websocket leaves the socket of a connection that was torn down to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")


class Event(NamedTuple):
    """One event as a follower got it: the number and the very bytes of the envelope."""

    seq: int
    envelope: bytes


class Lives:
    """A daemon that comes and goes.

    Attributes:
      up: set while it is there.
      down: set when this life of it has ended.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.up = trio.Event()
        self.up.set()
        self.down = trio.Event()

    async def end(self) -> None:
        """SIGKILL."""
        self.up = trio.Event()
        await self.daemon.kill()
        self.down.set()

    async def begin(self) -> None:
        self.down = trio.Event()
        await self.daemon.start()
        self.up.set()


class Follower:
    """A client that takes down every event, and connects again behind the last one whenever it has to.

    Attributes:
      patience: gives how many events it reads before it drops the connection; None: it never does by itself.
      connections: how many it has had.
      replays: how often it was told that it had seen all there was.
    """

    def __init__(self, lives: Lives, path: str, patience: Callable[[], int] | None) -> None:
        self.lives = lives
        self.path = path
        self.patience = patience
        self.events: list[Event] = []
        self.connections = 0
        self.replays = 0
        self._news = trio.Event()

    @property
    def last(self) -> int:
        return self.events[-1].seq if self.events else 0

    async def follow(self) -> None:
        while True:
            await self.lives.up.wait()
            async with trio.open_nursery() as nursery:
                with suppress(HandshakeError, ConnectionClosed, OSError):
                    await self._listen(nursery)
                nursery.cancel_scope.cancel()

    async def _connect(self, nursery: trio.Nursery) -> WebSocketConnection:
        daemon = self.lives.daemon
        async with trio.open_nursery() as racing:
            # trio-websocket waits for ever for an answer to its handshake, though the connection was cut.
            racing.start_soon(self._give_up, racing.cancel_scope)
            connection = await connect_websocket(
                nursery,
                "127.0.0.1",
                daemon.port,
                f"{self.path}?after={self.last}",
                use_ssl=False,
                extra_headers=[(name.encode(), value.encode()) for name, value in daemon.headers.items()],
            )
            racing.cancel_scope.cancel()
            return connection
        raise ConnectionResetError

    async def _give_up(self, waiting: trio.CancelScope) -> None:
        await self.lives.down.wait()
        waiting.cancel()

    async def _listen(self, nursery: trio.Nursery) -> None:
        connection = await self._connect(nursery)
        self.connections += 1
        left = None if self.patience is None else self.patience()
        while left is None or left > 0:
            frame = await connection.get_message()
            assert isinstance(frame, str)
            if self._take(frame) and left is not None:
                left -= 1
        if self.connections % 2:
            await connection.aclose()  # else without a word

    def _take(self, frame: str) -> bool:
        head, envelope = frame.split(',"envelope":', 1) if ',"envelope":' in frame else (frame[:-1], "}")
        told = json.loads(head + "}")
        if told["type"] != "event":
            # Nothing is ever missing, and the session is never deleted.
            assert told["type"] in ("replay_complete", "heartbeat"), told
            assert told["seq"] == self.last
            self.replays += told["type"] == "replay_complete"
            return False
        assert told["seq"] == self.last + 1, (self.last, frame)
        self.events.append(Event(told["seq"], envelope[:-1].encode()))
        news, self._news = self._news, trio.Event()
        news.set()
        return True

    async def until(self, wanted: Callable[[Event], object], start: int) -> Event:
        """Wait for an event behind number `start`."""
        while True:
            for event in self.events[start:]:
                if wanted(event):
                    return event
            start = len(self.events)
            await self._news.wait()


def told_of(turn: str, what: str) -> Callable[[Event], bool]:
    """Whether an event is the notice of what became of a turn."""
    method, id = f'"_sandboxagent/turn/{what}"'.encode(), turn.encode()
    return lambda event: method in event.envelope and id in event.envelope


def update(number: int) -> Callable[[Event], bool]:
    """Whether an event is the update of this number of a `/stream`."""
    return lambda event: b'"text":"#%d/' % number in event.envelope


def restarted(event: Event) -> bool:
    return b'"_sandboxagent/agent/restarted"' in event.envelope


async def streaming(app: SessionClient, reader: Follower, whims: Random) -> tuple[str, str]:
    """Have a turn that never ends by itself in full swing, and another one wait; gives the ids of both."""
    seq = int((turn := await app.prompt("/stream 10000000 200 20"))["seq"])
    waiting = await app.prompt("a word")
    await reader.until(update(whims.randint(*UPDATES)), seq)
    return turn["turnId"], waiting["turnId"]


async def kill_agent(app: SessionClient, reader: Follower, whims: Random) -> None:
    """Kill the agent in the middle of a turn, and see the one that waited through."""
    before = reader.last
    turn, waiting = await streaming(app, reader, whims)
    os.kill((await app.get())["pid"], signal.SIGKILL)
    end = await reader.until(told_of(turn, "ended"), before)
    assert json.loads(end.envelope)["params"]["outcome"] == "failed"
    await reader.until(restarted, end.seq)
    end = await reader.until(told_of(waiting, "ended"), end.seq)
    assert json.loads(end.envelope)["params"]["outcome"] == "completed"


async def kill_daemon(lives: Lives, app: SessionClient, reader: Follower, whims: Random) -> None:
    """Kill the daemon in the middle of a turn, and begin it again."""
    before = reader.last
    turns = await streaming(app, reader, whims)
    await lives.end()
    await lives.begin()
    for turn in turns:
        end = await reader.until(told_of(turn, "ended"), before)
        assert json.loads(end.envelope)["params"]["outcome"] == "failed"
    assert (await app.say("/silent"))["outcome"] == "completed"


async def test_fifty_followers_see_one_sequence_through_every_death_of_agent_and_daemon(tmp_path: Path) -> None:
    whims = Random(SEED)
    options = ("--restart-limit", "1000", "--restart-backoff-ms", "10", "--journal-sync", "normal")
    async with running(tmp_path, *options) as daemon:
        with trio.fail_after(WITHIN):
            app, lives = SessionClient(daemon), Lives(daemon)
            await app.create(id="followed", cwd=str(tmp_path))
            path = app.target("/events")
            patience = [partial(Random(SEED + n).randint, *PATIENCE) if n % 2 else None for n in range(FOLLOWERS)]
            followers = [Follower(lives, path, each) for each in patience]
            async with trio.open_nursery() as nursery:
                for follower in followers:
                    nursery.start_soon(follower.follow)
                for life in range(LIVES):
                    for _ in range(KILLS_A_LIFE):
                        await kill_agent(app, followers[0], whims)
                    if life < LIVES - 1:
                        await kill_daemon(lives, app, followers[0], whims)
                head = (await app.get())["head"]
                for follower in followers:
                    await follower.until(lambda event: event.seq == head, 0)
                nursery.cancel_scope.cancel()

            sequence = [Event(event.seq, event.envelope) for event in kept(daemon, "followed")]
            assert [event.seq for event in sequence] == list(range(1, head + 1))
            for follower in followers:
                assert follower.events == sequence
                assert follower.replays
            assert {follower.connections for follower in followers if follower.patience is None} == {LIVES}
            restless = [follower.connections for follower in followers if follower.patience is not None]
            assert min(restless) >= LIVES
            assert sum(restless) > LIVES * len(restless)
            deaths = [
                json.loads(one.envelope)["params"] for one in sequence if b"_adapter/agent_exited" in one.envelope
            ]
            assert [death.get("reason") for death in deaths].count("daemon_died") == LIVES - 1
            assert [death.get("signal") for death in deaths].count(signal.SIGKILL) == LIVES * KILLS_A_LIFE
            ids = [
                json.loads(one.envelope)["params"]["turnId"]
                for one in sequence
                if b'"_sandboxagent/turn/ended"' in one.envelope
            ]
            assert len(ids) == len(set(ids))
            print(f"{head} events, {sum(restless)} connections of those that drop them")
