"""What is stored for a directory: every entry comes back, and no crash, other process or odd file costs one."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_actors.directory_config import (
    MCP,
    SKILLS,
    ConfigInaccessible,
    ConfigLocked,
    DirectoryConfig,
    InvalidConfigFile,
)
from sandbox_actors.directory_config.file import LARGEST
from sandbox_actors.errors import ConfigNotFound, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio.testing import MockClock

    from sandbox_actors.directory_config import McpServer

LIMIT = 20.0


def server(**more: object) -> McpServer:
    return MCP.parse({"type": "local", "command": "npx", **more})


def config_file(directory: Path, name: str = "mcp.json") -> Path:
    return directory / ".sandbox-agent" / "config" / name


def as_json(entry: object) -> Any:
    return json.loads(msgspec.json.encode(entry))


@pytest.fixture
def config() -> DirectoryConfig:
    return DirectoryConfig({})


texts = st.text(max_size=8)
mappings = st.dictionaries(texts, texts, max_size=3)
common = {"enabled": st.booleans(), "timeoutMs": st.integers(0, 2**63 - 1)}
entries = st.fixed_dictionaries(
    {"type": st.just("local"), "command": texts | st.lists(texts, max_size=3), "args": st.lists(texts, max_size=3)},
    optional={"env": mappings, "cwd": texts, **common},
) | st.fixed_dictionaries(
    {"type": st.just("remote"), "url": texts},
    optional={
        "headers": mappings,
        "envHeaders": mappings,
        "bearerTokenEnvVar": texts,
        "oauth": st.booleans() | st.fixed_dictionaries({}, optional={"clientId": texts, "scope": texts}),
        "transport": st.sampled_from(["http", "sse"]),
        **common,
    },
)


@settings(max_examples=25)
@given(st.dictionaries(st.text(min_size=1), entries, max_size=4))
async def test_whatever_is_stored_comes_back_under_its_name(servers: dict[str, Any]) -> None:
    config = DirectoryConfig({})
    with tempfile.TemporaryDirectory() as directory:
        for name, entry in servers.items():
            await config.put(MCP, directory, name, MCP.parse(entry))
        found = await DirectoryConfig({}).entries(MCP, directory)
        assert as_json(found) == servers
        assert list(found) == sorted(servers)
        for name in servers:
            await config.delete(MCP, directory, name)
            with pytest.raises(ConfigNotFound):
                await config.get(MCP, directory, name)
        assert await config.entries(MCP, directory) == {}


async def test_the_file_is_one_that_people_can_read_and_others_cannot(config: DirectoryConfig, tmp_path: Path) -> None:
    directory = tmp_path / "made" / "for it"
    await config.put(MCP, str(directory), "b", server())
    await config.put(MCP, str(directory), "a", server(args=["-y"]))
    await config.put(SKILLS, str(directory), "a", SKILLS.parse({"sources": []}))
    file = config_file(directory)
    assert file.read_text() == (
        '{\n  "a": {\n    "type": "local",\n    "command": "npx",\n    "args": [\n      "-y"\n    ]\n  },\n'
        '  "b": {\n    "type": "local",\n    "command": "npx",\n    "args": []\n  }\n}\n'
    )
    assert {stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {0o600}
    made = [file.parent, file.parent.parent, directory, directory.parent]
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {0o700}
    locks = {".mcp.json.lock", ".skills.json.lock"}
    assert {path.name for path in file.parent.iterdir()} == {"mcp.json", "skills.json"} | locks


async def test_looking_and_deleting_make_nothing(config: DirectoryConfig, tmp_path: Path) -> None:
    assert await config.entries(MCP, str(tmp_path)) == {}
    await config.delete(SKILLS, str(tmp_path), "x")
    await config.delete(MCP, str(tmp_path / "nowhere"), "x")
    with pytest.raises(ConfigNotFound, match="session not found: skills:x"):
        await config.get(SKILLS, str(tmp_path), "x")
    assert os.listdir(tmp_path) == []


async def test_a_relative_directory_is_below_home_and_does_not_lead_out_of_it(tmp_path: Path) -> None:
    config = DirectoryConfig({"HOME": str(tmp_path)})
    await config.put(MCP, "./project/.", "x", server())
    assert config_file(tmp_path / "project").exists()
    for directory in ("..", "project/../..", "../x"):
        with pytest.raises(InvalidRequest, match="invalid relative path"):
            await config.get(MCP, directory, "x")
    assert await config.get(MCP, f"{tmp_path}/project/../project", "x") == server()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "malformed|truncated"),
        ("{", "truncated"),
        ("[]", "Expected `object`"),
        ('{"good":{"type":"local","command":"x"},"bad":{"command":"x"}}', "entry 'bad': .*`type`"),
        ('{"bad":7}', "entry 'bad': Expected `object`"),
        ('{"bad":' + "[" * 100_000, "nested too deeply|truncated"),
        ('{"bad":' + "[" * 5_000 + "]" * 5_000 + "}", "nested too deeply"),
        (b'{"bad":{"type":"local","command":"\xff"}}', ""),
        ('{"bad":{"type":"local","command":"\\ud800"}}', ""),
        (b" " * (LARGEST + 1), "larger than"),
    ],
    ids=range(10),
)
async def test_a_broken_file_is_told_and_left_alone(
    config: DirectoryConfig, tmp_path: Path, text: str | bytes, reason: str
) -> None:
    file = config_file(tmp_path)
    file.parent.mkdir(parents=True)
    broken = text.encode() if isinstance(text, str) else text
    file.write_bytes(broken)
    directory = str(tmp_path)
    with pytest.raises(InvalidConfigFile, match=f"(?s)invalid config file {file}: .*({reason})"):
        await config.get(MCP, directory, "good")
    with pytest.raises(InvalidConfigFile):
        await config.put(MCP, directory, "good", server())
    with pytest.raises(InvalidConfigFile):
        await config.delete(MCP, directory, "good")
    assert file.read_bytes() == broken
    assert not file.with_name(".mcp.json.new").exists()


@pytest.mark.parametrize("kind", ["fifo", "device", "fifo behind a link"])
async def test_what_is_no_file_holds_nobody_up(config: DirectoryConfig, tmp_path: Path, kind: str) -> None:
    file = config_file(tmp_path)
    file.parent.mkdir(parents=True)
    match kind:
        case "fifo":
            os.mkfifo(file)
        case "device":
            file.symlink_to("/dev/zero")
        case _:
            os.mkfifo(tmp_path / "fifo")
            file.symlink_to(tmp_path / "fifo")
    with trio.fail_after(LIMIT):
        with pytest.raises(InvalidConfigFile, match="not a regular file"):
            await config.entries(MCP, str(tmp_path))
        with pytest.raises(InvalidConfigFile, match="not a regular file"):
            await config.put(MCP, str(tmp_path), "x", server())
    assert not stat.S_ISREG(file.stat().st_mode)


async def test_what_the_operating_system_says_is_handed_on(config: DirectoryConfig, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for directory, reason in [
        ("/proc", "No such file or directory"),
        ("/proc/self/nothing", "No such file or directory"),
        (f"{tmp_path}/file", "File exists"),
        (f"{tmp_path}/{'x' * 300}", "File name too long"),
        (f"{tmp_path}/\0", "Invalid argument"),
    ]:
        with pytest.raises(ConfigInaccessible, match=rf"^{reason} \(os error \d+\)"):
            await config.put(MCP, directory, "x", server())
    config_file(tmp_path).mkdir(parents=True)
    with pytest.raises(ConfigInaccessible, match="Is a directory"):
        await config.entries(MCP, str(tmp_path))


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A directory that takes no writes; root needs a file system of its own for that."""
    if os.geteuid() != 0:
        tmp_path.chmod(0o500)
        yield tmp_path
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a file system here")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


async def test_a_directory_that_is_read_only_is_told(config: DirectoryConfig, read_only: Path) -> None:
    with pytest.raises(ConfigInaccessible, match=r"^(Permission denied|Read-only file system) \(os error \d+\)"):
        await config.put(MCP, str(read_only), "x", server())
    await config.delete(MCP, str(read_only), "x")
    assert await config.entries(MCP, str(read_only)) == {}


async def test_nothing_is_stored_that_could_not_be_read_again(config: DirectoryConfig, tmp_path: Path) -> None:
    await config.put(MCP, str(tmp_path), "x", server())
    with pytest.raises(InvalidRequest, match="larger than"):
        await config.put(MCP, str(tmp_path), "y", server(args=["x" * LARGEST]))
    assert list(await config.entries(MCP, str(tmp_path))) == ["x"]


# -- several writers


async def test_two_daemons_that_write_to_one_file_lose_nothing(tmp_path: Path) -> None:
    async def write(config: DirectoryConfig, name: str) -> None:
        await config.put(MCP, str(tmp_path), name, server(args=[name]))

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            for daemon in (DirectoryConfig({}), DirectoryConfig({})):
                for number in range(50):
                    nursery.start_soon(write, daemon, f"{id(daemon)} {number}")
    assert len(await DirectoryConfig({}).entries(MCP, str(tmp_path))) == 100


def hold_lock(directory: Path) -> int:
    """Lock the file as another process would; gives the descriptor that holds it."""
    file = config_file(directory)
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file.with_name(".mcp.json.lock"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return descriptor


async def test_a_change_waits_for_one_of_another_process(config: DirectoryConfig, tmp_path: Path) -> None:
    descriptor = hold_lock(tmp_path)
    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(config.put, MCP, str(tmp_path), "x", server())
            assert await config.entries(MCP, str(tmp_path)) == {}  # reading does not wait
            os.close(descriptor)
    assert await config.get(MCP, str(tmp_path), "x") == server()


async def test_another_process_that_does_not_let_go_is_told(
    config: DirectoryConfig, tmp_path: Path, autojump_clock: MockClock
) -> None:
    descriptor = hold_lock(tmp_path)
    with pytest.raises(ConfigLocked, match="another process"):
        await config.put(MCP, str(tmp_path), "x", server())
    os.close(descriptor)
    await config.put(MCP, str(tmp_path), "x", server())


async def test_whoever_gives_up_waiting_leaves_no_lock_behind(config: DirectoryConfig, tmp_path: Path) -> None:
    descriptor = hold_lock(tmp_path)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(config.put, MCP, str(tmp_path), "x", server())
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    os.close(descriptor)
    with trio.fail_after(LIMIT):
        await config.put(MCP, str(tmp_path), "y", server())
    assert "y" in await config.entries(MCP, str(tmp_path))


WRITER = """
import sys, trio
from sandbox_actors.directory_config import MCP, DirectoryConfig

async def main():
    config = DirectoryConfig({})
    number = 0
    while True:
        entry = MCP.parse({"type": "local", "command": "x" * 200_000, "args": [str(number)]})
        await config.put(MCP, sys.argv[1], str(number % 5), entry)
        print(flush=True)
        number += 1

trio.run(main)
"""


async def test_a_writer_that_is_killed_leaves_a_whole_file_and_no_lock(tmp_path: Path) -> None:
    config = DirectoryConfig({})
    await config.put(MCP, str(tmp_path), "kept", server())
    for changes in range(1, 6):
        with trio.fail_after(LIMIT):
            await write_until_killed(tmp_path, changes)
            assert "kept" in await config.entries(MCP, str(tmp_path))
    with trio.fail_after(LIMIT):
        await config.put(MCP, str(tmp_path), "last", server())
    assert {path.name for path in config_file(tmp_path).parent.iterdir()} == {"mcp.json", ".mcp.json.lock"}


async def write_until_killed(directory: Path, changes: int) -> None:
    """Have another process change a file again and again, and kill it somewhere in the next change."""
    command = [sys.executable, "-c", WRITER, str(directory)]
    writer = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    async with writer.stdout:
        try:
            for _ in range(changes):
                assert await writer.stdout.receive_some(1)
        finally:
            writer.kill()
            await writer.wait()
