"""What the daemon knows of an ACP session: from answers, from updates, from what clients set."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from sandbox_actors.acp_session import TOLD_LIMIT, AcpSession, Told
from sandbox_actors.configuring import NotOffered, Wanted, step
from sandbox_actors.envelope import decode
from sandbox_actors.memory import Memory

MODES = {"currentModeId": "a", "availableModes": [{"id": "a", "name": "A"}, {"id": "b", "name": "B"}]}
MODELS = {"currentModelId": "x", "availableModels": [{"modelId": "x", "name": "X"}, {"modelId": "y", "name": "Y"}]}


def select(id: str, current: str, *values: str, category: str | None = None) -> dict[str, Any]:
    options = [{"value": value, "name": value.upper()} for value in values]
    named = {} if category is None else {"category": category}
    return {"id": id, "name": id, "type": "select", "currentValue": current, "options": options, **named}


OPTIONS = [
    select("mode", "a", "a", "b", category="mode"),
    select("model", "x", "x", "y", category="model"),
    {"id": "fast", "name": "Fast", "type": "boolean", "currentValue": False},
    {"id": "size", "name": "Size", "type": "select", "options": [{"group": "g", "options": [{"value": "s"}]}]},
    {"odd": True},
]


def raw(value: object) -> Raw:
    return Raw(json.dumps(value).encode())


def told(**members: object) -> Told:
    return Told.of(raw(members))


def everything() -> Told:
    return told(modes=MODES, models=MODELS, configOptions=OPTIONS)


def test_what_an_agent_tells_is_taken_from_its_answer() -> None:
    known = everything()
    assert (known.mode, known.modes_offered) == ("a", ["a", "b"])
    assert (known.model, known.models_offered) == ("x", ["x", "y"])
    assert [option.id for option in known.options] == ["mode", "model", "fast", "size"]
    assert [option.values for option in known.options] == [["a", "b"], ["x", "y"], [], ["s"]]


@pytest.mark.parametrize("odd", [None, 7, "x", [], {}, [1], {"availableModes": 7}, {"currentModeId": 7}])
def test_what_makes_no_sense_offers_nothing(odd: object) -> None:
    known = told(modes=odd, models=odd, configOptions=odd)
    assert (known.mode, known.modes_offered, known.model, known.models_offered) == (None, [], None, [])
    assert known.options == []
    with pytest.raises(NotOffered):
        step(known, "mode", "a")


def test_no_answer_and_an_endless_one_tell_nothing() -> None:
    assert Told.of(UNSET) == Told.of(raw(7)) == Told()
    assert told(modes={**MODES, "x": "y" * TOLD_LIMIT}).modes is UNSET


@pytest.mark.parametrize(
    ("known", "name", "value", "method", "params"),
    [
        (everything(), "mode", "b", "session/set_mode", {"modeId": "b"}),
        (everything(), "model", "y", "session/set_config_option", {"configId": "model", "value": "y"}),
        (told(models=MODELS), "model", "y", "session/set_model", {"modelId": "y"}),
        (told(configOptions=OPTIONS), "mode", "b", "session/set_config_option", {"configId": "mode", "value": "b"}),
        (
            everything(),
            "config.fast",
            True,
            "session/set_config_option",
            {"configId": "fast", "type": "boolean", "value": True},
        ),
        (everything(), "config.size", "s", "session/set_config_option", {"configId": "size", "value": "s"}),
    ],
)
def test_each_thing_is_set_as_the_agent_offers_it(
    known: Told, name: str, value: str | bool, method: str, params: dict[str, Any]
) -> None:
    needed = step(known, name, value)
    assert (needed.method, needed.params) == (method, params)


@pytest.mark.parametrize(
    ("name", "value"), [("mode", "a"), ("model", "x"), ("config.mode", "a"), ("config.fast", False)]
)
def test_what_is_so_already_is_known_to_be(name: str, value: str | bool) -> None:
    assert step(everything(), name, value).is_so


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "c"),
        ("model", "z"),
        ("config.none", "x"),
        ("config.fast", "yes"),
        ("config.mode", True),
        ("mode", True),
    ],
)
def test_what_is_not_offered_is_not_asked_for(name: str, value: str | bool) -> None:
    with pytest.raises(NotOffered):
        step(everything(), name, value)


def test_what_was_set_is_what_is_told_from_then_on() -> None:
    known = AcpSession("s", {}, everything())
    known.learn("session/set_mode", {"modeId": raw("b")}, raw({}))
    assert (known.mode, known.told.mode) == ("b", "b")
    option = known.told.option(category="mode")
    assert option is not None
    assert option.current_value == "b"
    known.learn("session/set_model", {"modelId": raw("y")}, raw({}))
    assert (known.model, known.told.model) == ("y", "y")
    changed = [select("mode", "a", "a", "b", category="mode"), *OPTIONS[1:]]
    known.learn(
        "session/set_config_option", {"configId": raw("mode"), "value": raw("a")}, raw({"configOptions": changed})
    )
    assert (known.config, known.told.mode, known.told.model) == ({"mode": "a"}, "a", "x")
    known.learn("session/set_config_option", {"configId": raw(7), "value": raw([])}, raw({}))
    assert known.config == {"mode": "a"}


def test_what_the_agent_reports_counts_as_set_where_it_is_a_change() -> None:
    known = AcpSession("s", {}, everything())
    assert known.hear("config_option_update", {"configOptions": raw(OPTIONS)})
    assert known.config == {}
    changed = [*OPTIONS[:2], {**OPTIONS[2], "currentValue": True}]
    assert known.hear("config_option_update", {"configOptions": raw(changed)})
    assert known.config == {"fast": True}
    assert known.hear("current_mode_update", {"currentModeId": raw("b")})
    assert (known.mode, known.told.mode) == ("b", "b")
    for kind in ("plan", "current_mode_update", "config_option_update"):
        assert not known.hear(kind, {})


def test_updates_of_sessions_that_nobody_knows_teach_nothing() -> None:
    memory = Memory(sessions={"s": AcpSession("s", {})})
    for id, learned in (("t", False), ("s", True)):
        update = {"sessionUpdate": "current_mode_update", "currentModeId": "b"}
        head = decode(json.dumps({"params": {"sessionId": id, "update": update}}).encode())
        assert memory.hear(head) == learned
    assert Memory.load(memory.dump()).sessions["s"].mode == "b"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["modes", "currentModeId", "availableModes", "id", "options", "value", "category"]),
                inner,
            )
        ),
        max_leaves=20,
    )
)
def test_nothing_that_an_agent_tells_breaks_anything(value: object) -> None:
    known = AcpSession("s", {}, told(modes=value, models=value, configOptions=value))
    known.hear("config_option_update", {"configOptions": raw([value])})
    known.hear("current_mode_update", {"currentModeId": raw(value)})
    for method in ("session/set_mode", "session/set_model", "session/set_config_option"):
        known.learn(method, {name: raw(value) for name in ("modeId", "modelId", "configId", "value")}, raw(value))
    Wanted(known.mode, known.model, known.config).where_told(known.told)
