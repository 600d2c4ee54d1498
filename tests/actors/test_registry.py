"""Registry documents: what of one is used, and what it means for the agents that we ship."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sandbox_actors.catalog import Agent, BadCatalog, Binary, Distribution, Npx, Uvx
from sandbox_actors.catalog.changes import Change, with_registry
from sandbox_actors.catalog.platforms import registry_platform
from sandbox_actors.catalog.registry import Entry, parse_registry
from sandbox_actors.catalog.sources import read_agents, registry_cache, shipped_agents

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sandbox_actors.catalog.registry import Registry

SHIPPED = shipped_agents()
HERE = registry_platform()
DIGEST = "ab" * 32


def document(*entries: object) -> bytes:
    return json.dumps({"version": "1.0.0", "agents": entries, "extensions": []}).encode()


def npx(id: str, package: str, version: str | None = None, **members: Any) -> dict[str, object]:
    entry: dict[str, object] = {"id": id, "name": id.title(), "distribution": {"npx": {"package": package, **members}}}
    return entry if version is None else {**entry, "version": version}


def binary(id: str, platform: str = HERE, **members: Any) -> dict[str, object]:
    build = {"archive": "https://mirror.example/a.tgz", "cmd": "./a", **members}
    return {"id": id, "version": "1.0.0", "distribution": {"binary": {platform: build}}}


def parsed(*entries: object) -> Registry:
    return parse_registry(document(*entries), "the document")


def reason(entry: object) -> str:
    registry = parsed(entry, npx("good", "good@1.0.0"))
    assert [each.id for each in registry.entries] == ["good"]  # the others stay
    (skipped,) = registry.skipped
    return skipped.reason


# -- a document


def test_what_we_do_not_know_of_an_entry_is_passed_over() -> None:
    entry = {
        **npx("bot", "@maker/bot@1.2.3", "1.2.3", args=["--acp"], env={"KEY": "v"}, future=[1]),
        "description": "A bot.",
        "authors": ["somebody"],
        "preview": True,
    }
    distribution = Distribution(npx=Npx("@maker/bot@1.2.3", ["--acp"], {"KEY": "v"}))
    assert parsed(entry).entries == (Entry("bot", "Bot", "1.2.3", "A bot.", distribution),)
    assert parsed(entry).skipped == ()


def test_an_entry_is_pinned_by_its_version_where_its_package_is_not() -> None:
    uvx = {"id": "snake", "version": "2.0", "distribution": {"uvx": {"package": "snake[acp]"}}}
    by_at = {"id": "adder", "version": "2.0", "distribution": {"uvx": {"package": "adder@3.0"}}}
    odd = npx("odd", "odd", "the newest one")
    told = {entry.id: entry.distribution for entry in parsed(npx("bot", "bot", "1.2.3"), uvx, by_at, odd).entries}
    assert told == {
        "bot": Distribution(npx=Npx("bot@1.2.3")),
        "snake": Distribution(uvx=Uvx("snake[acp]==2.0")),
        "adder": Distribution(uvx=Uvx("adder==3.0")),
        "odd": Distribution(npx=Npx("odd")),
    }


def test_of_many_builds_the_one_for_this_machine_is_taken() -> None:
    entry = binary("bot", sha256=DIGEST.upper())
    builds: Any = entry["distribution"]
    builds["binary"]["plan9-mips"] = {"archive": "nonsense", "cmd": "../.."}
    (taken,) = parsed(entry).entries
    expected = Binary("https://mirror.example/a.tgz", "./a", sha256=DIGEST)
    assert taken.distribution == Distribution(binary={HERE: expected})
    assert "only for plan9-mips" in reason(binary("bot", "plan9-mips"))


@pytest.mark.parametrize("id", ["", "Bot", "../bot", "a b", "-bot", "a/b", "x" * 65, "bot\n"])
def test_an_entry_with_a_bad_id_is_left_out(id: str) -> None:
    assert "its id must have lower case letters" in reason(npx(id, "bot@1"))


@pytest.mark.parametrize(
    "package",
    [
        "", "--global", "-g", "https://mirror.example/bot.tgz", "git+ssh://mirror.example/bot", "file:../bot", "../bot",
        "/tmp/bot", "maker/bot", "bot@npm:other@1", "bot@^1.0.0", "bot@>=1", "bot 1", "bot;id", "bot\nother", "$(id)",
        "@maker/../bot", "bot@", "bot@-1", "bot@file:x",
    ],
)  # fmt: skip
def test_a_package_that_is_more_than_a_name_and_a_version_is_left_out(package: str) -> None:
    assert reason(npx("bot", package)).endswith("no npm package")
    uvx = {"id": "bot", "distribution": {"uvx": {"package": package}}}
    assert reason(uvx).endswith("no PyPI package")


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"archive": "http://mirror.example/a.tgz"}, "archive must be a URL"),
        ({"archive": "javascript:alert(1)"}, "archive must be a URL"),
        ({"archive": "https://mirror.example/a\nb"}, "archive must be a URL"),
        ({"cmd": "../../bin/sh"}, "cmd must be a path within the archive"),
        ({"cmd": "/bin/sh"}, "cmd must be a path within the archive"),
        ({"sha256": "sha256:" + DIGEST}, "sha256 must have 64 hexadecimal digits"),
        ({"env": {"A B": "c"}}, "'A B' is no name of a variable"),
        ({"args": ["a\0b"]}, "NUL"),
        ({"args": "--acp"}, "Expected `array`, got `str`"),
    ],
)
def test_a_bad_archive_is_left_out(members: Mapping[str, Any], expected: str) -> None:
    assert expected in reason(binary("bot", **members))


@pytest.mark.parametrize("entry", [None, 7, "bot", [], {}, {"id": "bot"}, {"id": 7}, {"id": "bot", "distribution": {}}])
def test_what_is_no_entry_is_left_out(entry: object) -> None:
    assert reason(entry)


def test_an_entry_that_is_left_out_is_told_by_its_id_or_its_place() -> None:
    registry = parsed(npx("bot", "bot@1"), {"name": "?"}, npx("bot", "bot@2"), {"id": "x", "distribution": 1})
    assert [entry.id for entry in registry.entries] == ["bot"]
    assert [(each.entry, each.reason.partition(" - ")[0]) for each in registry.skipped] == [
        ("entry 1", "Object missing required field `id`"),
        ("bot", "there is another entry of this id before it"),
        ("x", "Expected `object`, got `int`"),
    ]


@pytest.mark.parametrize(
    "text", [b"", b"<html>", b"[]", b"7", b'{"agents": 7}', b"{}", b'{"agents": [', b"\xff", b"[" * 100_000]
)
def test_what_is_no_registry_document_is_refused(text: bytes) -> None:
    with pytest.raises(BadCatalog, match="the document is not valid: "):
        parse_registry(text, "the document")


# -- over the agents that we ship


def under(*entries: object) -> tuple[dict[str, Agent], list[Change]]:
    return with_registry(SHIPPED, parsed(*entries))


def test_an_agent_of_ours_is_moved_to_the_registrys_version() -> None:
    agents, changes = under(npx("claude-acp", "@agentclientprotocol/claude-agent-acp@0.120.0", "0.120.0"))
    before, claude = SHIPPED["claude"], agents["claude"]
    assert claude.distribution == Distribution(npx=Npx("@agentclientprotocol/claude-agent-acp@0.120.0"))
    assert (claude.version, claude.origin) == ("0.120.0", "registry")
    assert (claude.packages, claude.after_install, claude.env) == (before.packages, before.after_install, before.env)
    assert (claude.name, claude.description) == (before.name, before.description)
    assert list(agents) == list(SHIPPED)
    package = "@agentclientprotocol/claude-agent-acp"
    assert changes == [Change("repinned", "claude", "claude-acp", f"{package}@0.101.0", f"{package}@0.120.0")]


def test_arguments_and_variables_come_with_the_registrys_package() -> None:
    entry = npx("factory-droid", "droid@0.218.0", args=["exec", "--output-format", "acp-daemon"], env={"D": "1"})
    droid = under(entry)[0]["droid"]
    assert droid.distribution == Distribution(
        npx=Npx("droid@0.218.0", ["exec", "--output-format", "acp-daemon"], {"D": "1"})
    )
    assert droid.env == SHIPPED["droid"].env


def test_another_package_loses_what_we_know_of_the_inside_of_ours() -> None:
    agents, _ = under(npx("kilo", "kilo-next@9.0.0"), npx("opencode", "opencode-next@2.0.0"))
    assert (agents["kilo"].program, agents["kilo"].packages) == (None, [])
    assert agents["opencode"].after_install is None


def test_parts_of_a_package_go_along_with_it() -> None:
    kilo = under(npx("kilo", "@kilocode/cli@7.5.5", args=["acp"]))[0]["kilo"]
    assert kilo.packages == [package.replace("@7.7.7", "@7.5.5") for package in SHIPPED["kilo"].packages]
    assert kilo.program == "kilo"


def test_a_python_package_is_moved_like_any_other() -> None:
    entry = {"id": "kimi", "version": "1.8.0", "distribution": {"uvx": {"package": "kimi-cli==1.8.0", "args": ["acp"]}}}
    agents, (change,) = under(entry)
    assert agents["kimi"].distribution == Distribution(uvx=Uvx("kimi-cli==1.8.0", ["acp"]))
    assert (change.before, change.after) == ("kimi-cli==1.9.0", "kimi-cli==1.8.0")


def test_what_is_had_in_another_way_here_is_passed_over() -> None:
    agents, changes = under(binary("opencode"), npx("mock", "mock@1"), npx("claude-acp", "claude"), binary("kimi"))
    assert agents == SHIPPED
    assert [(change.kind, change.agent, change.reason) for change in changes] == [
        ("passed over", "opencode", "it is installed by npx, and the registry has binary only"),
        ("passed over", "mock", "nothing is installed for it"),
        ("passed over", "claude", "the registry names no version of it"),
        ("passed over", "kimi", "it is installed by uvx, and the registry has binary only"),
    ]


def test_of_two_entries_for_one_agent_the_first_counts() -> None:
    package = "@agentclientprotocol/claude-agent-acp"
    agents, changes = under(npx("claude-acp", f"{package}@0.120.0"), npx("claude-code-acp", f"{package}@0.9.0"))
    assert agents["claude"].version == "0.120.0"
    assert [(change.kind, change.reason) for change in changes] == [
        ("repinned", None),
        ("passed over", "its entry 'claude-acp' comes before"),
    ]


def test_what_is_as_it_was_is_told_so() -> None:
    agents, (change,) = under(npx("pi-acp", "pi-acp@0.0.34", "0.0.34"))
    assert (change.kind, agents) == ("same", SHIPPED)


def test_an_agent_that_we_do_not_know_becomes_one_of_its_own() -> None:
    entry = {**npx("bot", "bot", "1.2.3", args=["--acp"]), "description": "A bot."}
    agents, changes = under(entry, binary("tool", sha256=DIGEST))
    distribution = Distribution(npx=Npx("bot@1.2.3", ["--acp"]))
    assert agents["bot"] == Agent("bot", "Bot", "1.2.3", "A bot.", distribution, origin="registry")
    assert (agents["tool"].name, agents["tool"].version) == ("tool", "1.0.0")
    assert list(agents) == [*SHIPPED, "bot", "tool"]
    assert changes == [
        Change("added", "bot", "bot", after="bot@1.2.3"),
        Change("added", "tool", "tool", after="1.0.0"),
    ]


# -- the cached document


def test_the_cached_document_lies_between_ours_and_the_users_file(tmp_path: Path) -> None:
    cache = registry_cache(tmp_path)
    assert read_agents(None, cache) == SHIPPED
    cache.write_bytes(document(npx("pi-acp", "pi-acp@0.0.40"), npx("bot", "bot@1.0.0"), {"bad": 1}))
    file = tmp_path / "agents.toml"
    file.write_text('[agents.bot]\nversion = "2.0.0"')
    agents = read_agents(file, cache)
    assert (agents["pi"].version, agents["pi"].origin) == ("0.0.40", "registry")
    assert agents["bot"].distribution == Distribution(npx=Npx("bot@2.0.0"))
    assert (agents["bot"].name, agents["bot"].origin) == ("Bot", "file")


def test_a_damaged_cached_document_is_told_with_what_to_do(tmp_path: Path) -> None:
    cache = registry_cache(tmp_path)
    cache.write_bytes(b'{"agents": [')
    with pytest.raises(BadCatalog) as refused:
        read_agents(None, cache)
    assert str(refused.value).startswith(f"the registry document {cache} is not valid: ")
    assert str(refused.value).endswith("or run 'sandbox-agent agents refresh --clear'")
    cache.unlink()
    cache.mkdir()
    with pytest.raises(BadCatalog, match=r"cannot read the registry document .*: Is a directory"):
        read_agents(None, cache)
