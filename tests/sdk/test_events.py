"""Events as applications see them: typed where they act on them, whole in any case, and never an error."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_agent.errors import SandboxAgentError
from sandbox_agent.events import (
    AgentExited,
    AgentHibernated,
    AgentRestarting,
    Event,
    Gap,
    MessageChunk,
    ModeChanged,
    OtherEvent,
    PermissionRequested,
    PermissionResolved,
    PlanEntry,
    PlanUpdate,
    SessionRecovered,
    ThoughtChunk,
    ToolCall,
    ToolCallUpdate,
    TurnEnded,
    TurnQueued,
    TurnStarted,
    event_of,
    gap_of,
)


def framed(kind: str, envelope: bytes, direction: str = "agent") -> bytes:
    """A frame as the server writes it: the envelope is spliced in."""
    return (
        b'{"type":"event","seq":7,"at":"2026-01-01T12:00:00.000Z","kind":%b,"direction":"%b","incarnation":2,'
        b'"envelope":%b}' % (json.dumps(kind).encode(), direction.encode(), envelope)
    )


def update(kind: str, /, **members: Any) -> Event:
    params = {"sessionId": "s", "update": {"sessionUpdate": kind, **members}}
    return event_of(framed(kind, json.dumps({"jsonrpc": "2.0", "method": "session/update", "params": params}).encode()))


def notice(kind: str, /, **params: Any) -> Event:
    return event_of(framed(kind, json.dumps({"jsonrpc": "2.0", "method": "x", "params": params}).encode(), "notice"))


def test_every_event_tells_what_it_is_and_keeps_the_message_as_it_was() -> None:
    raw = b'{ "jsonrpc": "2.0",\t"method":"mock/echo", "n": 1e2, "u": "\\u00e9" }'
    event = event_of(framed("mock/echo", raw))
    assert isinstance(event, OtherEvent)
    assert (event.seq, event.kind, event.direction, event.incarnation) == (7, "mock/echo", "agent", 2)
    assert event.at == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert event.raw == raw
    assert event.envelope == {"jsonrpc": "2.0", "method": "mock/echo", "n": 100.0, "u": "é"}
    assert event.envelope is event.envelope


def test_what_an_agent_says() -> None:
    image = {"type": "image", "data": "AAAA", "mimeType": "image/png"}
    match update("agent_message_chunk", content={"type": "text", "text": "hé"}):
        case MessageChunk(text=text, seq=7):
            assert text == "hé"
        case other:
            raise AssertionError(other)
    match update("agent_message_chunk", content=image):
        case MessageChunk(text="", content=content):
            assert content == image
        case other:
            raise AssertionError(other)
    assert isinstance(update("agent_thought_chunk", content={"type": "text", "text": "hm"}), ThoughtChunk)


def test_what_an_agent_does() -> None:
    call = update("tool_call", toolCallId="t", title="Read", kind="read", status="pending", rawInput={"path": "/x"})
    match call:
        case ToolCall(tool_call_id="t", title="Read", tool_kind="read", status="pending", raw_input={"path": "/x"}):
            assert call.kind == "tool_call"
        case _:
            raise AssertionError(call)
    changed = update("tool_call_update", toolCallId="t", status="completed")
    assert isinstance(changed, ToolCallUpdate)
    assert not isinstance(changed, ToolCall)
    assert (changed.status, changed.title) == ("completed", None)
    plan = update("plan", entries=[{"content": "a", "priority": "high", "status": "completed"}, {"content": "b"}])
    assert isinstance(plan, PlanUpdate)
    assert plan.entries == (PlanEntry("a", "completed", "high"), PlanEntry("b"))
    mode = update("current_mode_update", currentModeId="plan")
    assert isinstance(mode, ModeChanged)
    assert mode.current_mode_id == "plan"


def test_what_the_server_tells() -> None:
    queued, started = notice("turn.queued", turnId="t", waiting=2), notice("turn.started", turnId="t", requestId="t")
    assert isinstance(queued, TurnQueued)
    assert isinstance(started, TurnStarted)
    assert (queued.turn_id, queued.waiting, started.turn_id) == ("t", 2, "t")
    match notice("turn.ended", turnId="t", outcome="failed", error={"type": "restarted"}, forced=True):
        case TurnEnded(outcome="failed", error={"type": kind}, forced=True, stop_reason=None):
            assert kind == "restarted"
        case other:
            raise AssertionError(other)
    exited = notice("agent.exited", code=None, signal="SIGKILL", success=False, incarnation=9, stderr=["a", "b"])
    assert isinstance(exited, AgentExited)
    assert (exited.code, exited.signal, exited.stderr) == (None, "SIGKILL", ("a", "b"))
    assert exited.incarnation == 2, "the event's own, not a member of the notice"
    restarting = notice("agent.restarting", inMs=250, crashes=3, incarnation=3)
    assert isinstance(restarting, AgentRestarting)
    assert (restarting.in_ms, restarting.crashes) == (250, 3)
    resting = notice("agent.hibernated", reason="idle", idleMs=5)
    assert isinstance(resting, AgentHibernated)
    assert (resting.reason, resting.idle_ms) == ("idle", 5)
    recovered = notice("session.recovered", sessionId="s", fidelity="loaded", notSet=["mode"])
    assert isinstance(recovered, SessionRecovered)
    assert (recovered.fidelity, recovered.not_set) == ("loaded", ("mode",))


def test_what_an_agent_asks() -> None:
    options = [{"optionId": "yes", "name": "Allow", "kind": "allow_once"}]
    asked = notice(
        "permission.requested", permissionId="p", requestId=3, sessionId="s", kind="permission", options=options
    )
    assert isinstance(asked, PermissionRequested)
    assert asked.kind == "permission.requested"
    permission = asked.permission
    assert (permission.permission_id, permission.kind, permission.request_id) == ("p", "permission", 3)
    assert permission.acp_session_id == "s"
    assert [(each.option_id, each.kind) for each in permission.options] == [("yes", "allow_once")]
    settled = notice("permission.resolved", permissionId="p", outcome="selected", optionId="yes", by="policy: rules[2]")
    assert isinstance(settled, PermissionResolved)
    assert (settled.option_id, settled.by) == ("yes", "policy: rules[2]")


@pytest.mark.parametrize(
    ("kind", "envelope"),
    [
        ("tool_call", b'{"params":{"update":{"toolCallId":7}}}'),
        ("tool_call", b'{"params":{"update":{}}}'),
        ("tool_call", b'{"params":[]}'),
        ("plan", b'{"params":{"update":{"entries":"none"}}}'),
        ("agent_message_chunk", b'{"params":{"update":{"content":{"type":"text","text":[]}}}}'),
        ("current_mode_update", b'{"params":{"update":null}}'),
        ("turn.ended", b"{}"),
        ("turn.ended", b"[]"),
        ("turn.ended", b"null"),
        ("permission.requested", b'{"params":{}}'),
        ("session.recovered", b'{"params":{"fidelity":null}}'),
        ("of_tomorrow", b'"anything"'),
    ],
)
def test_what_has_another_shape_is_some_other_event(kind: str, envelope: bytes) -> None:
    event = event_of(framed(kind, envelope))
    assert isinstance(event, OtherEvent)
    assert event.raw == envelope
    assert isinstance(event.envelope, dict)


@pytest.mark.parametrize("text", [r"\ud83d", r"\udc00 x", r"\ud800\ud800", r"a\ud83d\ude00b"])
def test_half_a_character_is_kept_as_it_is(text: str) -> None:
    content = '{"method":"session/update","params":{"update":{"content":{"type":"text","text":"' + text + '"}}}}'
    event = event_of(framed("agent_message_chunk", content.encode()))
    assert isinstance(event, MessageChunk)
    assert event.text == json.loads(f'"{text}"')
    assert event.raw == content.encode()


def test_a_message_that_is_too_deep_to_be_decoded_is_still_an_event() -> None:
    raw = b'{"params":{"update":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    event = event_of(framed("plan", raw))
    assert isinstance(event, OtherEvent)
    assert event.raw == raw


def test_a_kind_that_looks_like_the_frame_confuses_nobody() -> None:
    raw = rb'{"x":"\ud800","envelope":{"envelope":1}}'
    event = event_of(framed('a","envelope":{"b":1}', raw))
    assert event.kind == 'a","envelope":{"b":1}'
    assert event.raw == raw


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_anything_but_an_event_or_our_own_error(text: bytes) -> None:
    for read in (event_of, gap_of):
        try:
            read(text)
        except SandboxAgentError:
            continue


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(["plan", "tool_call", "turn.ended", "permission.requested", "other"]), JSON, st.booleans())
def test_any_message_comes_through_unchanged(kind: str, message: object, ascii_only: bool) -> None:
    raw = json.dumps({"method": "x", "params": message}, ensure_ascii=ascii_only).encode("utf-8", "replace")
    event = event_of(framed(kind, raw))
    assert event.raw == raw
    assert event.envelope == json.loads(raw)


def test_a_gap_says_what_is_missing() -> None:
    gap = gap_of(b'{"type":"gap","from":1,"to":9,"reason":"retention","next":10,"epoch":"e"}')
    assert gap == Gap(first=1, last=9, reason="retention", next=10, epoch="e")
