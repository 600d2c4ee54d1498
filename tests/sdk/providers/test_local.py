"""The local provider: what holds for all providers, that no server outlives its application, and its walls."""

from __future__ import annotations

import gc
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
import trio

from sandbox_agent.errors import ProviderError
from sandbox_agent.providers import LocalProvider
from sandbox_agent.providers.conformance import (
    Check,
    Subject,
    check_a_crashed_server_comes_back_with_its_token_and_its_sessions,
    check_a_paused_sandbox_is_woken_with_its_sessions,
    check_a_sandbox_is_killed_without_regard_to_its_server,
    check_another_object_finds_the_sandbox_by_its_id,
    name_of,
)
from sandbox_agent.providers.place import LocalPlace
from support.conforming import each_check, run_check
from support.daemon import free_port
from support.processes import alive, eventually, processes_with

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

TOKEN = "t0ken-of-the-tests"

WITHIN = 40
"""Seconds for a whole test."""

APPLICATION = """
import anyio, sys
from pathlib import Path
from sandbox_agent.providers import LocalProvider

async def main():
    directory, confined, mark, then = sys.argv[1:]
    env = {"MOCK_AGENT_HOME": mark}
    provider = LocalProvider(Path(directory), env=env, confined=confined == "True")
    print(await provider.create("t0ken-of-the-tests"), flush=True)
    if then == "wait":
        await anyio.sleep_forever()

anyio.run(main)
"""
"""An application that makes a sandbox, and never destroys it."""


@pytest.fixture
def bubblewrap() -> None:
    if shutil.which("bwrap") is None:
        assert not os.environ.get("CI"), "bubblewrap is not installed"
        pytest.skip("bubblewrap is not installed")


async def crash(directory: Path, sandbox_id: str) -> None:
    """SIGKILL to the server alone, which is the last of its processes: what it has started is on its own."""
    pid = LocalPlace(directory, sandbox_id).servers()[-1]
    os.kill(pid, signal.SIGKILL)
    with anyio.fail_after(5):
        while alive(pid):  # noqa: ASYNC110 (it is not our child)
            await anyio.sleep(0.01)


async def count(directory: Path) -> int:
    return len([entry async for entry in anyio.Path(directory).glob("*")])


def subject_of(directory: Path, make: Callable[[], LocalProvider]) -> Subject:
    return Subject(
        provider=make(),
        again=make,
        crash=partial(crash, directory),
        count=partial(count, directory),
        broken=LocalProvider(directory, command=["false"]),
    )


@each_check(telling_ones_twice=True)
def test_it_is_a_provider(check: Check, backend: str, tmp_path: Path) -> None:
    run_check(check, backend, subject_of(tmp_path, partial(LocalProvider, tmp_path)))


WALLED = (
    check_a_crashed_server_comes_back_with_its_token_and_its_sessions,
    check_a_paused_sandbox_is_woken_with_its_sessions,
    check_a_sandbox_is_killed_without_regard_to_its_server,
    check_another_object_finds_the_sandbox_by_its_id,
)
"""Those in which processes are ended."""


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("check", WALLED, ids=name_of)
async def test_it_is_one_within_walls(check: Check, tmp_path: Path) -> None:
    await check(subject_of(tmp_path, partial(LocalProvider, tmp_path, confined=True)))


@asynccontextmanager
async def sandbox_of(provider: LocalProvider) -> AsyncGenerator[str]:
    """A sandbox whose server is known by our token."""
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(TOKEN)
        try:
            yield sandbox_id
        finally:
            await provider.destroy(sandbox_id)


async def ask(provider: LocalProvider, sandbox_id: str, method: str, path: str, **given: Any) -> Any:
    endpoint = await provider.endpoint(sandbox_id)
    headers = {"Authorization": f"Bearer {endpoint.token}"}
    async with httpx.AsyncClient(base_url=endpoint.url, headers=headers, trust_env=False, timeout=20) as client:
        answer = await client.request(method, path, **given)
        assert answer.is_success, answer.text
        return answer.json()


async def shell(provider: LocalProvider, sandbox_id: str, script: str) -> str:
    """What a script says in the sandbox, on stdout and stderr."""
    body = {"command": "sh", "args": ["-c", script]}
    ran = await ask(provider, sandbox_id, "POST", "/v1/processes/run", json=body)
    return f"{ran['stdout']}{ran['stderr']}"


def environment_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0")
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def pids_of(directory: Path, sandbox_id: str) -> list[int]:
    return LocalPlace(directory, sandbox_id).servers()


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("confined", [False, True], ids=["free", "confined"])
async def test_a_server_ends_with_an_application_that_is_killed_and_is_found_again(
    tmp_path: Path, confined: bool
) -> None:
    mark = f"{tmp_path}/agent"
    command = [sys.executable, "-c", APPLICATION, str(tmp_path / "local"), str(confined), mark, "wait"]
    provider = LocalProvider(tmp_path / "local", confined=confined)
    with trio.fail_after(WITHIN):
        application = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        assert application.stdout is not None
        try:
            sandbox_id = (await application.stdout.receive_some()).decode().strip()
            await ask(provider, sandbox_id, "POST", "/v1/sessions", json={"agent": "mock", "id": "s"})
            pids = pids_of(provider.directory, sandbox_id)
            await provider.ensure_server(sandbox_id)
            await provider.reconnect(sandbox_id)
            assert pids_of(provider.directory, sandbox_id) == pids, "there is one, whoever holds it"
        finally:
            application.kill()
            with trio.CancelScope(shield=True):
                await application.wait()
                await application.stdout.aclose()
        await eventually(lambda: not pids_of(provider.directory, sandbox_id))
        await eventually(lambda: not processes_with(f"MOCK_AGENT_HOME={mark}"))
        await provider.reconnect(sandbox_id)
        assert (await ask(provider, sandbox_id, "GET", "/v1/sessions/s"))["id"] == "s"
        await provider.destroy(sandbox_id)
    assert await count(provider.directory) == 0


async def test_a_server_ends_with_an_application_that_forgets_it(tmp_path: Path) -> None:
    arguments = [str(tmp_path / "local"), "False", f"{tmp_path}/agent", "leave"]
    with trio.fail_after(WITHIN):
        done = await trio.run_process([sys.executable, "-c", APPLICATION, *arguments], capture_stdout=True)
        sandbox_id = done.stdout.decode().strip()
        await eventually(lambda: not pids_of(tmp_path / "local", sandbox_id))
    place = LocalPlace(tmp_path / "local", sandbox_id)
    assert "event=stopped" in place.log.read_text(), "in good order"
    assert place.exists


async def test_a_server_that_hangs_is_replaced_on_its_port(tmp_path: Path) -> None:
    provider = LocalProvider(tmp_path)
    async with sandbox_of(provider) as sandbox_id:
        before = await provider.endpoint(sandbox_id)
        (pid,) = pids_of(tmp_path, sandbox_id)
        os.kill(pid, signal.SIGSTOP)
        await provider.ensure_server(sandbox_id)
        assert not alive(pid)
        assert await provider.endpoint(sandbox_id) == before
        assert await ask(provider, sandbox_id, "GET", "/v1/health") == {"status": "ok"}


async def test_a_server_whose_port_somebody_has_taken_gets_another_one(tmp_path: Path) -> None:
    provider = LocalProvider(tmp_path)
    async with sandbox_of(provider) as sandbox_id:
        await ask(provider, sandbox_id, "POST", "/v1/sessions", json={"agent": "mock", "id": "s"})
        before = httpx.URL((await provider.endpoint(sandbox_id)).url)
        await provider.pause(sandbox_id)
        (listener,) = await trio.open_tcp_listeners(before.port or 0, host="127.0.0.1")
        async with listener:
            await provider.reconnect(sandbox_id)
            assert httpx.URL((await provider.endpoint(sandbox_id)).url).port != before.port
            assert (await ask(provider, sandbox_id, "GET", "/v1/sessions/s"))["id"] == "s"


async def test_a_port_of_choice_that_somebody_has_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        port = listener.socket.getsockname()[1]
        provider = LocalProvider(tmp_path, port=port)
        with pytest.raises(ProviderError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            await provider.create(TOKEN)
    assert await count(tmp_path) == 0
    port = free_port()
    provider = LocalProvider(tmp_path, port=port)
    async with sandbox_of(provider) as sandbox_id:
        assert (await provider.endpoint(sandbox_id)).url == f"http://127.0.0.1:{port}"


async def test_why_a_server_does_not_start_is_told(tmp_path: Path) -> None:
    for provider, said in (
        (LocalProvider(tmp_path, env={"SANDBOX_AGENT_LOG_LEVEL": "loud"}), "'loud' is not one of"),
        (LocalProvider(tmp_path, env={"SANDBOX_AGENT_TOKEN": "another"}), "there is a token, and a --token-file"),
        (LocalProvider(tmp_path, command=["/nowhere/to/be/found"]), "No such file or directory: /nowhere/to/be"),
        (LocalProvider(tmp_path, command=["true"]), "it said nothing"),
    ):
        with pytest.raises(ProviderError) as caught:
            await provider.create(TOKEN)
        assert said in str(caught.value)
        assert TOKEN not in str(caught.value)
        assert await count(tmp_path) == 0


async def test_its_files_are_private_and_its_environment_is_the_applications_without_our_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SANDBOX_AGENT_FS_ROOT", "/nowhere")
    monkeypatch.setenv("OPENAI_API_KEY", "of the application")
    directory = tmp_path / "a" / "b"
    provider = LocalProvider(directory, env={"GREETING": "hello", "SANDBOX_AGENT_QUEUE_LIMIT": "3"})
    async with sandbox_of(provider) as sandbox_id:
        place = LocalPlace(directory, sandbox_id)
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert stat.S_IMODE(place.path.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in place.path.iterdir() if file.is_file()} == {0o600}
        (pid,) = place.servers()
        environment = environment_of(pid)
        assert environment["GREETING"] == "hello"
        assert environment["OPENAI_API_KEY"] == "of the application"
        assert environment["HOME"] == str(place.home)
        ours = {name for name in environment if name.startswith("SANDBOX_AGENT_")}
        assert ours == {"SANDBOX_AGENT_DATA_DIR", "SANDBOX_AGENT_QUEUE_LIMIT"}
        assert (await shell(provider, sandbox_id, "pwd")).strip() == str(place.home)


@pytest.mark.usefixtures("bubblewrap")
async def test_a_confined_sandbox_sees_and_changes_its_own_alone(tmp_path: Path) -> None:
    workspace, other = tmp_path / "workspace", tmp_path / "readable"
    for folder in (workspace, other):
        folder.mkdir()
        (folder / "file").write_text(f"in {folder.name}")
    (tmp_path / "secret").write_text("of somebody")
    provider = LocalProvider(tmp_path / "local", confined=True, workspace=workspace, readable=[other])
    assert provider.default_cwd == str(workspace)
    neighbour = LocalProvider(tmp_path / "local")
    async with sandbox_of(provider) as sandbox_id, sandbox_of(neighbour) as neighbours:
        ran = partial(shell, provider, sandbox_id)
        assert "No such file" in await ran(f"cat {tmp_path}/secret")
        assert "No such file" in await ran(f"ls {tmp_path}/local/{neighbours}")
        assert await ran("ls -A /home /run /var/tmp") == "/home:\n\n/run:\n\n/var/tmp:\n"
        assert await ran(f"cat {other}/file") == "in readable"
        assert "Read-only file system" in await ran(f"echo no > {other}/file")
        assert "Read-only file system" in await ran("touch /usr/file /etc/file")
        assert "Read-only file system" in await ran(f"touch {tmp_path}/local/{sandbox_id}/token")
        assert await ran(f"echo yes > {workspace}/file; echo yes > ~/file; cat ~/file") == "yes\n"
        assert (workspace / "file").read_text() == "yes\n"
        # The walls cannot be taken down, not even by root.
        assert "CapEff:\t0000000000000000\n" in await ran("cat /proc/self/status")
        assert "cannot" in await ran("mount -t tmpfs none /mnt || echo cannot")
        # Its first process is bubblewrap, and the test run is not to be seen.
        assert "bwrap" in await ran("tr '\\0' ' ' < /proc/1/cmdline")
        assert "No such file" in await ran(f"ls -d /proc/{os.getpid()}")
        session = await ask(provider, sandbox_id, "POST", "/v1/sessions", json={"agent": "mock", "cwd": str(workspace)})
        assert session["state"] == "ready"


@pytest.mark.usefixtures("bubblewrap")
async def test_what_is_within_walls_dies_with_them(tmp_path: Path) -> None:
    provider = LocalProvider(tmp_path / "local", confined=True, env={"MOCK_AGENT_HOME": f"{tmp_path}/agent"})
    async with sandbox_of(provider) as sandbox_id:
        await ask(provider, sandbox_id, "POST", "/v1/sessions", json={"agent": "mock", "id": "s"})
        outer, *inner = pids_of(provider.directory, sandbox_id)
        assert len(inner) == 2
        os.kill(outer, signal.SIGKILL)
        await eventually(lambda: not processes_with(f"MOCK_AGENT_HOME={tmp_path}/agent"))
        await provider.ensure_server(sandbox_id)
        assert (await ask(provider, sandbox_id, "GET", "/v1/sessions/s"))["id"] == "s"


async def test_walls_without_bubblewrap_are_refused_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProviderError, match="apt install bubblewrap"):
        await LocalProvider(tmp_path / "local", confined=True).create(TOKEN)
    assert await count(tmp_path / "local") == 0


async def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ProviderError, match="cannot make a sandbox in"):
        await LocalProvider(tmp_path / "file" / "local").create(TOKEN)


async def test_two_who_start_it_at_once_start_one(tmp_path: Path) -> None:
    first, second = LocalProvider(tmp_path), LocalProvider(tmp_path)
    async with sandbox_of(first) as sandbox_id:
        await first.pause(sandbox_id)
        async with trio.open_nursery() as nursery:
            for provider in (first, second, first):
                nursery.start_soon(provider.reconnect, sandbox_id)
        assert len(pids_of(tmp_path, sandbox_id)) == 1
        start = time.monotonic()
        await second.destroy(sandbox_id)
        assert time.monotonic() - start < 10
    assert processes_with(f"HOME={tmp_path}/") == []


async def test_a_sandbox_is_the_same_by_another_name_of_its_directory(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "local")
    provider = LocalProvider(str(tmp_path / "local"))
    async with sandbox_of(provider) as sandbox_id:
        pids = pids_of(provider.directory, sandbox_id)
        for name in (str(tmp_path / "link"), f"{tmp_path}/local/../local"):
            await LocalProvider(name).ensure_server(sandbox_id)
            assert pids_of(provider.directory, sandbox_id) == pids
        await LocalProvider(str(tmp_path / "link")).destroy(sandbox_id)
        assert processes_with(f"HOME={tmp_path}/") == []


async def test_a_server_lives_as_long_as_the_application_and_not_as_a_provider(tmp_path: Path) -> None:
    async def made() -> str:
        return await LocalProvider(tmp_path).create(TOKEN)

    sandbox_id = await made()
    gc.collect()
    provider = LocalProvider(tmp_path)
    await provider.ensure_server(sandbox_id)
    (pid,) = pids_of(tmp_path, sandbox_id)
    await trio.sleep(0.5)
    assert pids_of(tmp_path, sandbox_id) == [pid]
    await provider.destroy(sandbox_id)
    assert str(pid) not in os.listdir("/proc"), "it is not even a zombie"


def test_a_directory_on_a_full_disk_is_not_left_half_made(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(ProviderError, match="cannot make a sandbox"):
            LocalPlace.make(tmp_path, TOKEN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def begun(directory: Path) -> bool:
    """Whether a server is being started."""
    return bool(list(directory.glob("*/log")))


@pytest.mark.usefixtures("bubblewrap")
@pytest.mark.parametrize("confined", [False, True], ids=["free", "confined"])
async def test_an_application_that_is_killed_while_it_makes_a_sandbox_leaves_no_process(
    tmp_path: Path, confined: bool
) -> None:
    for number, moment in enumerate((0.0, 0.3)):
        directory = tmp_path / str(number)
        command = [sys.executable, "-c", APPLICATION, str(directory), str(confined), f"{tmp_path}/agent", "wait"]
        with trio.fail_after(WITHIN):
            application = await trio.lowlevel.open_process(command)
            try:
                await eventually(partial(begun, directory))
                await trio.sleep(moment)
            finally:
                application.kill()
                with trio.CancelScope(shield=True):
                    await application.wait()
            await eventually(lambda: not processes_with(f"MOCK_AGENT_HOME={tmp_path}/agent"))
