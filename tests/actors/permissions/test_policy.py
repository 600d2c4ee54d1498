"""The rules of a policy: what they decide, and what never gets past them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from sandbox_actors.permissions import Policy, Preset, Rule, policy_of
from sandbox_actors.permissions.policy import PATTERN_LIMIT, RULES_LIMIT
from sandbox_actors.permissions.tool_call import ToolCall

CWD = "/code/project"

KINDS = ("read", "edit", "delete", "move", "search", "execute", "think", "fetch", "switch_mode", "other")


def command(line: str) -> ToolCall:
    return ToolCall.of({"kind": "execute", "title": "a command", "rawInput": {"command": line}})


def touching(*paths: str, kind: str = "edit", **more: Any) -> ToolCall:
    return ToolCall.of({"kind": kind, "title": "a file", "locations": [{"path": path} for path in paths], **more})


def decided(call: ToolCall, *rules: Rule, default: Preset = "ask") -> str:
    return Policy(default, rules).decide(call, CWD).decision


def allowed(call: ToolCall, **rule: Any) -> bool:
    return decided(call, Rule("allow", **rule)) == "allow"


def denied(call: ToolCall, **rule: Any) -> bool:
    return decided(call, Rule("deny", **rule)) == "deny"


@pytest.mark.parametrize("kind", KINDS)
def test_the_presets_decide_by_kind_alone(kind: str) -> None:
    call = ToolCall.of({"kind": kind})
    assert decided(call) == "ask"
    assert decided(call, default="allow_all") == "allow"
    assert decided(call, default="deny_all") == "deny"
    assert decided(call, default="allow_reads") == ("allow" if kind in ("read", "search", "think") else "ask")


def test_a_kind_that_is_not_told_is_no_reading() -> None:
    assert decided(ToolCall.of({"title": "read a file"}), default="allow_reads") == "ask"


def test_the_first_rule_that_fits_decides() -> None:
    rules = (Rule("deny", path="secret/**"), Rule("allow", kind="edit"), Rule("deny"))
    policy = Policy("allow_all", rules)
    assert policy.decide(touching("/code/project/secret/key"), CWD).because == "rules[0]"
    assert policy.decide(touching("/code/project/src/a.py"), CWD).because == "rules[1]"
    assert policy.decide(command("ls"), CWD).because == "rules[2]"


def test_a_rule_may_say_ask_before_a_default_that_allows() -> None:
    rule = Rule("ask", command="git push*")
    assert decided(command("git push origin"), rule, default="allow_all") == "ask"
    assert decided(command("git status"), rule, default="allow_all") == "allow"


def test_a_rule_may_name_one_kind_or_several() -> None:
    assert allowed(command("ls"), kind="execute")
    assert allowed(command("ls"), kind=("read", "execute"))
    assert not allowed(command("ls"), kind=("read", "search"))


def test_everything_that_a_rule_names_must_fit() -> None:
    assert allowed(command("npm test"), kind="execute", command="npm *")
    assert not allowed(command("npm test"), kind="read", command="npm *")


def test_a_command_that_an_allow_rule_names_must_be_the_whole_line() -> None:
    assert allowed(command("git status"), command="git status")
    assert not allowed(command("git status --short"), command="git status")
    assert allowed(command("git status --short"), command="git status*")
    assert not allowed(command("sudo git status"), command="git *")


@pytest.mark.parametrize(
    "line",
    [
        "git status; rm -rf /",
        "git status && rm -rf /",
        "git status & rm -rf /",
        "git status | sh",
        "git log `rm -rf /`",
        "git log $(rm -rf /)",
        "git log ${IFS}",
        "git log $'\\x3b'",
        "git status\nrm -rf /",
        "git status\rrm -rf /",
        "git log > /etc/passwd",
        "git log < /etc/shadow",
        "git diff <(rm -rf /)",
    ],
)
def test_a_compound_command_line_fits_no_allow_rule_but_a_star(line: str) -> None:
    assert not allowed(command(line), command="git *")
    assert not allowed(command(line), command="*git*")
    assert allowed(command(line), command="*")


@given(
    st.text(max_size=20),
    st.sampled_from([";", "&&", "||", "|", "&", "`", "$(", "${", "\n", "\r", "<(", ">", "<", ">>"]),
    st.text(max_size=20),
    st.sampled_from(["git *", "*git*", "git*", "?*", "**", "[!x]*", "* *"]),
)
def test_whatever_is_compound_passes_no_allow_rule(before: str, between: str, after: str, pattern: str) -> None:
    call = command(f"git {before}{between}{after}")
    assert not allowed(call, command=pattern)
    assert not allowed(call, command=pattern, kind="execute")


@pytest.mark.parametrize(
    "line", ["rm -rf /", "ls; rm -rf /", "ls && X=1 rm -rf /", "echo $(rm -rf /)", "true|rm -rf /", "(rm -rf /)"]
)
def test_a_deny_rule_fits_any_command_of_a_line(line: str) -> None:
    assert denied(command(line), command="rm *")


def test_a_shell_that_is_given_a_script_runs_that_script() -> None:
    call = ToolCall.of({"kind": "execute", "rawInput": {"command": ["bash", "-lc", "git status"]}})
    assert allowed(call, command="git *")
    call = ToolCall.of({"kind": "execute", "rawInput": {"command": ["bash", "-lc", "git status; rm x"]}})
    assert not allowed(call, command="git *")


def test_words_of_a_command_are_quoted_where_a_shell_would_take_them_apart() -> None:
    call = ToolCall.of({"kind": "execute", "rawInput": {"command": ["git", "commit", "-m", "a; b"]}})
    assert call.command_line == "git commit -m 'a; b'"
    call = ToolCall.of({"kind": "execute", "rawInput": {"command": "git", "args": ["log", "a b"]}})
    assert call.command_line == "git log 'a b'"


def test_a_title_is_a_command_for_rules_that_forbid_only() -> None:
    titled = ToolCall.of({"kind": "execute", "title": "`git push`"})
    assert titled.command_line == "git push"
    assert denied(titled, command="git *")
    assert not allowed(titled, command="git *")
    assert not allowed(titled, command="*")
    assert allowed(titled, kind="execute")
    both = ToolCall.of({"kind": "execute", "title": "`git push`", "rawInput": {"script": 1}})
    assert both.command_line is None
    assert denied(both, command="git *")
    assert not denied(ToolCall.of({"kind": "edit", "title": "git push"}), command="git *")


@pytest.mark.parametrize("kind", ["read", "search", "think", "edit", "other"])
def test_what_has_a_command_line_is_of_no_kind_that_may_be_allowed_without_it(kind: str) -> None:
    call = ToolCall.of({"kind": kind, "title": "Read", "rawInput": {"command": "rm -rf /"}})
    assert decided(call, default="allow_reads") == "ask"
    assert not allowed(call, kind=kind)
    assert allowed(call, kind=kind, command="rm *")
    assert denied(call, kind=kind)
    assert allowed(command("ls"), kind=("execute", kind))


def test_a_tool_is_known_by_its_name_or_else_its_title() -> None:
    named = ToolCall.of({"title": "Fetch a page", "_meta": {"claudeCode": {"toolName": "mcp__web__fetch"}}})
    assert allowed(named, tool="mcp__web__*")
    assert not allowed(named, tool="Fetch*")
    assert denied(named, tool="Fetch*")
    assert allowed(ToolCall.of({"title": "web.fetch"}), tool="web.*")


def test_a_path_is_seen_from_the_directory_of_the_session() -> None:
    assert allowed(touching("/code/project/src/deep/a.py"), path="src/**")
    assert allowed(touching("src/a.py"), path="src/**")
    assert allowed(touching("src/a.py"), path="/code/project/src/*")
    assert not allowed(touching("/elsewhere/src/a.py"), path="src/**")
    assert not allowed(touching("/code/project-2/src/a.py"), path="**")


def test_an_allow_rule_with_a_path_wants_every_place_to_fit() -> None:
    assert allowed(touching("src/a", "src/b"), path="src/**")
    assert not allowed(touching("src/a", "/etc/passwd"), path="src/**")
    assert not allowed(touching("src/a", rawInput={"file_path": "/etc/passwd"}), path="src/**")
    assert not allowed(touching("src/a", rawInput={"edits": [{"path": "/etc/passwd"}]}), path="src/**")
    assert not allowed(touching("src/a", rawInput={"changes": {"/etc/passwd": {}}}), path="src/**")
    assert not allowed(touching("src/a", content=[{"type": "diff", "path": "/etc/passwd"}]), path="src/**")


def test_a_deny_rule_with_a_path_wants_any_place_to_fit() -> None:
    assert denied(touching("src/a", "/etc/passwd"), path="/etc/**")
    assert not denied(touching("src/a"), path="/etc/**")


def test_an_allow_rule_with_a_path_fits_nothing_that_has_no_place() -> None:
    assert not allowed(ToolCall.of({"kind": "edit", "title": "a file"}), path="/**")
    assert not allowed(touching("~/.ssh/id_ed25519"), path="/**")
    assert not allowed(touching("https://example.org/a"), path="/**")
    assert allowed(touching("file:///code/project/src/a%20b"), path="src/*")


def test_a_place_does_not_vouch_for_a_command_line() -> None:
    call = touching("src/a", kind="execute", rawInput={"command": "cat src/a"})
    assert not allowed(call, path="src/**")
    assert allowed(call, path="src/**", command="cat *")


def test_what_a_command_works_in_must_fit_too() -> None:
    inside = touching("src/a", kind="execute", rawInput={"command": "cat a", "cwd": "/code/project/src"})
    outside = touching("src/a", kind="execute", rawInput={"command": "cat a", "cwd": "/etc"})
    assert allowed(inside, path="src/**", command="cat *")
    assert not allowed(outside, path="src/**", command="cat *")


def test_a_place_within_the_input_is_seen_from_the_inputs_own_directory() -> None:
    call = touching(kind="read", rawInput={"path": "passwd", "cwd": "/etc"})
    assert call.places(CWD) == ["/etc/passwd"]


@given(
    st.lists(st.sampled_from(["..", ".", "", "src", "a", "project", "work", "etc"]), max_size=12),
    st.booleans(),
    st.sampled_from(["locations", "rawInput", "diff"]),
)
def test_no_dots_lead_out_of_what_a_path_rule_allows(parts: list[str], absolute: bool, where: str) -> None:
    written = ("/code/project/" if absolute else "") + "/".join(parts)
    assume(written)
    call = {
        "locations": lambda: touching(written),
        "rawInput": lambda: touching(rawInput={"path": written}),
        "diff": lambda: touching(content=[{"type": "diff", "path": written}]),
    }[where]()
    stack = [] if written.startswith("/") else ["work", "project"]
    for part in parts if not absolute else ["work", "project", *parts]:
        if part == "..":
            del stack[-1:]
        elif part not in ("", "."):
            stack.append(part)
    inside = stack[:3] == ["work", "project", "src"] and len(stack) > 3
    assert allowed(call, path="src/**") == inside


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("/**", "/a", True),
        ("/a/**", "/a", False),
        ("/a/**", "/a/b/c", True),
        ("/a/", "/a/b/c", True),
        ("/a/**/c", "/a/c", True),
        ("/a/**/c", "/a/b/b/c", True),
        ("/a/**/c/**/d", "/a/c/x/d", True),
        ("/a/**/c/**/d", "/a/x/d", False),
        ("/a/*.py", "/a/b.py", True),
        ("/a/*.py", "/a/b/c.py", False),
        ("**/*.py", "/code/project/x/y.py", True),
        ("*.py", "/code/project/x/y.py", False),
        ("/a/[bc]", "/a/c", True),
        ("/a/?", "/a/bb", False),
    ],
)
def test_path_patterns(pattern: str, path: str, fits: bool) -> None:
    assert allowed(touching(path), path=pattern) == fits


def test_a_pattern_with_many_stars_takes_no_time() -> None:
    deep = "/" + "a/" * 2000 + "b"
    assert not allowed(touching(deep), path="/" + "**/a/" * 500 + "c")


def test_a_policy_is_written_as_a_name_or_an_object() -> None:
    def read(text: str) -> Policy:
        return policy_of(msgspec.json.decode(text, type=Preset | Policy))

    assert read('"allow_reads"') == Policy("allow_reads")
    whole = '{"default":"deny_all","rules":[{"kind":["read"],"decision":"allow"}],"timeout":2.5,"onTimeout":"cancel"}'
    assert read(whole) == Policy("deny_all", (Rule("allow", ("read",)),), 2.5, "cancel")
    assert read(msgspec.json.encode(read(whole)).decode()) == read(whole)


@pytest.mark.parametrize(
    "text",
    [
        '"never"',
        '{"default":"never"}',
        '{"rules":[{"kind":"read"}]}',
        '{"rules":[{"kind":"reading","decision":"allow"}]}',
        '{"rules":[{"decision":"allow","path":"a/../b"}]}',
        '{"rules":[{"decision":"allow","path":"~/a"}]}',
        '{"rules":[{"decision":"allow","path":"/"}]}',
        '{"rules":[{"decision":"allow","command":""}]}',
        '{"rules":[{"decision":"allow","paths":"/a"}]}',
        '{"timeout":0}',
        '{"timeout":-1}',
        '{"timeout":1e300}',
        '{"onTimeout":"ask"}',
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Preset | Policy)


def test_the_size_of_a_policy_is_bounded() -> None:
    with pytest.raises(ValueError, match="rules"):
        Policy(rules=(Rule("deny"),) * (RULES_LIMIT + 1))
    with pytest.raises(ValueError, match="characters"):
        Rule("deny", command="x" * (PATTERN_LIMIT + 1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["kind", "title", "locations", "content", "rawInput", "_meta", "toolCallId"]), json_values
    )
)
def test_whatever_an_agent_writes_can_be_decided(told: dict[str, Any]) -> None:
    rules = (Rule("deny", path="/x/**"), Rule("allow", path="src/**"), Rule("allow", command="git *", tool="g*"))
    assert decided(ToolCall.of(told), *rules) in ("ask", "allow", "deny")
