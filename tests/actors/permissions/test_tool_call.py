"""What is read from an agent's account of a tool call: its command line, and every place that it may touch."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox_actors.permissions import Policy, Rule
from sandbox_actors.permissions.tool_call import DEPTH_LIMIT, ToolCall

CWD = "/code"


def given(kind: str = "execute", **members: Any) -> ToolCall:
    return ToolCall.of({"kind": kind, "title": "a tool", "rawInput": members})


def allowed(call: ToolCall, **rule: Any) -> bool:
    return Policy(rules=(Rule("allow", **rule),)).decide(call, CWD).decision == "allow"


def denied(call: ToolCall, **rule: Any) -> bool:
    return Policy(rules=(Rule("deny", **rule),)).decide(call, CWD).decision == "deny"


@pytest.mark.parametrize("shell", ["bash", "sh", "/bin/bash", "/usr/bin/zsh"])
def test_a_shell_of_the_system_runs_the_script_that_it_is_given(shell: str) -> None:
    assert given(command=[shell, "-lc", "git status"]).command_line == "git status"


@pytest.mark.parametrize("shell", ["./bash", "/tmp/bash", "bin/sh", "/bin/../tmp/bash", "/usr/local/bin/bash", "BASH"])
def test_a_program_with_the_name_of_a_shell_is_none(shell: str) -> None:
    call = given(command=[shell, "-c", "git status"])
    assert call.command_line == f"{shell} -c 'git status'"
    assert not allowed(call, command="git *")


@pytest.mark.parametrize(
    "more",
    [
        {"env": {"PATH": "/tmp"}},
        {"environment": ["PATH=/tmp"]},
        {"stdin": "rm -rf /"},
        {"args": "; rm -rf /"},
        {"args": ["-C", {"x": 1}]},
        {"args": {"x": 1}},
        {"cmd": "rm -rf /"},
    ],
)
def test_a_command_that_depends_on_more_than_its_line_fits_no_allow_rule(more: dict[str, Any]) -> None:
    call = given(command="git status", **more)
    assert not call.sure
    assert not allowed(call, command="git *")
    assert not allowed(call, command="*")
    assert denied(call, command="git *")


@pytest.mark.parametrize(
    "more", [{}, {"env": {}, "environment": None, "stdin": ""}, {"args": []}, {"args": None}, {"args": ["a"]}]
)
def test_what_says_nothing_more_is_sure(more: dict[str, Any]) -> None:
    assert allowed(given(command="git status", **more), command="git *")


@pytest.mark.parametrize(
    "members",
    [
        {"command": "git", "cmd": "rm -rf /"},
        {"command": ["git", 1], "cmd": ["rm", "-rf", "/"]},
        {"command": "sudo", "args": "rm -rf /"},
        {"command": ["sudo"], "args": ["rm", "-rf", "/"]},
        {"command": {"program": 1}, "cmd": "rm -rf /"},
    ],
)
def test_a_deny_rule_sees_all_that_may_be_run(members: dict[str, Any]) -> None:
    assert denied(given(**members), command="rm -rf /")


def test_a_command_that_cannot_be_read_is_one_all_the_same() -> None:
    call = given("read", command=["cat", 1])
    assert Policy("allow_reads").decide(call, CWD).decision == "ask"
    assert not allowed(given("execute", command=["cat", 1]), command="*")


@pytest.mark.parametrize(
    "members",
    [
        {"to": "/etc/a"},
        {"from": "/etc/a"},
        {"output": "/etc/a"},
        {"out": "/etc/a"},
        {"root": "/etc/a"},
        {"path2": "/etc/a"},
        {"file_path_2": "/etc/a"},
        {"copy_to": "/etc/a"},
        {"moveTo": "/etc/a"},
        {"projectRoot": "/etc/a"},
        {"directories": ["/etc/a"]},
        {"PATHS": ["/etc/a"]},
        {"the\npath": "/etc/a"},
        {"paths": [["/etc/a"]]},
        {"paths": {"first": {"second": "/etc/a"}}},
        {"files": [{"name": "/etc/a", "mode": 1}]},
        {"files": {"/etc/a": "text"}},
        {"path": {"text": "/etc/a"}},
    ],
)
def test_places_are_found_at_any_depth_under_keys_that_are_named_like_one(members: dict[str, Any]) -> None:
    assert "/etc/a" in given("edit", **members).places(CWD)
    assert denied(given("edit", **members), path="/etc/**")
    assert not allowed(given("edit", path="src/a", inner=members), path="src/**")


@pytest.mark.parametrize(
    "members",
    [
        {"anything": "/etc/a"},
        {"anything": "~/a"},
        {"anything": "../a"},
        {"anything": ".."},
        {"anything": "file:///etc/a"},
        {"anything": "file:/etc/a"},
        {"anything": "FILE:a"},
        {"a": [{"b": {"c": ["x", "/etc/a"]}}]},
        {"a": {"/etc/a": 1}},
        {"content": [{"anything": "/etc/a"}]},
        {"inner": {"cwd": "/etc"}},
    ],
)
@pytest.mark.parametrize("pattern", ["src/**", "**"])
def test_what_looks_like_a_place_counts_for_rules_that_allow(members: dict[str, Any], pattern: str) -> None:
    assert allowed(given("edit", path="src/a"), path=pattern)
    assert not allowed(given("edit", path="src/a", **members), path=pattern)
    assert not allowed(given("edit", **members), path="/**")


@pytest.mark.parametrize(
    "members",
    [
        {"content": "/* a comment */"},
        {"old_string": "/a", "new_string": "~b"},
        {"edits": [{"oldText": "../a", "newText": "/b"}]},
        {"text": ["/a", "/b"]},
        {"new_source": "/a"},
        {"description": "/a"},
        {"anything": "/code/src/b"},
        {"timeout": "10"},
        {"files": [{"path": "src/b", "content": "a text"}]},
    ],
)
def test_texts_are_no_places(members: dict[str, Any]) -> None:
    assert allowed(given("edit", path="src/a", **members), path="src/**")


def test_what_looks_like_a_place_is_none_for_a_rule_that_has_no_other() -> None:
    assert not allowed(given("edit", anything="/code/src/a"), path="src/**")


def test_the_place_of_a_program_is_none_that_it_touches() -> None:
    call = given(command=["/bin/bash", "-lc", "cat a"], path="src/a")
    assert allowed(call, path="src/**", command="cat *")


def test_what_is_too_deep_fits_no_rule_that_allows() -> None:
    value: Any = "/etc/a"
    for _ in range(DEPTH_LIMIT + 1):
        value = {"x": value}
    assert not allowed(given("edit", path="src/a", deep=value), path="src/**")
