"""What a session has used, in all the ways that agents tell it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.telling import Story
from sandbox_actors.journal import Origin
from sandbox_actors.usage import TURNS_KEPT, Usage


def used(story: Story) -> Usage:
    usage = Usage()
    for event in story.events:
        usage.add(event)
    return usage


def plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


def cost(amount: Any, currency: str = "USD", used: int = 10) -> dict[str, Any]:
    return {"used": used, "size": 100, "cost": {"amount": amount, "currency": currency}}


def test_tokens_are_those_of_the_answer_to_the_prompt() -> None:
    story = Story()
    for turn in ("turn_a", "turn_b"):
        story.begin(turn, "hi")
        story.end(turn, usage={"inputTokens": 10, "outputTokens": 2, "cachedReadTokens": 5, "totalTokens": 17})
    usage = used(story)
    assert [turn.turn_id for turn in usage.turns] == ["turn_a", "turn_b"]
    assert plain(usage.turns[0].tokens) == {"input": 10, "output": 2, "cachedRead": 5, "total": 17}
    assert plain(usage.total) == {
        "turns": 2,
        "tokens": {"input": 20, "output": 4, "cachedRead": 10, "total": 34},
    }


def test_tokens_may_stand_in_meta_and_a_total_that_is_not_told_is_the_sum() -> None:
    story = Story()
    story.prompt(1, "hi")
    story.answer(1, _meta={"quota": {"token_count": {"input_tokens": 3, "output_tokens": 4}}})
    assert plain(used(story).turns[0].tokens) == {"input": 3, "output": 4, "total": 7}


def test_tokens_that_come_piece_by_piece_are_added_up() -> None:
    story = Story()
    story.begin("turn_a", "hi")
    for _ in range(3):
        story.chunk("", _meta={"usage": {"inputTokens": 1, "outputTokens": 2}})
    story.end("turn_a")
    assert plain(used(story).total.tokens) == {"input": 3, "output": 6, "total": 9}


def test_tokens_of_the_answer_count_in_the_place_of_the_pieces() -> None:
    story = Story()
    story.begin("turn_a", "hi")
    story.chunk("", _meta={"usage": {"inputTokens": 1}})
    story.end("turn_a", usage={"inputTokens": 100})
    assert plain(used(story).total.tokens) == {"input": 100, "total": 100}


def test_a_turn_costs_the_difference_of_what_the_acp_session_has_cost() -> None:
    story = Story()
    story.update("usage_update", **cost(0.5))
    for turn, amount in (("turn_a", 0.75), ("turn_b", 2.0)):
        story.begin(turn, "hi")
        story.update("usage_update", **cost(amount))
        story.end(turn)
    usage = used(story)
    assert [turn.cost for turn in usage.turns] == [{"USD": 0.25}, {"USD": 1.25}]
    assert usage.total.cost == {"USD": 2.0}
    assert plain(usage.context) == [{"sessionId": "s1", "used": 10, "size": 100}]


def test_an_agent_that_counts_from_nothing_again_has_not_earned_money() -> None:
    story = Story()
    for amount in (2.0, 0.5, 0.75):
        story.update("usage_update", **cost(amount))
    assert used(story).total.cost == {"USD": 2.75}


def test_currencies_and_acp_sessions_are_counted_for_themselves() -> None:
    story = Story()
    story.update("usage_update", **cost(1.0))
    story.update("usage_update", session="other", **cost(1.0))
    story.update("usage_update", **cost(3.0, "EUR"))
    assert used(story).total.cost == {"USD": 2.0, "EUR": 3.0}


def test_an_agent_that_tells_nothing_has_turns_and_nothing_else() -> None:
    story = Story()
    story.begin("turn_a", "hi")
    story.end("turn_a")
    assert plain(used(story).total) == {"turns": 1}


def test_a_turn_that_a_crash_ends_keeps_what_was_told_of_it() -> None:
    story = Story()
    story.begin("turn_a", "hi")
    story.update("usage_update", **cost(1.0))
    story.say(Origin.NOTICE, {"id": "turn_a", "error": {}})
    story.notice("turn/ended", turnId="turn_a", outcome="failed")
    assert used(story).turns[0].cost == {"USD": 1.0}


def test_missing_events_are_admitted() -> None:
    usage = Usage()
    usage.gap(41)
    assert (usage.seq, usage.complete) == (41, False)


def test_only_the_newest_turns_are_kept_and_all_are_counted() -> None:
    story = Story()
    for number in range(TURNS_KEPT + 10):
        story.prompt(number, "hi")
        story.answer(number, usage={"inputTokens": 1})
    usage = used(story)
    assert (len(usage.turns), usage.total.turns) == (TURNS_KEPT, TURNS_KEPT + 10)
    assert plain(usage.total.tokens)["input"] == TURNS_KEPT + 10


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["amount", "currency", "usage", "inputTokens", "quota"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(anything, anything, anything)
def test_whatever_an_agent_tells_is_counted_or_ignored(one: Any, other: Any, third: Any) -> None:
    story = Story()
    story.begin("turn_a", "hi")
    story.update("usage_update", used=one, size=other, cost=third)
    story.chunk("", _meta=one)
    story.end("turn_a", usage=other, _meta=third)
    total = plain(used(story).total)
    assert all(amount >= 0 for amount in total.get("cost", {}).values())
    assert all(count >= 0 for count in total.get("tokens", {}).values())
