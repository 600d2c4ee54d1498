"""The tool calls that were told of before: what is not kept of one never makes it look more harmless."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec import Raw

from sandbox_actors.permissions import Policy, Rule
from sandbox_actors.permissions.tool_calls import FORGOTTEN_LIMIT, KEY_LIMIT, LIMIT, SIZE_LIMIT, ToolCalls

if TYPE_CHECKING:
    from sandbox_actors.permissions.tool_call import ToolCall


def tell(calls: ToolCalls, id: str, update: str = "tool_call", **members: Any) -> None:
    params = {"sessionId": "acp", "update": {"sessionUpdate": update, "toolCallId": id, **members}}
    calls.hear(msgspec.json.encode({"jsonrpc": "2.0", "method": "session/update", "params": params}))


def asked(calls: ToolCalls, id: str, **members: Any) -> ToolCall:
    return calls.call("acp", Raw(msgspec.json.encode({"toolCallId": id, **members})))


def decided(call: ToolCall, *rules: Rule) -> str:
    return Policy("allow_reads", rules).decide(call, "/code").decision


def test_updates_add_to_a_call() -> None:
    calls = ToolCalls()
    tell(calls, "a", kind="read")
    tell(calls, "a", "tool_call_update", kind=None, rawInput={"path": "x"})
    call = asked(calls, "a", title="t")
    assert (call.kind, call.written, call.title, call.known) == ("read", ("x",), "t", True)


def large(calls: ToolCalls) -> None:
    tell(calls, "a", kind="edit", rawInput={"path": "/etc/a", "content": "x" * SIZE_LIMIT})


def evicted(calls: ToolCalls) -> None:
    tell(calls, "a", kind="edit", rawInput={"path": "/etc/a"})
    for number in range(LIMIT):
        tell(calls, f"other {number}", kind="read")


def grown(calls: ToolCalls) -> None:
    tell(calls, "a", kind="edit", rawInput={"path": "/etc/a"})
    tell(calls, "a", "tool_call_update", content="x" * SIZE_LIMIT)


@pytest.mark.parametrize("forgotten", [large, evicted, grown])
@pytest.mark.parametrize("again", [None, "tool_call", "tool_call_update"])
def test_a_call_that_is_not_kept_is_not_known(forgotten: Any, again: str | None) -> None:
    calls = ToolCalls()
    forgotten(calls)
    if again is not None:
        tell(calls, "a", again, kind="read", rawInput={"path": "src/a"})
    call = asked(calls, "a", kind="read", locations=[{"path": "src/a"}])
    assert not call.known
    assert decided(call) == "ask"
    for rule in (Rule("allow", path="src/**"), Rule("allow", kind="read"), Rule("allow", kind="other")):
        assert decided(call, rule) == "ask"
    assert decided(call, Rule("allow")) == "allow"
    assert decided(call, Rule("deny", path="src/**")) == "deny"
    assert decided(asked(calls, "a", kind="execute", rawInput={"command": "ls"}), Rule("allow", command="*")) == "ask"


def test_an_update_of_a_call_that_was_never_told_of_tells_nothing() -> None:
    calls = ToolCalls()
    tell(calls, "a", "tool_call_update", kind="read")
    call = asked(calls, "a", title="t")
    assert (call.kind, call.known) == ("other", True)
    assert decided(call) == "ask"


def test_a_call_that_is_told_of_in_the_request_alone_is_known_by_that() -> None:
    assert decided(asked(ToolCalls(), "a", kind="read")) == "allow"


def test_a_member_that_cannot_be_read_makes_a_call_unknown() -> None:
    deep = Raw(b'{"toolCallId":"a","kind":"read","rawInput":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert decided(ToolCalls().call("acp", deep)) == "ask"


def test_what_is_remembered_of_calls_is_bounded() -> None:
    calls = ToolCalls()
    for number in range(LIMIT + FORGOTTEN_LIMIT + 10):
        tell(calls, str(number), kind="read")
    tell(calls, "x" * KEY_LIMIT, kind="read")
    assert not asked(calls, "x" * KEY_LIMIT, kind="read").known
    assert asked(calls, "9", kind="read").known  # by the request alone
    assert not asked(calls, "10", kind="read").known
    assert asked(calls, str(LIMIT + FORGOTTEN_LIMIT), kind="read").known
