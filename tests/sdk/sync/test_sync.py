"""The synchronous SDK against real servers: sessions, files, processes, threads, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from sandbox_agent import Recovery
from sandbox_agent.errors import LeaseHeld, NotFound
from sandbox_agent.events import MessageChunk
from sandbox_agent.persistence import EventRecord, GapRecord, Position, SessionKey, SqliteStore
from sandbox_agent.providers.local import LocalProvider
from sandbox_agent.sync import SandboxAgent, open_store
from support.processes import processes_with
from support.providing import DaemonProvider

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from sandbox_agent import Permission

WITHIN = 30.0
"""Seconds for what another process is to do."""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Generator[SandboxAgent]:
    home = tmp_path_factory.mktemp("sync")
    provider = LocalProvider(home, env={"MOCK_AGENT_HOME": f"{home}/agent"})
    with SandboxAgent.start(provider) as sandbox:
        yield sandbox
    assert processes_with(f"MOCK_AGENT_HOME={home}/agent") == []


def test_a_turn_streams(sandbox: SandboxAgent) -> None:
    session = sandbox.create_session("mock")
    with session.stream("Hello") as turn:
        said = [event.text for event in turn if isinstance(event, MessageChunk)]
    assert "".join(said) == "Hello" == turn.result.text
    with pytest.raises(RuntimeError, match="block has ended"):
        next(turn)


def test_a_callback_may_use_the_sandbox(sandbox: SandboxAgent) -> None:
    asked: list[int] = []

    def allow(permission: Permission) -> str:
        asked.append(len(session.permissions()))
        return "allow_once"

    session = sandbox.create_session("mock", on_permission=allow)
    assert session.on_permission is allow
    assert session.prompt("/permission execute: ls").outcome == "completed"
    assert asked == [1]


def test_what_a_callback_raises_comes_out_of_the_block(sandbox: SandboxAgent) -> None:
    def refuse(permission: Permission) -> str:
        raise LookupError("nobody is here")

    session = sandbox.create_session("mock")
    with pytest.raises(LookupError), session.stream("/permission execute: ls", on_permission=refuse) as turn:
        for _ in turn:
            pass
    session.close()


def test_files_go_to_and_fro(sandbox: SandboxAgent, tmp_path: Path) -> None:
    path = f"{tmp_path}/there.bin"
    local = tmp_path / "here.bin"
    local.write_bytes(b"x" * 200_000)
    with local.open("rb") as file:
        assert sandbox.files.write(path, file).bytes_written == 200_000

    def pieces() -> Iterator[bytes]:
        yield b"y"
        yield sandbox.files.read(path)

    assert sandbox.files.write(f"{path}2", pieces()).bytes_written == 200_001
    with sandbox.files.open_read(path) as read:
        assert b"".join(read) == local.read_bytes()


def test_a_file_that_is_opened_for_text_is_no_endless_one(sandbox: SandboxAgent, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with empty.open() as file:
        assert sandbox.files.write(f"{tmp_path}/copy", file).bytes_written == 0  # type: ignore[arg-type]


def test_what_belongs_to_a_block_is_over_with_it_also_with_the_outermost_one(tmp_path: Path) -> None:
    with SandboxAgent.start(LocalProvider(tmp_path)) as sandbox:
        process = sandbox.processes.start("sleep", "60")
        log = process.follow().__enter__()
    for use in (sandbox.health, log.__next__, process.refresh):
        with pytest.raises(RuntimeError, match="block has ended"):
            use()


def test_a_store_keeps_what_sandboxes_say(tmp_path: Path) -> None:
    provider = LocalProvider(tmp_path / "local")
    with open_store(SqliteStore.open(tmp_path / "sessions.db")) as store:
        with SandboxAgent.start(provider, store=store, owner="one") as sandbox:
            assert sandbox.create_session("mock", id="s").prompt("Hello").text == "Hello"
            with (
                SandboxAgent.start(provider, sandbox_id=sandbox.id, store=store, owner="two") as other,
                pytest.raises(LeaseHeld),
            ):
                other.session("s")
            key = SessionKey(sandbox.id or "", "s")
        records = [entry.record for entry in store.events(key)]
        assert "turn.ended" in [record.kind for record in records if isinstance(record, EventRecord)]
        assert [session.key for session in store.sessions()] == [key]
        lease = store.acquire(key, "three", 30)
        store.renew(lease, 30)
        store.release(lease)
        store.forget(key)
        assert (store.events(key), store.position(key)) == ([], None)
        store.append(key, "e", [GapRecord(1, 2, "lost")], lease.generation)
        assert store.position(key) == Position("e", 2)
    with pytest.raises(RuntimeError, match="block has ended"):
        store.sessions()


def test_processes_and_terminals(sandbox: SandboxAgent) -> None:
    assert sandbox.processes.run("echo", "hi").stdout == "hi\n"
    process = sandbox.processes.start("sh", "-c", "echo one; echo two")
    with process.follow() as log:
        assert sum(1 for _ in log) >= 1
    assert process.wait().exit_code == 0
    with pytest.raises(NotFound):
        sandbox.processes.get("proc_999")
    with sandbox.processes.terminal("sh").terminal() as terminal:
        terminal.write("exit 3\n")
        for _ in terminal:
            pass
        assert terminal.exit_code == 3


def test_several_threads_use_one_sandbox(sandbox: SandboxAgent) -> None:
    said: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: said.append(sandbox.create_session("mock").prompt(f"t{n}").text))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WITHIN)
    assert sorted(said) == ["t0", "t1", "t2", "t3"]


def test_a_crash_of_the_server_is_one_failed_turn(tmp_path: Path) -> None:
    heard: list[str] = []
    with (
        DaemonProvider.opened(tmp_path) as provider,
        SandboxAgent.start(
            provider, recovery=Recovery(interval=0.5), on_recovery=lambda event: heard.append(event.kind)
        ) as sandbox,
    ):
        session = sandbox.create_session("mock")
        with session.stream("/stream 1000 200 50") as turn:
            for event in turn:
                if isinstance(event, MessageChunk):
                    provider.crash("d1")
                    break
            for _ in turn:
                pass
        assert turn.result.outcome == "failed"
        assert session.prompt("after").text == "after"
    assert heard[-2:] == ["recovering", "recovered"]


PROGRAM = """
import sys
from pathlib import Path
from sandbox_agent.providers.local import LocalProvider
from sandbox_agent.sync import SandboxAgent
with SandboxAgent.start(LocalProvider(Path(sys.argv[1]))) as sandbox:
    session = sandbox.create_session("mock")
    with session.stream("/sleep 60") as turn:
        for event in turn:
            print(event.kind, flush=True)
"""


def test_ctrl_c_leaves_the_block_and_nothing_behind(tmp_path: Path) -> None:
    marker = f"MOCK_AGENT_HOME={tmp_path}/agent"
    environment = {**os.environ, "MOCK_AGENT_HOME": f"{tmp_path}/agent"}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline()
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=WITHIN)
    assert said.rstrip().endswith(b"KeyboardInterrupt"), said
    deadline = time.monotonic() + WITHIN
    while processes_with(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes_with(marker) == []
