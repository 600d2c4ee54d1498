from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw, UnsetType

from sandbox_actors.envelope import InvalidEnvelope, decode
from sandbox_actors.memory import REMEMBERED, Memory, Turn


def learn(memory: Memory, method: str, params: object, answer: dict[str, Any]) -> bool:
    raw: Raw | UnsetType = UNSET if params is UNSET else Raw(json.dumps(params).encode())
    return memory.learn(method, raw, decode(json.dumps({"id": 1, **answer}).encode()))


def open_session(memory: Memory, id: str, **params: object) -> None:
    assert learn(memory, "session/new", params, {"result": {"sessionId": id}})


def reloaded(memory: Memory) -> Memory:
    return Memory.load(memory.dump())


def test_nothing_written_is_nothing_remembered() -> None:
    assert Memory.load(b"") == Memory()


def test_it_comes_back_as_it_was() -> None:
    memory = Memory(running=True, turns=[Turn(Raw(b'"7"'), "s"), Turn(Raw(b"8"), None)])
    learn(memory, "initialize", {"protocolVersion": 1, "n": 1.10}, {"result": {}})
    open_session(memory, "s", cwd="/work", mcpServers=[{"name": "x"}])
    memory.sessions["s"].agent_id = "t"
    again = reloaded(memory)
    assert again.dump() == memory.dump()
    assert again.aliases == {"s": "t"}
    assert [(bytes(turn.id), turn.session_id) for turn in again.turns] == [(b'"7"', "s"), (b"8", None)]
    assert again.running


def test_the_last_initialize_that_succeeded_counts() -> None:
    memory = Memory()
    assert learn(memory, "initialize", {"v": 1}, {"result": {}})
    assert learn(memory, "initialize", {"v": 2}, {"result": {}})
    assert not learn(memory, "initialize", {"v": 3}, {"error": {"code": 1, "message": "no"}})
    assert not learn(memory, "initialize", UNSET, {"result": {}})
    assert isinstance(memory.initialize, Raw)
    assert json.loads(bytes(memory.initialize)) == {"v": 2}


@pytest.mark.parametrize(
    ("method", "params", "result", "id"),
    [
        ("session/new", {"cwd": "/"}, {"sessionId": "new"}, "new"),
        ("session/fork", {"sessionId": "old", "cwd": "/"}, {"sessionId": "forked"}, "forked"),
        ("session/load", {"sessionId": "old", "cwd": "/"}, {}, "old"),
        ("session/resume", {"sessionId": "old", "cwd": "/"}, {"sessionId": "ignored"}, "old"),
    ],
)
def test_every_way_to_open_a_session_is_remembered_with_what_it_was_opened_with(
    method: str, params: dict[str, str], result: dict[str, str], id: str
) -> None:
    memory = Memory()
    assert learn(memory, method, params, {"result": result})
    (known,) = memory.sessions.items()
    assert known[0] == known[1].agent_id == id
    assert {name: bytes(value) for name, value in known[1].params.items()} == {"cwd": b'"/"'}


@pytest.mark.parametrize(
    ("method", "params", "answer"),
    [
        ("session/new", {"cwd": "/"}, {"error": {"code": -32000, "message": "log in first"}}),
        ("session/new", {"cwd": "/"}, {"result": {}}),
        ("session/new", {"cwd": "/"}, {"result": {"sessionId": 7}}),
        ("session/load", {"sessionId": 7}, {"result": {}}),
        ("session/load", [1], {"result": {}}),
        ("session/load", UNSET, {"result": {}}),
        ("session/prompt", {"sessionId": "s"}, {"result": {"stopReason": "end_turn"}}),
        ("session/close", {"sessionId": "unknown"}, {"result": {}}),
    ],
)
def test_there_is_nothing_to_learn_from_refusals_and_from_nonsense(
    method: str, params: object, answer: dict[str, Any]
) -> None:
    memory = Memory()
    assert not learn(memory, method, params, answer)
    assert memory == Memory()


@pytest.mark.parametrize("method", ["session/close", "session/delete"])
def test_a_session_that_was_closed_is_not_brought_back(method: str) -> None:
    memory = Memory()
    open_session(memory, "s")
    assert learn(memory, method, {"sessionId": "s"}, {"result": {}})
    assert memory.sessions == {}


def test_only_the_newest_sessions_are_brought_back_and_opening_one_again_makes_it_new() -> None:
    memory = Memory()
    for number in range(REMEMBERED):
        open_session(memory, str(number))
    assert learn(memory, "session/load", {"sessionId": "0"}, {"result": {}})
    open_session(memory, "one more")
    assert len(memory.sessions) == REMEMBERED
    assert "0" in memory.sessions
    assert "1" not in memory.sessions
    assert list(memory.sessions)[-2:] == ["0", "one more"]


@pytest.mark.parametrize("method", ["session/load", "session/resume"])
def test_a_session_that_is_opened_again_keeps_the_id_by_which_the_agent_was_asked_for_it(method: str) -> None:
    memory = Memory()
    open_session(memory, "s")
    memory.sessions["s"].agent_id = "t"
    assert memory.aliases == {"s": "t"}
    assert learn(memory, method, {"sessionId": "s"}, {"result": {}})
    assert memory.aliases == {"s": "t"}


json_objects = st.dictionaries(
    st.text(),
    st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)),
    max_size=4,
)


@given(st.lists(st.tuples(st.sampled_from(["initialize", "session/new", "session/load"]), json_objects), max_size=6))
def test_whatever_was_learned_can_be_loaded_again(traffic: list[tuple[str, dict[str, Any]]]) -> None:
    memory = Memory()
    for number, (method, params) in enumerate(traffic):
        learn(memory, method, {**params, "sessionId": str(number)}, {"result": {"sessionId": str(number)}})
    assert reloaded(memory).dump() == memory.dump()


@pytest.mark.parametrize("method", ["initialize", "session/new"])
@pytest.mark.parametrize("value", [rb'"\ud83d"', b"1e999", b"[" * 500 + b"]" * 500])
def test_odd_params_are_kept(method: str, value: bytes) -> None:
    memory = learned_from(method, value)
    assert (memory.initialize is not UNSET, list(memory.sessions)) == (
        (True, []) if method == "initialize" else (False, ["s"])
    )
    assert reloaded(memory).dump() == memory.dump()


# A daemon that cannot read what it kept could never start again.
@pytest.mark.parametrize("method", ["initialize", "session/new"])
def test_no_depth_of_accepted_params_makes_what_is_kept_unreadable(method: str) -> None:
    for depth in range(500, 1100):
        with suppress(InvalidEnvelope):
            memory = learned_from(method, b"[" * depth + b"]" * depth)
            memory.generation = 7
            assert reloaded(memory).generation == 7  # else an owner before could act again


@pytest.mark.parametrize("text", [b"{", b"[]", b"\xff", b'{"sessions":7}'])
def test_what_cannot_be_read_is_nothing_remembered(text: bytes) -> None:
    assert Memory.load(text) == Memory()


def learned_from(method: str, value: bytes) -> Memory:
    memory = Memory()
    head = decode(b'{"id":1,"params":{"x":%s}}' % value)
    memory.learn(method, head.params, decode(b'{"id":1,"result":{"sessionId":"s"}}'))
    return memory
