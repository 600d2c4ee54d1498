"""A disk that takes no writes: new work is refused, streams stay up, and nothing is lost once there is room again."""

from __future__ import annotations

import resource
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from support.clients import Session, method_of, numbers, refused, texts
from support.daemon import Daemon, running
from support.journal import kept, visible

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.clients import Json

UPDATES = 16_000
HELD_UP = 5.0
"""Seconds: the ladder, the wait for an agent's last words, which the disk does not take, and one more try to write."""

# trio-websocket leaves the socket of a connection that was torn down to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")


class FileSizeLimit:
    """A limit on the daemon's files, which the kernel refuses to let grow: SQLite gets `disk I/O error`."""

    says = "disk I/O error"

    def __init__(self, home: Path) -> None:
        pass

    def fill(self, daemon: Daemon) -> None:
        hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (4096, hard))

    def free(self, daemon: Daemon) -> None:
        hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (hard, hard))


class SmallFileSystem:
    """A file system of its own for the journal, filled up: SQLite gets `database or disk is full`."""

    says = "database or disk is full"

    def __init__(self, home: Path) -> None:
        self._ballast = home / "state" / "ballast"

    def fill(self, daemon: Daemon) -> None:
        with self._ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue

    def free(self, daemon: Daemon) -> None:
        self._ballast.unlink()


@contextmanager
def mounted(path: Path) -> Iterator[None]:
    """A tmpfs; skips the test where we may not mount one."""
    path.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"cannot mount a small file system here: {mount.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture(params=[FileSizeLimit, SmallFileSystem], ids=lambda kind: kind.__name__)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileSizeLimit | SmallFileSystem]:
    """The disk under a daemon's state, to be filled and freed."""
    if request.param is SmallFileSystem:
        with mounted(tmp_path / "state"):
            yield SmallFileSystem(tmp_path)
    else:
        yield FileSizeLimit(tmp_path)


async def until_ready_is(daemon: Daemon, status: int) -> Json:
    """Wait until `/v1/ready` answers with a status; gives the body."""
    async with httpx.AsyncClient(headers=daemon.headers, trust_env=False) as client:
        with trio.fail_after(15):
            # The daemon tells nobody that this has changed.
            while (response := await client.get(f"{daemon.url}/v1/ready")).status_code != status:  # noqa: ASYNC110
                await trio.sleep(0.02)
    return response.json()


async def test_prompts_are_refused_streams_stay_up_and_nothing_is_lost(
    tmp_path: Path, disk: FileSizeLimit | SmallFileSystem
) -> None:
    async with running(tmp_path) as daemon:
        session = Session(daemon)
        answers: list[Json] = []
        with trio.fail_after(60):
            await session.open()
            await session.prompt("the password is swordfish")

            async def prompt() -> None:
                answers.append(await session.prompt(f"/stream {UPDATES} 200 5000"))

            async with session.subscribed(0) as stream, session.connected() as (_, socket), trio.open_nursery() as turn:
                turn.start_soon(prompt)
                await stream.until(lambda event: numbers([event]) >= [2000])
                disk.fill(daemon)
                problem = await until_ready_is(daemon, 503)
                assert problem["type"] == "urn:sandbox-agent:error:journal_unavailable"
                assert disk.says in problem["detail"]

                response = await session.post(session.envelope("session/prompt", session.prompt_params("now?")))
                assert response.status_code == 200
                assert refused(response.json()) == "journal_unavailable"
                assert "free some space" in response.json()["error"]["message"]
                assert int(response.headers["Retry-After"]) >= 1

                # What was visible before is still served, and nothing new is visible that is not on the disk.
                seen = list(stream.events)
                assert await session.replay(stream.last) == seen
                assert visible(kept(daemon, session.server)) == seen
                assert stream.events == seen
                assert numbers(seen)[-1] < UPDATES
                assert not stream.ended.is_set()
                assert not socket.ended.is_set()
                assert answers == []

                disk.free(daemon)
                await until_ready_is(daemon, 200)
                await stream.until(lambda event: b'"stopReason"' in event.data, len(seen))
                await socket.until(lambda event: event.id == stream.last)
                await session.prompt("/recite")
                await stream.until(lambda event: b'"stopReason"' in event.data, len(stream.events) - 1)
            assert answers[0]["result"]["stopReason"] == "end_turn"
            assert numbers(stream.events) == list(range(1, UPDATES + 1))
            assert "the password is swordfish" in texts(stream.events[-10:])
            assert visible(kept(daemon, session.server)) == stream.events
            assert socket.events == stream.events[: len(socket.events)]
        assert "journal cannot write" in daemon.said
        assert "journal writes again" in daemon.said


@pytest.mark.parametrize("ending", ["SIGTERM", "SIGKILL"])
async def test_daemon_that_ends_on_a_full_disk_keeps_what_was_seen(
    tmp_path: Path, disk: FileSizeLimit | SmallFileSystem, ending: str
) -> None:
    async with running(tmp_path) as daemon:
        session = Session(daemon)
        with trio.fail_after(60):
            await session.open()

            async def prompt() -> None:
                try:
                    await session.prompt(f"/stream {UPDATES} 200 5000")
                except httpx.TransportError:
                    return

            async with session.subscribed(0) as stream, trio.open_nursery() as turn:
                turn.start_soon(prompt)
                await stream.until(lambda event: numbers([event]) >= [2000])
                disk.fill(daemon)
                await until_ready_is(daemon, 503)
                if ending == "SIGTERM":
                    assert await daemon.stop() < 10
                else:
                    await daemon.kill()
                await stream.ended.wait()
            if isinstance(disk, SmallFileSystem):
                disk.free(daemon)
            await daemon.start()
            seen = [event for event in stream.events if event.id is not None]
            async with session.subscribed(0) as later:
                exited = await later.until_method("_adapter/agent_exited")
            assert later.events[: len(seen)] == seen
            streamed = numbers(later.events)
            assert streamed == list(range(1, len(streamed) + 1))
            assert method_of(later.events[exited - 1]) == "_sandboxagent/turn/failed"
            answer = await session.prompt("and now?")
            assert answer["result"]["stopReason"] == "end_turn"


async def test_full_disk_holds_up_neither_a_new_session_nor_a_deletion(
    tmp_path: Path, disk: FileSizeLimit | SmallFileSystem
) -> None:
    async with running(tmp_path) as daemon:
        session, other = Session(daemon), Session(daemon, "other")
        with trio.fail_after(60):
            await session.open()

            async def prompt() -> None:
                await session.prompt(f"/stream {UPDATES} 200 5000")

            async with session.subscribed(0) as stream, trio.open_nursery() as turn:
                turn.start_soon(prompt)
                await stream.until(lambda event: numbers([event]) >= [2000])
                disk.fill(daemon)
                await until_ready_is(daemon, 503)
                with trio.fail_after(HELD_UP):
                    response = await other.post(other.envelope("initialize", {"protocolVersion": 1}), "mock")
                assert response.status_code == 503
                assert response.json()["type"] == "urn:sandbox-agent:error:journal_unavailable"
                with trio.fail_after(HELD_UP):
                    assert await session.delete() == 204
                assert len(daemon.processes()) == 2, "the daemon and its sentinel"
                disk.free(daemon)
                await until_ready_is(daemon, 200)
                # Its last events were on their way to the disk, and so is the answer to the prompt.
                await stream.ended.wait()
                assert not stream.cut
            await other.open()
            await session.open()
            async with session.subscribed(stream.last - 1000) as again:
                await again.until(lambda event: b'"sessionId"' in event.data)
            gap, *rest = again.events
            assert gap.message["params"]["reason"] == "retention"
            assert gap.message["params"]["from"] == stream.last - 999
            assert gap.message["params"]["next"] > stream.last
            assert rest[0].id is not None
            assert rest[0].id > stream.last
            assert numbers(rest) == []
