"""Command lines as rules that forbid read them: however a command is written, it is found."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_actors.permissions import Policy, Rule
from sandbox_actors.permissions.command_line import LEADING_LIMIT, commands_of
from sandbox_actors.permissions.tool_call import ToolCall


def denied(line: str, pattern: str) -> bool:
    call = ToolCall.of({"kind": "execute", "rawInput": {"command": line}})
    return Policy("allow_all", (Rule("deny", command=pattern),)).decide(call, "/code").decision == "deny"


@pytest.mark.parametrize(
    "line",
    [
        "rm   -rf /",
        "rm\t-rf /",
        "rm \\\n-rf /",
        "r\\\nm -rf /",
        "'rm' -rf /",
        '"rm" -rf /',
        "r''m -rf /",
        "r\\m -rf /",
        "\\rm -rf /",
        "rm '-rf' \"/\"",
        "/bin/rm -rf /",
        "'/bin/rm' -rf /",
        "../../bin/rm -rf /",
        "! rm -rf /",
        "if true; then rm -rf /; fi",
        "if rm -rf /; then true; fi",
        "for a in b; do rm -rf /; done",
        "if false; then true; else rm -rf /; fi",
        "sudo rm -rf /",
        "sudo -n rm -rf /",
        "/usr/bin/sudo rm -rf /",
        "env A=b rm -rf /",
        "exec rm -rf /",
        "command rm -rf /",
        "nohup time rm -rf /",
        "A=b rm -rf /",
        "A='b c' rm -rf /",
        "A=\"b c\" B='d e' rm -rf /",
        'A="b; c" rm -rf /',
        'A="b\\"; c" rm -rf /',
        "A=b\\ c rm -rf /",
        "A='b c' sudo B='d e' /bin/rm -rf /",
        "bash -c 'rm -rf /'",
        "/tmp/bash -lc 'rm -rf /'",
        "sudo " * (LEADING_LIMIT * 2) + "rm -rf /",
    ],
)
def test_a_deny_rule_fits_a_command_however_it_is_written(line: str) -> None:
    assert denied(line, "rm -rf /")
    assert denied(f"true && {line}", "rm -rf /")


@pytest.mark.parametrize("line", ["echo rm -rf /", "rmdir /", "git rm -rf /", "charm -rf /", "A=rm -rf /"])
def test_a_deny_rule_does_not_fit_another_command(line: str) -> None:
    assert not denied(line, "rm -rf /")


def test_a_deny_rule_fits_what_leads_to_a_command_too() -> None:
    assert denied("sudo rm a", "sudo *")
    assert denied("env sudo rm a", "sudo *")
    assert denied("A=b git commit -m 'a  b'", "git commit -m 'a  b'")


@given(st.text(alphabet="\"'\\ =;$(){}|\nabrm/-", max_size=60))
def test_every_line_can_be_read(line: str) -> None:
    assert all(commands_of(line))


@pytest.mark.parametrize("piece", ['"', "'", "\\", '\\"', "a=", "a='", "sudo ", ";", "a='b' ", "=", "'\""])
def test_long_lines_take_little_time(piece: str) -> None:
    began = time.process_time()
    commands_of(piece * (100_000 // len(piece)))
    assert time.process_time() - began < 5  # anything that is not about linear takes minutes
