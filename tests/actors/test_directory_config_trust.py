"""What was stored here is used in sessions; what came into a directory otherwise is not, and that is told."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_actors.directory_config import MCP, SKILLS, DirectoryConfig, InvalidConfigFile, stored_servers
from sandbox_actors.directory_config.servers import FOREIGN_TOLD
from sandbox_actors.directory_config.trust import Sealer, read_seals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox_actors.directory_config import StoredServers

LIMIT = 30.0

LOCAL = {"type": "local", "command": "npx", "args": ["-y", "server"]}
REMOTE = {"type": "remote", "url": "http://127.0.0.1:9/", "envHeaders": {"X-Key": "KEY"}, "bearerTokenEnvVar": "KEY"}
SECRET = "canary-in-no-notice"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    project.mkdir()
    return project


@pytest.fixture
def config(project: Path) -> DirectoryConfig:
    return DirectoryConfig({"KEY": SECRET}, key_of(project))


def key_of(project: Path) -> Path:
    return project.with_name("data") / "directory-config.key"


def config_file(directory: Path) -> Path:
    return directory / ".sandbox-agent" / "config" / "mcp.json"


def seals_of(directory: Path) -> Path:
    return config_file(directory).with_name(".mcp.json.mac")


def write_by_hand(directory: Path, entries: Mapping[str, object]) -> None:
    """Have entries in the file that nobody stored through us, as a cloned repository has."""
    file = config_file(directory)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(entries))


async def put(config: DirectoryConfig, directory: Path, **entries: object) -> None:
    for name, entry in entries.items():
        await config.put(MCP, str(directory), name, MCP.parse(entry))


async def opened(config: DirectoryConfig, directory: Path | str) -> StoredServers:
    """What a session in the directory gets and does not get."""
    stored = await stored_servers(config, "session/new", {"cwd": str(directory)})
    assert stored is not None
    return stored


async def used(config: DirectoryConfig, directory: Path | str) -> list[str]:
    """The servers that a session in the directory gets."""
    return [server.name for server in (await opened(config, directory)).servers]


async def refused(config: DirectoryConfig, directory: Path | str) -> list[str | None]:
    """The servers that it does not get since nobody stored them here."""
    skipped = (await opened(config, directory)).skipped
    assert {one.reason for one in skipped} <= {"not_trusted"}
    return [one.server for one in skipped]


# -- what came along with the directory


async def test_what_a_repository_brings_along_starts_nothing_and_sends_nothing(
    config: DirectoryConfig, project: Path
) -> None:
    write_by_hand(project, {"tool": LOCAL, "site": REMOTE, "off": {**LOCAL, "enabled": False}})
    with structlog.testing.capture_logs() as logs:
        stored = await opened(config, project)
    assert stored.servers == ()
    assert [(one.server, one.reason) for one in stored.skipped] == [("tool", "not_trusted"), ("site", "not_trusted")]
    for one in stored.skipped:
        assert str(config_file(project)) in one.message
        assert "PUT /v1/config/mcp" in one.message
        assert "--trust-directory-config" in one.message
    assert [event["server"] for event in logs] == ["tool", "site"]
    assert SECRET not in f"{stored} {logs}"
    assert not key_of(project).exists()
    assert await config.get(MCP, str(project), "tool") == MCP.parse(LOCAL)


async def test_many_that_came_along_are_told_in_few_words(config: DirectoryConfig, project: Path) -> None:
    write_by_hand(project, {f"s{number}": LOCAL for number in range(5_000)})
    skipped = (await opened(config, project)).skipped
    assert len(skipped) == FOREIGN_TOLD + 1
    assert skipped[-1].server is None
    assert skipped[-1].message.startswith(f"{5_000 - FOREIGN_TOLD} more: ")


async def test_what_came_along_is_used_once_it_is_stored_and_nothing_else_with_it(
    config: DirectoryConfig, project: Path
) -> None:
    write_by_hand(project, {"tool": LOCAL, "site": REMOTE})
    await put(config, project, own=LOCAL)
    assert (await used(config, project), await refused(config, project)) == (["own"], ["site", "tool"])
    await put(config, project, site=REMOTE)
    assert (await used(config, project), await refused(config, project)) == (["own", "site"], ["tool"])
    await config.delete(MCP, str(project), "own")
    assert (await used(config, project), await refused(config, project)) == (["site"], ["tool"])
    await config.delete(MCP, str(project), "tool")
    assert (await used(config, project), await refused(config, project)) == (["site"], [])


async def test_with_the_option_everything_is_used(project: Path) -> None:
    write_by_hand(project, {"tool": LOCAL, "site": REMOTE})
    config = DirectoryConfig({"KEY": SECRET}, key_of(project), trusting=True)
    assert (await used(config, project), await refused(config, project)) == (["tool", "site"], [])
    await put(config, project, own=LOCAL)
    untrusting = DirectoryConfig({"KEY": SECRET}, key_of(project))
    assert (await used(untrusting, project), await refused(untrusting, project)) == (["own"], ["site", "tool"])


async def test_nothing_is_used_where_there_is_no_key_to_tell_it_by(project: Path) -> None:
    config = DirectoryConfig({})
    await put(config, project, tool=LOCAL)
    assert (await used(config, project), await refused(config, project)) == ([], ["tool"])


# -- what was stored and is not what was stored any more

TAMPERED: Mapping[str, Mapping[str, object]] = {
    "another command": {**LOCAL, "command": "sh"},
    "another argument": {**LOCAL, "args": ["-y", "server", "x"]},
    "one more variable": {**LOCAL, "env": {"PATH": "."}},
    "another folder": {**LOCAL, "cwd": "bin"},
    "another kind": REMOTE,
}


@pytest.mark.parametrize("tampered", TAMPERED.values(), ids=TAMPERED)
async def test_an_entry_that_was_changed_by_hand_is_not_used(
    config: DirectoryConfig, project: Path, tampered: Mapping[str, object]
) -> None:
    await put(config, project, tool=LOCAL, kept=LOCAL)
    write_by_hand(project, {"tool": tampered, "kept": LOCAL})
    assert (await used(config, project), await refused(config, project)) == (["kept"], ["tool"])


async def test_a_file_that_only_looks_different_is_used(config: DirectoryConfig, project: Path) -> None:
    await put(config, project, tool=LOCAL, site=REMOTE)
    entries = json.loads(config_file(project).read_text())
    write_by_hand(project, {name: {**dict(reversed(entries[name].items())), "comment": 1} for name in sorted(entries)})
    assert (await used(config, project), await refused(config, project)) == (["site", "tool"], [])


async def test_an_entry_under_another_name_is_not_used(config: DirectoryConfig, project: Path) -> None:
    await put(config, project, tool=LOCAL)
    (seals,) = json.loads(seals_of(project).read_text()).values()
    seals_of(project).write_text(json.dumps({"tool": seals, "other": seals}))
    write_by_hand(project, {"tool": LOCAL, "other": LOCAL})
    assert (await used(config, project), await refused(config, project)) == (["tool"], ["other"])


async def test_a_copied_or_moved_directory_is_not_trusted(config: DirectoryConfig, project: Path) -> None:
    await put(config, project, tool=LOCAL)
    copy = project.with_name("copy")
    shutil.copytree(project, copy, symlinks=True)
    assert (await used(config, copy), await refused(config, copy)) == ([], ["tool"])
    assert await used(config, project) == ["tool"]
    moved = Path(shutil.move(project, project.with_name("moved")))
    assert (await used(config, moved), await refused(config, moved)) == ([], ["tool"])


async def test_a_directory_is_the_same_under_every_path_that_leads_to_it(
    config: DirectoryConfig, project: Path
) -> None:
    link = project.with_name("link")
    link.symlink_to(project)
    await put(config, link, tool=LOCAL)
    for path in (project, link, f"{project}/", f"{project}/../link/."):
        assert await used(config, path) == ["tool"]


@pytest.mark.parametrize("below", [".sandbox-agent", ".sandbox-agent/config", ".sandbox-agent/config/mcp.json"])
async def test_a_link_to_what_is_stored_for_another_directory_is_not_trusted(
    config: DirectoryConfig, project: Path, below: str
) -> None:
    other = project.with_name("other")
    await put(config, other, tool=LOCAL)
    (project / below).parent.mkdir(parents=True, exist_ok=True)
    (project / below).symlink_to(other / below)
    if below.endswith(".json"):
        seals_of(project).symlink_to(seals_of(other))
    assert (await used(config, project), await refused(config, project)) == ([], ["tool"])
    assert await used(config, other) == ["tool"]


SENSELESS = ["", "{", "[]", '{"tool":"x"}', '{"tool":[]}', '{"tool":["eA=="]}', '{"tool":[7]}', "[" * 100_000, "fifo"]


@pytest.mark.parametrize("text", SENSELESS, ids=range(len(SENSELESS)))
async def test_seals_that_make_no_sense_vouch_for_nothing_and_are_replaced(
    config: DirectoryConfig, project: Path, text: str
) -> None:
    await put(config, project, tool=LOCAL)
    if text == "fifo":
        seals_of(project).unlink()
        os.mkfifo(seals_of(project))
    else:
        seals_of(project).write_text(text)
    assert (await used(config, project), await refused(config, project)) == ([], ["tool"])
    await put(config, project, tool=LOCAL)
    assert await used(config, project) == ["tool"]


async def test_what_is_deleted_has_no_seal_any_more(config: DirectoryConfig, project: Path) -> None:
    await put(config, project, tool=LOCAL)
    before = config_file(project).read_bytes()
    await config.delete(MCP, str(project), "tool")
    config_file(project).write_bytes(before)
    assert await refused(config, project) == ["tool"]


# -- the key


async def test_key_and_seals_are_made_when_they_are_needed_and_for_nobody_else_to_read(
    config: DirectoryConfig, project: Path
) -> None:
    await config.delete(MCP, str(project), "tool")
    await config.put(SKILLS, str(project), "x", SKILLS.parse({"sources": []}))
    await opened(config, project)
    assert not key_of(project).exists()
    previous = os.umask(0)
    try:
        await put(config, project, tool=LOCAL)
    finally:
        os.umask(previous)
    assert len(key_of(project).read_bytes()) == 32
    for file in (key_of(project), seals_of(project)):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not config_file(project).with_name(".skills.json.mac").exists()
    assert key_of(project).read_bytes() not in seals_of(project).read_bytes()


async def test_daemons_of_one_data_directory_trust_each_other_also_when_both_begin(project: Path) -> None:
    daemons = [DirectoryConfig({}, key_of(project)) for _ in range(8)]
    async with trio.open_nursery() as nursery:
        for number, daemon in enumerate(daemons):
            nursery.start_soon(daemon.put, MCP, str(project), f"s{number}", MCP.parse(LOCAL))
    for daemon in daemons:
        assert len(await used(daemon, project)) == len(daemons)


async def test_two_data_directories_that_share_a_directory_leave_each_other_their_seals(
    config: DirectoryConfig, project: Path, tmp_path: Path
) -> None:
    other = DirectoryConfig({}, tmp_path / "other data" / "directory-config.key")
    await put(config, project, tool=LOCAL, both=LOCAL)
    await put(other, project, both=LOCAL, theirs=LOCAL)
    assert await used(config, project) == ["tool"]
    assert await used(other, project) == ["both", "theirs"]


@pytest.mark.parametrize("key", [None, b"", b"short", b"x" * 32, b"x" * 33])
async def test_without_its_key_nothing_is_trusted_until_it_is_stored_again(
    config: DirectoryConfig, project: Path, key: bytes | None
) -> None:
    await put(config, project, tool=LOCAL, other=LOCAL)
    key_of(project).unlink()
    if key is not None:
        key_of(project).write_bytes(key)
    assert (await used(config, project), await refused(config, project)) == ([], ["other", "tool"])
    await put(config, project, tool=LOCAL)
    assert (await used(config, project), await refused(config, project)) == (["tool"], ["other"])


async def test_a_key_that_cannot_be_read_is_told(config: DirectoryConfig, project: Path) -> None:
    await put(config, project, tool=LOCAL)
    key_of(project).unlink()
    os.mkfifo(key_of(project))
    (one,) = (await opened(config, project)).skipped
    assert (one.server, one.reason) == (None, "config_unreadable")
    assert str(key_of(project)) in one.message
    with pytest.raises(InvalidConfigFile, match="not a regular file"):
        await put(config, project, other=LOCAL)


# -- in the middle of a change

texts = st.text(max_size=5)
entries = st.fixed_dictionaries(
    {"type": st.just("local"), "command": texts | st.lists(texts, max_size=3)},
    optional={"env": st.dictionaries(texts, texts, max_size=3), "enabled": st.none() | st.booleans(), "cwd": texts},
) | st.fixed_dictionaries(
    {"type": st.just("remote"), "url": texts},
    optional={"headers": st.dictionaries(texts, texts, max_size=3), "oauth": st.booleans() | st.just({"scope": "x"})},
)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | entries), max_size=6))
async def test_whatever_is_stored_is_trusted(changes: list[tuple[str, dict[str, Any] | None]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = f"{folder}/project"
        config = DirectoryConfig({}, Path(folder) / "key")
        for name, entry in changes:
            if entry is None:
                await config.delete(MCP, directory, name)
            else:
                await config.put(MCP, directory, name, MCP.parse(entry))
        found = await config.vetted(MCP, directory)
        assert found.foreign == {}
        assert found.stored == await config.entries(MCP, directory)
        assert set(read_seals(config_file(Path(directory)))) == set(found.stored)


def test_at_every_step_of_a_change_the_seals_fit_what_is_in_the_file_and_nothing_foreign(project: Path) -> None:
    sealer = Sealer.of(b"k" * 32, config_file(project))
    old, new = {"x": "old", "y": "y", "foreign": "f"}, {"x": "new", "y": "y", "foreign": "f"}
    first, _ = sealer.change({}, {}, {"y": "y"}, "y")
    _, before = sealer.change(first, {"y": "y"}, old, "x")
    meanwhile, after = sealer.change(before, old, new, "x")
    for file, seals in [(old, before), (old, meanwhile), (new, meanwhile), (new, after)]:
        assert sealer.vet(file, seals).foreign == {"foreign": "f"}
    assert set(sealer.vet(old, after).stored) == {"y"}
    # One that was foreign does not become trusted before it is replaced.
    meanwhile, after = sealer.change(before, old, {**old, "foreign": "mine"}, "foreign")
    assert set(sealer.vet(old, meanwhile).stored) == {"x", "y"}
    assert sealer.vet({**old, "foreign": "mine"}, after).foreign == {}


async def test_a_session_that_is_opened_during_a_change_gets_the_server_as_it_was_or_as_it_is(
    config: DirectoryConfig, project: Path
) -> None:
    await put(config, project, tool=LOCAL)
    done = trio.Event()
    looks = 0

    async def write() -> None:
        for number in range(40):
            await put(config, project, tool={**LOCAL, "args": [str(number)]})
        done.set()

    with trio.fail_after(LIMIT):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            while not done.is_set():
                looks += 1
                assert await refused(config, project) == []
    assert looks > 1


WRITER = """
import sys, trio
from pathlib import Path
from sandbox_actors.directory_config import MCP, DirectoryConfig

async def main():
    config = DirectoryConfig({}, Path(sys.argv[2]))
    number = 0
    while True:
        entry = MCP.parse({"type": "local", "command": "put", "args": [str(number)]})
        await config.put(MCP, sys.argv[1], str(number % 2), entry)
        print(flush=True)
        number += 1

trio.run(main)
"""


async def test_a_writer_that_is_killed_leaves_trusted_what_was_stored_and_nothing_else(
    config: DirectoryConfig, project: Path
) -> None:
    write_by_hand(project, {"foreign": LOCAL})
    with trio.fail_after(2 * LIMIT):
        for changes in range(1, 6):
            await write_until_killed(project, key_of(project), changes)
            found = await config.vetted(MCP, str(project))
            assert set(found.foreign) == {"foreign"}
            assert {getattr(entry, "command", None) for entry in found.stored.values()} == {"put"}
        await put(config, project, last=LOCAL)
        assert (await used(config, project))[-1] == "last"


async def write_until_killed(directory: Path, key_file: Path, changes: int) -> None:
    """Have another process change entries again and again, and kill it somewhere in the next change."""
    command = [sys.executable, "-c", WRITER, str(directory), str(key_file)]
    writer = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    assert writer.stdout is not None
    async with writer.stdout:
        try:
            for _ in range(changes):
                assert await writer.stdout.receive_some(1)
        finally:
            writer.kill()
            await writer.wait()
