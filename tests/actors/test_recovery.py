from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from msgspec import Raw

from sandbox_actors.envelope import Head, decode
from sandbox_actors.memory import AcpSession, Memory
from sandbox_actors.recovery import (
    INITIALIZE_WITHIN,
    SESSION_WITHIN,
    SESSIONS_WITHIN,
    Recovered,
    RecoveryFailed,
    recover,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

    from sandbox_actors.envelope import Params

ALL = {"loadSession": True, "sessionCapabilities": {"resume": {}}}
LOAD = {"loadSession": True}
NOTHING: dict[str, Any] = {}

SILENCE = object()
REFUSAL = object()


@dataclass(slots=True)
class ScriptedAgent:
    """Answers each method with a result, a refusal, or silence; keeps what it was asked."""

    answers: dict[str, object]
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def __call__(self, method: str, params: Params) -> Head:
        self.asked.append((method, json.loads(msgspec.json.encode(params))))
        await trio.lowlevel.checkpoint()
        answer = self.answers[method]
        if answer is SILENCE:
            await trio.sleep_forever()
        member = "error" if answer is REFUSAL else "result"
        return decode(json.dumps({"id": 1, member: {"code": 1} if answer is REFUSAL else answer}).encode())

    @property
    def methods(self) -> list[str]:
        return [method for method, _ in self.asked]


def remembered(*ids: str) -> Memory:
    """What a daemon knows after an `initialize` and the opening of some ACP sessions."""
    params = {"cwd": Raw(b'"/work"'), "mcpServers": Raw(b"[]")}
    return Memory(initialize=Raw(b'{"protocolVersion":1}'), sessions={id: AcpSession(id, params) for id in ids})


def agent(capabilities: object, **answers: object) -> ScriptedAgent:
    given = {f"session/{name}": answer for name, answer in answers.items()}
    return ScriptedAgent({"initialize": {"agentCapabilities": capabilities}, **given})


async def test_initialize_is_repeated_as_the_client_said_it() -> None:
    scripted = agent(NOTHING)
    assert await recover(remembered(), scripted) == ()
    assert scripted.asked == [("initialize", {"protocolVersion": 1})]


async def test_resuming_is_the_first_choice() -> None:
    scripted = agent(ALL, resume={})
    assert await recover(remembered("s"), scripted) == (Recovered("s", "s", "resumed"),)
    assert scripted.asked[1:] == [("session/resume", {"sessionId": "s", "cwd": "/work", "mcpServers": []})]


async def test_a_refused_resume_falls_back_to_a_load() -> None:
    scripted = agent(ALL, resume=REFUSAL, load={})
    assert await recover(remembered("s"), scripted) == (Recovered("s", "s", "loaded"),)
    assert scripted.methods == ["initialize", "session/resume", "session/load"]


async def test_an_agent_that_can_only_load_is_not_asked_to_resume() -> None:
    scripted = agent(LOAD, load=None)
    assert await recover(remembered("s"), scripted) == (Recovered("s", "s", "loaded"),)
    assert scripted.methods == ["initialize", "session/load"]


@pytest.mark.parametrize(
    ("capabilities", "methods"),
    [(NOTHING, ["new"]), (LOAD, ["load", "new"]), (ALL, ["resume", "load", "new"]), ("odd", ["new"]), (None, ["new"])],
)
async def test_where_nothing_else_works_the_session_is_new_under_another_id_and_says_so(
    capabilities: object, methods: list[str]
) -> None:
    scripted = agent(capabilities, resume=REFUSAL, load=REFUSAL, new={"sessionId": "t"})
    assert await recover(remembered("s"), scripted) == (Recovered("s", "t", "new"),)
    assert scripted.methods[1:] == [f"session/{name}" for name in methods]
    assert scripted.asked[-1][1] == {"cwd": "/work", "mcpServers": []}


@pytest.mark.parametrize("answer", [REFUSAL, {}, {"sessionId": 7}, None])
async def test_a_session_that_cannot_be_opened_at_all_is_lost_and_says_so(answer: object) -> None:
    scripted = agent(NOTHING, new=answer)
    assert await recover(remembered("s"), scripted) == (Recovered("s", "s", "lost"),)


async def test_every_session_is_brought_back_for_itself_the_newest_first() -> None:
    memory = remembered("a", "b")
    memory.sessions["b"].agent_id = "b2"
    scripted = agent(ALL, resume={})
    assert await recover(memory, scripted) == (Recovered("a", "a", "resumed"), Recovered("b", "b2", "resumed"))
    assert [params.get("sessionId") for _, params in scripted.asked] == [None, "b2", "a"]


async def test_initialize_without_an_answer_fails_in_bounded_time(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    with pytest.raises(RecoveryFailed, match="did not answer initialize within 60 s"):
        await recover(remembered("s"), ScriptedAgent({"initialize": SILENCE}))
    assert trio.current_time() - started == INITIALIZE_WITHIN


async def test_a_refused_initialize_fails() -> None:
    with pytest.raises(RecoveryFailed, match="refused"):
        await recover(remembered("s"), ScriptedAgent({"initialize": REFUSAL}))


async def test_a_rung_without_an_answer_is_left_in_bounded_time(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    scripted = agent(ALL, resume=SILENCE, load=SILENCE, new={"sessionId": "t"})
    assert await recover(remembered("s"), scripted) == (Recovered("s", "t", "new"),)
    assert trio.current_time() - started == 2 * SESSION_WITHIN
    assert (await recover(remembered("s"), agent(NOTHING, new=SILENCE)))[0].fidelity == "lost"


async def test_all_sessions_together_have_a_bound_and_the_rest_is_declared_lost(autojump_clock: MockClock) -> None:
    started = trio.current_time()
    recovered = await recover(remembered(*"abcdefgh"), agent(NOTHING, new=SILENCE))
    assert {each.fidelity for each in recovered} == {"lost"}
    assert [each.id for each in recovered] == list("abcdefgh")
    assert trio.current_time() - started == SESSIONS_WITHIN


async def test_capabilities_that_are_null_or_false_are_not_offered() -> None:
    scripted = agent({"loadSession": True, "sessionCapabilities": None}, load={})
    assert (await recover(remembered("s"), scripted))[0].fidelity == "loaded"
    scripted = agent({"sessionCapabilities": {"resume": False}}, new={"sessionId": "t"})
    assert (await recover(remembered("s"), scripted))[0].fidelity == "new"


async def test_cancellation_passes_through(autojump_clock: MockClock) -> None:
    with trio.move_on_after(1) as scope:
        await recover(remembered("s"), agent(ALL, resume=SILENCE))
    assert scope.cancelled_caught
