"""`Terminal`, against a real daemon: a screen that comes and goes, and a program that does not mind."""

from __future__ import annotations

import sys
import tracemalloc
from typing import TYPE_CHECKING

import anyio
import msgspec
import pytest

from sandbox_agent.errors import ApiError, Conflict, ConnectionFailed, NotFound
from sandbox_agent.process_models import Exit
from sandbox_agent.processes import Processes
from sandbox_agent.transport import Timeouts
from support.daemon import running
from support.transports import connected, lasting, under

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from sandbox_agent.terminals import Terminal
    from sandbox_agent.transport import Transport
    from support.daemon import Daemon

MIB = 1 << 20

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    home = tmp_path_factory.mktemp("terminals-client")
    with lasting(home, HOME=str(home)) as daemon:
        yield daemon


async def until(terminal: Terminal, text: bytes) -> bytes:
    """What is shown, up to this."""
    seen = b""
    while text not in seen:
        seen += await anext(terminal)
    return seen


@BACKENDS
def test_a_terminal_is_written_to_resized_and_seen_to_its_end(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        process = await Processes(transport).terminal("sh", rows=10, cols=40, env={"PS1": "$ "})
        assert process.info.tty
        async with process.terminal() as terminal:
            await terminal.write("stty size; echo grü\u2028ße\n")
            assert b"10 40\r\n" in await until(terminal, "\ngrü\u2028ße\r\n".encode())
            await terminal.resize(rows=20, cols=80)
            await terminal.write(b"stty size\n")
            await until(terminal, b"20 80\r\n")
            await process.resize(30, 90)
            await terminal.write(b"stty size\n")
            await until(terminal, b"30 90\r\n")
            await terminal.write("exit 7\n")
            assert terminal.exit_code is None
            rest = b"".join([shown async for shown in terminal])
            assert b"exit 7" in rest
            assert terminal.exit_code == 7
            with pytest.raises(StopAsyncIteration):
                await anext(terminal)
        assert await process.wait() == Exit(exit_code=7)
        assert terminal.refused is None

    under(backend, daemon, body)


@BACKENDS
def test_whoever_comes_back_sees_the_past_and_what_comes(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        process = await Processes(transport).terminal("cat")
        async with process.terminal() as terminal:
            await terminal.write("one\n")
            await until(terminal, b"one\r\none\r\n")
        with pytest.raises(KeyError):  # what a block raises comes out as it is
            async with process.terminal():
                raise KeyError
        with anyio.move_on_after(0.2) as scope:
            async with process.terminal() as terminal:
                async for _ in terminal:
                    continue
        assert scope.cancelled_caught
        async with process.terminal() as terminal:
            await terminal.write("two\n")
            assert (await until(terminal, b"two\r\ntwo\r\n")).startswith(b"one\r\none\r\n")
        await process.kill()
        async with process.terminal() as terminal:  # also one that has ended shows its past
            assert b"".join([shown async for shown in terminal]).startswith(b"one\r\n")
        assert terminal.exit == Exit(signal=9)

    under(backend, daemon, body)


@BACKENDS
def test_garbage_and_large_amounts_come_through_as_they_are(backend: str, daemon: Daemon) -> None:
    every = "import sys; sys.stdout.buffer.write(bytes(range(256)).replace(b'\\n', b'') * 8192)"

    async def body(transport: Transport) -> None:
        process = await Processes(transport).terminal("sh", "-c", f'stty raw; {sys.executable} -c "{every}"')
        async with process.terminal() as terminal:
            shown = b"".join([shown async for shown in terminal])
        assert shown == bytes(range(256)).replace(b"\n", b"") * 8192
        assert (terminal.skipped, terminal.exit_code) == (0, 0)

    under(backend, daemon, body)


@BACKENDS
def test_a_viewer_that_does_not_read_holds_up_nobody_and_is_told_what_it_missed(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        processes = Processes(transport)
        config = await processes.config()
        await processes.configure(msgspec.structs.replace(config, max_log_bytes_per_process=2 * MIB))
        process = await processes.terminal("sh", "-c", "read go; stty raw; head -c 33554432 /dev/zero; echo; echo END")
        await processes.configure(config)
        tracemalloc.start()
        try:
            async with process.terminal() as terminal:
                await terminal.write("\n")
                with anyio.fail_after(20):
                    assert (await process.wait()).exit_code == 0
                await terminal.write("nobody hears\n")
                seen, last = 0, b""
                async for shown in terminal:
                    seen, last = seen + len(shown), last[-100:] + shown
            assert tracemalloc.get_traced_memory()[1] < 12 * MIB
        finally:
            tracemalloc.stop()
        assert last.endswith(b"END\n")
        assert terminal.skipped > 0
        assert 33554432 <= seen + terminal.skipped <= 33554432 + 100
        assert terminal.exit_code == 0

    under(backend, daemon, body)


async def test_a_terminal_that_was_taken_over_refuses_the_others(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        process = await Processes(transport).terminal("cat")
        async with process.terminal() as owner, process.terminal() as guest:
            await owner.take_over()
            await owner.write("mine\n")
            await until(guest, b"mine\r\nmine\r\n")
            await guest.write("theirs\n")
            with anyio.move_on_after(0.5):
                await anext(guest)
            assert guest.refused is not None
            assert "taken the terminal over" in guest.refused
            await owner.release()
            await owner.write("free\n")
            await until(guest, b"free\r\nfree\r\n")
            await guest.write("at last\n")
            assert b"theirs" not in await until(owner, b"at last\r\nat last\r\n")
        await process.kill()


async def test_what_has_no_terminal_is_refused_as_a_problem(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        process = await Processes(transport).start("sleep", "60")
        with pytest.raises(Conflict, match="tty"):
            async with process.terminal():
                pass
        await process.kill()
        await process.delete()
        with pytest.raises(NotFound):
            async with process.terminal():
                pass
        with pytest.raises(ApiError):
            await process.resize(10, 10)


async def test_a_terminal_whose_server_goes_is_an_error_and_no_end(tmp_path: Path) -> None:
    async with running(tmp_path) as daemon, connected(daemon, Timeouts(retry_within=1)) as transport:
        process = await Processes(transport).terminal("cat")
        with anyio.fail_after(20):
            async with process.terminal() as terminal:
                await terminal.write("up\n")
                await until(terminal, b"up\r\nup\r\n")
                await daemon.kill()
                with pytest.raises(ConnectionFailed):
                    await until(terminal, b"never")
                with pytest.raises(ConnectionFailed):
                    await terminal.write("x")
                with pytest.raises(ConnectionFailed):
                    await anext(terminal)
            assert terminal.exit is None
            await daemon.start()
            process = await Processes(transport).terminal("cat")
            async with process.terminal() as terminal:
                await terminal.write("again\n")
                await until(terminal, b"again\r\n")
                await daemon.stop()
                # The program ends with its server: the end is told, or the connection just breaks.
                with pytest.raises((ConnectionFailed, StopAsyncIteration)):
                    await until(terminal, b"never")


@BACKENDS
def test_who_reads_a_terminal_that_another_task_leaves_is_told(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        process = await Processes(transport).terminal("sh")
        told: list[str] = []

        async def read(terminal: Terminal) -> None:
            try:
                async for _ in terminal:
                    continue
            except ConnectionFailed as error:
                told.append(str(error))

        async with anyio.create_task_group() as tasks, process.terminal() as terminal:
            tasks.start_soon(read, terminal)
            await terminal.write("echo ready\n")
            await anyio.wait_all_tasks_blocked()
        assert told == ["the terminal was left"]
        await process.kill()

    under(backend, daemon, body)
