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
    Ladder,
    Recovered,
    RecoveryFailed,
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


async def recover(memory: Memory, scripted: ScriptedAgent, **more: Any) -> tuple[Recovered, ...]:
    return (await Ladder(memory, scripted, scripted, **more).climb()).recovered


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
    with pytest.raises(RecoveryFailed, match="refused to initialize again"):
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


async def test_an_agent_that_nobody_has_introduced_himself_to_is_left_alone() -> None:
    scripted = agent(ALL)
    assert await recover(Memory(), scripted) == ()
    assert scripted.asked == []


def telling(mode: str) -> dict[str, Any]:
    return {"modes": {"currentModeId": mode, "availableModes": [{"id": "a"}, {"id": "b"}]}}


def with_mode(mode: str | None = "b") -> Memory:
    memory = remembered("s")
    memory.sessions["s"].mode = mode
    return memory


@pytest.mark.parametrize(
    ("capabilities", "told", "is_set"),
    [
        (ALL, telling("a"), True),
        (ALL, telling("b"), False),
        (ALL, {}, False),
        (LOAD, telling("a"), True),
        (LOAD, None, False),
        (NOTHING, telling("a"), True),
        (NOTHING, telling("b"), False),
    ],
)
async def test_a_mode_is_set_again_where_the_agent_tells_another_one(
    capabilities: object, told: dict[str, Any] | None, is_set: bool
) -> None:
    scripted = agent(capabilities, resume=told, load=told, new={"sessionId": "s", **(told or {})}, set_mode={})
    (recovered,) = await recover(with_mode(), scripted)
    assert recovered.not_set == ()
    asked = [params for method, params in scripted.asked if method == "session/set_mode"]
    assert asked == ([{"sessionId": "s", "modeId": "b"}] if is_set else [])


@pytest.mark.parametrize("answer", [REFUSAL, SILENCE])
async def test_what_cannot_be_set_again_is_told(answer: object, autojump_clock: MockClock) -> None:
    scripted = agent(ALL, resume=telling("a"), set_mode=answer)
    (recovered,) = await recover(with_mode(), scripted)
    assert (recovered.fidelity, recovered.not_set) == ("resumed", ("mode",))


async def test_a_new_session_that_knows_no_modes_has_lost_its_mode() -> None:
    (recovered,) = await recover(with_mode(), agent(NOTHING, new={"sessionId": "t"}))
    assert recovered.not_set == ("mode",)


async def test_what_the_agent_tells_of_its_defaults_meanwhile_changes_nothing() -> None:
    memory = with_mode()

    class Eager(ScriptedAgent):
        async def __call__(self, method: str, params: Params) -> Head:
            if method == "session/resume":
                memory.sessions["s"].mode = "a"
            return await ScriptedAgent.__call__(self, method, params)

    scripted = Eager(agent(ALL, resume=telling("a"), set_mode={}).answers)
    await recover(memory, scripted)
    assert scripted.asked[-1] == ("session/set_mode", {"sessionId": "s", "modeId": "b"})


async def test_only_a_session_that_lost_its_conversation_is_told_the_transcript() -> None:
    asked: list[str] = []

    async def transcript(id: str) -> str:
        asked.append(id)
        return f"what was said in {id}"

    (recovered,) = await recover(remembered("s"), agent(ALL, resume={}), transcript=transcript)
    assert (recovered.fidelity, recovered.context, asked) == ("resumed", "", [])
    (recovered,) = await recover(remembered("s"), agent(NOTHING, new={"sessionId": "t"}), transcript=transcript)
    assert (recovered.fidelity, recovered.context) == ("replayed", "what was said in s")
    memory = remembered("s")
    memory.sessions["s"].owes_context = True
    (recovered,) = await recover(memory, agent(ALL, resume={}), transcript=transcript)
    assert (recovered.fidelity, recovered.context) == ("replayed", "what was said in s")


async def test_an_agent_that_wants_a_login_by_a_variable_gets_it_once() -> None:
    methods = [{"id": "other-login"}, {"id": "some-api-key"}, {"id": "x", "type": "terminal"}, {"type": "odd"}]
    wants = {"code": -32000, "message": "log in"}

    class Locked(ScriptedAgent):
        open = False

        async def __call__(self, method: str, params: Params) -> Head:
            self.open |= method == "authenticate"
            head = await ScriptedAgent.__call__(self, method, params)
            if self.open or method == "initialize":
                return head
            return decode(json.dumps({"id": 1, "error": wants}).encode())

    answers: dict[str, object] = {
        "initialize": {"agentCapabilities": ALL, "authMethods": methods},
        "authenticate": {},
        "session/resume": {},
    }
    scripted = Locked(answers)
    recovered = await recover(remembered("s", "t"), scripted, environment={"SOME_API_KEY": "x"})
    assert {one.fidelity for one in recovered} == {"resumed"}
    assert scripted.methods == ["initialize", "session/resume", "authenticate", "session/resume", "session/resume"]
    assert scripted.asked[2][1] == {"methodId": "some-api-key"}
