"""`Processes`, against a real daemon: calls, signals, input, and logs that survive what their connections do not."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

import anyio
import msgspec
import pytest
import trio

from sandbox_agent.errors import ApiError, Conflict, ConnectionFailed, NotFound, Overloaded, StreamError
from sandbox_agent.process_models import Exit, Limits, Restart
from sandbox_agent.processes import Processes
from sandbox_agent.providers.provider import Endpoint
from sandbox_agent.transport import Timeouts
from support.breaking import open_way
from support.daemon import running
from support.processes import eventually
from support.transports import connected, lasting, under

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sandbox_agent.process_log import ProcessLog
    from sandbox_agent.transport import Transport
    from support.daemon import Daemon

STUBBORN = """
import signal, time
signal.signal(signal.SIGUSR1, lambda *_: print("usr1", flush=True))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    time.sleep(1)
"""

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    home = tmp_path_factory.mktemp("processes-client")
    with lasting(home, HOME=str(home)) as daemon:
        yield daemon


async def until(log: ProcessLog, text: bytes) -> None:
    """Wait for this output."""
    seen = b""
    while text not in seen:
        seen += (await anext(log)).data


@BACKENDS
def test_a_call_gives_exit_code_and_output(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        processes = Processes(transport)
        result = await processes.run(
            "sh", "-c", "cat; echo $X >&2; pwd; exit 3", cwd="/tmp", env={"X": "err\u2028"}, stdin=b"in\xff\n"
        )
        assert (result.exit_code, result.stdout, result.stderr) == (3, "in\ufffd\n/tmp\n", "err\u2028\n")
        assert not result.ok
        merged = await processes.run("sh", "-c", "echo a; echo b >&2", merge_output=True, stdin="")
        assert (merged.stdout, merged.ok) == ("a\nb\n", True)

    under(backend, daemon, body)


async def test_a_call_is_cut_in_time_and_length(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        processes = Processes(transport)
        start = time.monotonic()
        late = await processes.run("sleep", "60", timeout=0.3)
        assert time.monotonic() - start < 5
        assert (late.timed_out, late.exit_code) == (True, None)
        long = await processes.run("yes", timeout=0.5, max_output_bytes=10)
        assert (long.stdout, long.stdout_truncated) == ("y\n" * 5, True)
        killed = await processes.run("sh", "-c", "kill -9 $$")
        assert (killed.exit_code, killed.signal) == (None, signal.SIGKILL)
        limited = await processes.run("true", limits=Limits(open_files=20))
        assert limited.limits["openFiles"].value == 20
        with pytest.raises(StreamError):
            await processes.run("no-such-program")


async def test_a_call_may_be_silent_for_longer_than_others(daemon: Daemon) -> None:
    async with connected(daemon, Timeouts(silence=0.3)) as transport:
        assert (await Processes(transport).run("sleep", "0.8", timeout=10)).ok


@BACKENDS
def test_a_process_is_written_to_followed_and_waited_for(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        process = await Processes(transport).start("sh", "-c", "cat; echo done >&2; exit 5")
        said = b""
        async with process.follow() as log:
            await process.write("one\u2028\n")
            async for entry in log:
                said += entry.data
                if entry.stream == "stdout" and said.endswith(b"\n"):
                    await process.close_stdin()
        assert said == "one\u2028\ndone\n".encode()
        assert log.exit == Exit(exit_code=5)
        assert await process.wait() == Exit(exit_code=5)
        assert (await process.refresh()).status == "exited"
        assert (await process.logs(stream="stderr")).data == b"done\n"
        assert (await process.logs(tail=1)).data == b"done\n"
        await process.delete()
        with pytest.raises(NotFound):
            await process.refresh()

    under(backend, daemon, body)


@BACKENDS
def test_large_input_waits_for_a_slow_reader_and_arrives_whole(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        slowly = "import sys, time; time.sleep(1); print(sum(sys.stdin.buffer.read()))"
        process = await Processes(transport).start(sys.executable, "-c", slowly)
        content = bytes(range(256)) * 8 * 1024
        await process.write(content)
        await process.close_stdin()
        assert await process.wait() == Exit(exit_code=0)
        assert (await process.logs()).data == b"%d\n" % sum(content)

    under(backend, daemon, body)


async def test_input_that_is_never_read_is_refused_in_the_end(daemon: Daemon) -> None:
    async with connected(daemon, Timeouts(retry_within=0.5)) as transport:
        process = await Processes(transport).start("sleep", "60")
        with pytest.raises(Overloaded):
            await process.write(bytes(4 << 20))
        assert (await process.kill()).signal == signal.SIGKILL
        with pytest.raises(Conflict):
            await process.write(b"x")


@BACKENDS
def test_a_process_is_signalled_stopped_and_killed(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        processes = Processes(transport)
        process = await processes.start(sys.executable, "-c", STUBBORN)
        async with process.follow() as log:
            await until(log, b"up\n")
            await process.signal(signal.SIGUSR1)
            await until(log, b"usr1\n")
            assert (await process.stop(wait=0.2)).status == "running"
            with pytest.raises(Conflict):
                await process.delete()
            ended = await process.stop(wait=5, kill_after=0.1)
            assert (ended.status, ended.signal) == ("exited", signal.SIGKILL)
            assert [entry async for entry in log] == []
        assert log.exit == Exit(signal=signal.SIGKILL)
        assert process.id in [one.id for one in await processes.list()]
        assert (await processes.get(process.id)).info == process.info

    under(backend, daemon, body)


async def test_a_process_that_fails_is_started_again_and_waited_for_to_the_end(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        again = Restart(max_restarts=2, backoff_ms=10, max_backoff_ms=20)
        process = await Processes(transport).start("sh", "-c", "echo run; exit 1", restart=again)
        assert await process.wait() == Exit(exit_code=1)
        assert (await process.logs()).data == b"run\n" * 3
        assert (await process.refresh()).restarts == 2


async def test_what_was_dropped_from_a_log_is_counted(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        processes = Processes(transport)
        config = await processes.config()
        small = await processes.configure(msgspec.structs.replace(config, max_log_bytes_per_process=100_000))
        assert small.max_log_bytes_per_process == 100_000
        process = await processes.start("sh", "-c", "head -c 1000000 /dev/zero; echo end")
        await process.wait()
        await processes.configure(config)
        async with process.follow() as log:
            kept = b"".join([entry.data async for entry in log])
        assert log.missed > 0
        assert len(kept) <= 100_000
        assert kept.endswith(b"end\n")
        page = await process.logs()
        assert page.gap is not None
        assert page.gap.first == 1
        assert page.gap.last == log.missed


async def test_a_log_goes_on_behind_its_last_entry_after_a_break(daemon: Daemon) -> None:
    async with open_way(daemon.port) as way, connected(daemon) as transport:
        transport.endpoint = Endpoint(f"http://127.0.0.1:{way.port}", daemon.token)
        process = await Processes(transport).start("sh", "-c", "for i in $(seq 40); do echo $i; sleep 0.02; done")
        numbers: list[int] = []
        said = b""
        with trio.fail_after(20):
            async with process.follow() as log:
                async for entry in log:
                    numbers.append(entry.sequence)
                    said += entry.data
                    if len(numbers) in (3, 10):
                        await way.cut()
            assert log.exit == Exit(exit_code=0)
            assert (await process.wait()).exit_code == 0
        assert way.cuts == 2
    assert numbers == sorted(set(numbers))
    assert said == b"".join(b"%d\n" % number for number in range(1, 41))


async def test_what_may_have_started_is_not_started_again(daemon: Daemon) -> None:
    async with open_way(daemon.port) as way, connected(daemon) as transport:
        transport.endpoint = Endpoint(f"http://127.0.0.1:{way.port}", daemon.token)
        count = daemon.home / "count"

        async def cut() -> None:
            await eventually(count.exists)
            await way.cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cut)
            with pytest.raises(ConnectionFailed):
                await Processes(transport).run("sh", "-c", f"echo x >> {count}; sleep 60", timeout=90)
    assert count.read_text() == "x\n"


async def test_a_follower_of_a_process_that_died_with_its_server_hears_that_it_is_gone(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon, connected(daemon, Timeouts(retry_within=20)) as transport:
        processes = Processes(transport)
        process = await processes.start("sh", "-c", "echo up; sleep 60")
        with trio.fail_after(30):
            async with process.follow() as log:
                assert (await anext(log)).data == b"up\n"
                await daemon.kill()
                await daemon.start()
                with pytest.raises(NotFound):
                    await anext(log)
            # Another process has its number by now: it is not taken for the old one.
            await trio.sleep(0.01)  # numbers of milliseconds tell them apart
            other = await processes.start("sleep", "60")
            assert other.id == process.id
            with pytest.raises(NotFound, match="another process"):
                await process.kill()
            with pytest.raises(NotFound, match="another process"):
                await process.wait()
            assert (await other.refresh()).status == "running"


async def test_there_is_no_process_of_a_number_that_was_not_given(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        for id in ("proc_99999", "../config", "a/b?c"):
            with pytest.raises(ApiError):
                await Processes(transport).get(id)


@BACKENDS
def test_leaving_a_follower_early_holds_nothing(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        process = await Processes(transport).start("sleep", "60")
        with anyio.move_on_after(0.2) as scope:
            await process.wait()
        assert scope.cancelled_caught
        with pytest.raises(KeyError):
            async with process.follow():
                raise KeyError
        await process.kill()
        assert await process.wait() == Exit(signal=signal.SIGKILL)

    under(backend, daemon, body)
