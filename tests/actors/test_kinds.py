"""The kind of an event, from no more than a look at its head, and never one that it only claims."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from sandbox_actors.journal import Origin
from sandbox_actors.kinds import Kinds, glance, kind_of

AGENT, CLIENT, DAEMON, NOTICE = Origin
UPDATE: dict[str, Any] = {
    "method": "session/update",
    "params": {"sessionId": "s", "update": {"sessionUpdate": "plan"}},
}

KINDS: list[tuple[Origin, Any, str]] = [
    (AGENT, UPDATE, "plan"),
    (AGENT, {"method": "session/update", "params": {"update": {"sessionUpdate": "turn.ended"}}}, "session/update"),
    (AGENT, {"method": "session/update", "params": {"update": {"sessionUpdate": 1}}}, "session/update"),
    (AGENT, {"method": "session/update", "params": {"update": [1]}}, "session/update"),
    (AGENT, {"method": "session/update", "params": [1]}, "session/update"),
    (AGENT, {"method": "session/update"}, "session/update"),
    (AGENT, {"id": 1, "method": "session/request_permission"}, "session/request_permission"),
    (AGENT, {"id": 1, "method": "_sandboxagent/turn/started"}, "_sandboxagent/turn/started"),
    (AGENT, {"method": "turn.started"}, "turn_started"),
    (AGENT, {"id": 1, "result": {"update": {"sessionUpdate": "plan"}}}, "response"),
    (AGENT, {"id": None, "error": {}}, "response"),
    (AGENT, {"method": 1}, "unknown"),
    (AGENT, {}, "unknown"),
    (CLIENT, {"id": 1, "method": "session/prompt", "params": {"sessionId": 5}}, "session/prompt"),
    (CLIENT, {"method": "session/cancel"}, "session/cancel"),
    (DAEMON, {"id": "d", "method": "initialize"}, "initialize"),
    (NOTICE, {"method": "_sandboxagent/turn/started", "params": {"turnId": "t"}}, "turn.started"),
    (NOTICE, {"method": "_sandboxagent/request/resolved"}, "request.resolved"),
    (NOTICE, {"method": "_adapter/agent_exited"}, "agent.exited"),
    (NOTICE, {"method": "_adapter/invalid_stdout"}, "agent.invalid_stdout"),
    (NOTICE, {"id": 1, "error": {}}, "response"),
]


@pytest.mark.parametrize(("origin", "envelope", "kind"), KINDS)
def test_the_kind_of(origin: Origin, envelope: Any, kind: str) -> None:
    assert kind_of(origin, glance(json.dumps(envelope).encode())) == kind


def test_half_a_character_does_not_hide_what_an_update_is() -> None:
    text = b'{"method":"session/update","params":{"sessionId":"s","update":{"sessionUpdate":"plan","x":"\\ud83d"}}}'
    seen = glance(text)
    assert (seen.update, seen.session_id) == ("plan", "s")


def test_a_look_shows_where_it_belongs() -> None:
    text = b'{"method":"m","id":7,"params":{"sessionId":"s","turnId":"t","requestId":[1],"update":null}}'
    seen = glance(text)
    assert (seen.method, bytes(seen.id or b""), seen.session_id, seen.turn_id) == ("m", b"7", "s", "t")
    assert bytes(seen.request_id or b"") == b"[1]"
    assert glance(b"not json").id is UNSET


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["update", "sessionUpdate", "sessionId", "turnId", "x"]), inner, max_size=3)
    ),
    max_leaves=10,
)
members = st.dictionaries(st.sampled_from(["id", "method", "params", "result", "error"]), values)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(members, st.sampled_from(list(Origin)))
def test_whatever_an_envelope_says_it_has_a_kind_and_only_notices_have_dots(envelope: Any, origin: Origin) -> None:
    text = json.dumps(envelope).encode()
    kind = kind_of(origin, glance(text))
    assert kind
    assert origin is NOTICE or "." not in kind


@given(st.binary(max_size=40))
def test_whatever_the_bytes_are_a_look_does_no_harm(text: bytes) -> None:
    glance(text)


def test_kinds_are_chosen_by_name_and_by_beginning() -> None:
    assert all(kind in Kinds([]) for kind in ("plan", "turn.ended"))
    chosen = Kinds(["turn.*", "plan"])
    assert [kind in chosen for kind in ("turn.ended", "turn.started", "turn", "plan", "plan_update", "response")] == [
        True,
        True,
        False,
        True,
        False,
        False,
    ]
    assert "anything" in Kinds(["*"])
    assert 1 not in Kinds(["plan"])
