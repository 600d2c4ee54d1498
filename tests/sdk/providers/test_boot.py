"""How a server gets into a sandbox and is started there, in one that is a directory of this machine."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import sys
import zipfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from sandbox_agent.errors import ProviderError
from sandbox_agent.providers.boot import Pip, Preinstalled, Server, Wheel, boot, ensure, token_of
from sandbox_agent.providers.machine import Ran
from sdk.fakes.sandboxes import FakeSandbox
from support.daemon import free_port
from support.processes import alive, command_of, eventually, processes_with

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

TOKEN = "t0ken-of-the-'tests'"

WITHIN = 60
"""Seconds for a whole test."""


class Machine:
    """A fake sandbox as the boot sees it. All scripts are kept."""

    def __init__(self, sandbox: FakeSandbox) -> None:
        self.sandbox = sandbox
        self.scripts: list[str] = []

    async def run(self, script: str, *, within: float) -> Ran:
        self.scripts.append(script)
        done = await trio.to_thread.run_sync(lambda: self.sandbox.run(["sh", "-c", script], within=within))
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    async def write(self, path: str, data: bytes) -> None:
        await trio.Path(self.sandbox.path(path)).write_bytes(data)

    @property
    def place(self) -> Path:
        return self.sandbox.home / ".sandbox-agent"

    def servers(self) -> list[int]:
        return [pid for pid in processes_with(self.sandbox.mark) if " server --host" in command_of(pid)]


@asynccontextmanager
async def machine_in(root: Path, env: Mapping[str, str] | None = None) -> AsyncGenerator[Machine]:
    """A machine whose home has a name that a shell would take apart."""
    sandbox = FakeSandbox(root / "it's a home", env)
    try:
        with trio.fail_after(WITHIN):
            yield Machine(sandbox)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(sandbox.destroy)


def server_of(env: Mapping[str, str] | None = None) -> Server:
    return Server(install=Preinstalled(), port=free_port(), env=env or {})


async def health(server: Server, token: str | None) -> int:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
        return (await client.get(f"http://127.0.0.1:{server.port}/v1/health")).status_code


async def test_a_server_is_started_once_and_again_after_its_end_with_the_same_token(tmp_path: Path) -> None:
    async with machine_in(tmp_path) as machine:
        server = server_of()
        assert await token_of(machine) is None
        await boot(machine, server, TOKEN)
        assert (await health(server, TOKEN), await health(server, None)) == (200, 401)
        (pid,) = machine.servers()
        await ensure(machine, server)
        assert machine.servers() == [pid]
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not alive(pid))
        await ensure(machine, server)
        assert await health(server, TOKEN) == 200
        assert machine.servers() != [pid]
        assert await token_of(machine) == TOKEN


async def test_secrets_are_in_private_files_and_in_no_command_line(tmp_path: Path) -> None:
    key = "s3cret-of-an-agent"
    async with machine_in(tmp_path) as machine:
        await boot(machine, server_of({"OPENAI_API_KEY": key}), TOKEN)
        assert [script for script in machine.scripts if TOKEN in script or key in script] == []
        assert [pid for pid in processes_with(machine.sandbox.mark) if TOKEN in command_of(pid)] == []
        assert stat.S_IMODE(machine.place.stat().st_mode) == 0o700
        assert (machine.place / "token").read_text() == TOKEN


async def test_the_environment_comes_through_whatever_is_in_it(tmp_path: Path) -> None:
    odd = {"QUOTES": 'it\'s "so" $HOME `id` \\ #', "LINES": "one\ntwo\n", "LETTERS": "zwölf ✓", "EMPTY": ""}
    # An image may have a token of its own: ours holds.
    async with machine_in(tmp_path, {"SANDBOX_AGENT_TOKEN": "of-the-image", "LETTERS": "ABC"}) as machine:
        server = server_of(odd)
        await boot(machine, server, TOKEN)
        assert (await health(server, TOKEN), await health(server, "of-the-image")) == (200, 401)
        (pid,) = machine.servers()
        entries = await trio.Path(f"/proc/{pid}/environ").read_text(encoding="utf-8")
        assert {f"{name}={value}" for name, value in odd.items()} <= set(entries.split("\0"))


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"A B": "x"}, "'A B' is no name of an environment variable"),
        ({"A;rm": "x"}, "is no name of an environment variable"),
        ({"A": "a\0b"}, "the value of A has a NUL character"),
        ({"SANDBOX_AGENT_TOKEN": "x"}, "SANDBOX_AGENT_TOKEN is chosen when the sandbox is made"),
        ({"SANDBOX_AGENT_TOKEN_FILE": "x"}, "SANDBOX_AGENT_TOKEN_FILE is chosen when"),
    ],
)
async def test_an_environment_that_cannot_be_is_refused_before_anything_is_done(
    tmp_path: Path, env: dict[str, str], said: str
) -> None:
    async with machine_in(tmp_path) as machine:
        with pytest.raises(ProviderError, match=said):
            await boot(machine, server_of(env), TOKEN)
        assert machine.scripts == []


def wheel_in(folder: Path, version: str) -> Path:
    """A wheel that depends on nothing, whose command is the one of this test run."""
    name, info = f"stand_in-{version}-py3-none-any.whl", f"stand_in-{version}.dist-info"
    command = str(Path(sys.executable).with_name("sandbox-agent"))
    files = {
        "stand_in.py": f"import os, sys\ndef main():\n    os.execv({command!r}, [{command!r}, *sys.argv[1:]])\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: stand-in\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nsandbox-agent = stand_in:main\n",
    }
    record = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(folder / name, "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, text)
    return folder / name


async def test_a_server_is_installed_from_a_wheel_or_by_pip_with_the_agents_that_are_wanted(tmp_path: Path) -> None:
    python = shlex.quote(sys.executable)
    ways: dict[str, Pip | Wheel] = {
        "1.0": Wheel(wheel_in(tmp_path, "1.0"), python),
        "2.0": Pip(f"stand-in @ {wheel_in(tmp_path, '2.0').as_uri()}", python),
    }
    async with machine_in(tmp_path, {"PIP_NO_INDEX": "1"}) as machine:
        for version, install in ways.items():
            server = Server(install=install, port=free_port(), agents=("mock",))
            await boot(machine, server, TOKEN)
            assert await health(server, TOKEN) == 200
            assert (machine.place / "venv" / "bin" / "sandbox-agent").exists()
            assert [path.name for path in machine.place.rglob("stand_in-*.dist-info")] == [
                f"stand_in-{version}.dist-info"
            ]
        assert sum("install-agent mock" in script for script in machine.scripts) == len(ways)


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (Server(install=Preinstalled("no-such-command")), "no-such-command: not found"),
        (Server(install=Pip(python="no-such-python")), "no-such-python: not found"),
        (Server(install=Wheel(Path("/no/such/wheel-1-py3-none-any.whl"))), "cannot read the wheel /no/such/wheel"),
        (Server(install=Preinstalled(), agents=("no-such-agent",)), "no-such-agent"),
        (Server(install=Preinstalled(), env={"SANDBOX_AGENT_LOG_LEVEL": "loud"}), "'loud' is not one of"),
    ],
    ids=["no command", "no python", "no wheel", "no agent", "no such option"],
)
async def test_what_the_sandbox_says_to_a_boot_that_fails_is_told(tmp_path: Path, server: Server, said: str) -> None:
    async with machine_in(tmp_path) as machine:
        with pytest.raises(ProviderError) as caught:
            await boot(machine, server, TOKEN)
        assert said in str(caught.value)
        assert TOKEN not in str(caught.value)
        assert machine.servers() == []


async def test_two_who_ensure_a_server_at_once_start_one(tmp_path: Path) -> None:
    async with machine_in(tmp_path) as machine:
        server = server_of()
        await boot(machine, server, TOKEN)
        (pid,) = machine.servers()
        os.kill(pid, signal.SIGKILL)
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(ensure, machine, server)
        assert len(machine.servers()) == 1
