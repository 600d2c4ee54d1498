"""Which turn an event belongs to."""

from __future__ import annotations

from actors.telling import Story
from sandbox_actors.journal import Origin
from sandbox_actors.kinds import glance
from sandbox_actors.turn_spans import TurnSpans


def turns_of(story: Story) -> list[str | None]:
    """For each event the id of its turn; a raw turn goes by its request's id."""
    spans = TurnSpans()
    found: list[str | None] = []
    for event in story.events:
        span = spans.of(event, glance(event.envelope))
        found.append(None if span is None else span.turn_id or span.request_id.decode())
    return found


def test_a_native_turn_has_all_from_its_queueing_to_its_end() -> None:
    story = Story()
    story.chunk("before")
    story.begin("turn_a", "hi")
    story.chunk("hello")
    story.end("turn_a")
    story.chunk("after")
    assert turns_of(story) == [None, *["turn_a"] * 6, None]


def test_turns_in_two_acp_sessions_do_not_mix() -> None:
    story = Story()
    story.begin("turn_a", "hi", session="a")
    story.begin("turn_b", "hi", session="b")
    story.chunk("1", session="b")
    story.chunk("2", session="a")
    story.chunk("3", session="c")
    story.end("turn_a")
    story.chunk("4", session="b")
    assert turns_of(story)[6:] == ["turn_b", "turn_a", None, "turn_a", "turn_a", "turn_b"]


def test_a_queued_turn_has_its_own_notices_only() -> None:
    story = Story()
    story.begin("turn_a", "hi")
    story.notice("turn/queued", turnId="turn_b", waiting=1)
    story.chunk("for a")
    story.notice("turn/ended", turnId="turn_b", outcome="cancelled")
    story.end("turn_a")
    assert turns_of(story)[3:6] == ["turn_b", "turn_a", "turn_b"]


def test_a_raw_prompt_is_a_turn_from_its_request_to_its_answer() -> None:
    story = Story()
    story.prompt(7, "hi")
    story.chunk("hello")
    story.answer(7)
    story.chunk("after")
    assert turns_of(story) == ["7", "7", "7", None]


def test_a_prompt_that_never_was_queued_is_a_raw_one_whatever_its_id() -> None:
    story = Story()
    story.prompt("turn_mine", "hi")
    story.answer("turn_mine")
    story.chunk("after")
    assert turns_of(story) == ['"turn_mine"', '"turn_mine"', None]


def test_the_agents_questions_and_their_answers_belong_to_the_turn_that_asked() -> None:
    story = Story()
    story.begin("turn_a", "hi", session="a")
    story.begin("turn_b", "hi", session="b")
    ask = {"id": 1, "method": "session/request_permission", "params": {"sessionId": "b"}}
    story.say(Origin.AGENT, ask)
    story.say(Origin.CLIENT, {"id": 1, "result": {}})
    story.say(Origin.AGENT, {"id": 2, "method": "fs/read_text_file", "params": {"sessionId": "a"}})
    story.say(Origin.DAEMON, {"id": 2, "result": {}})
    assert turns_of(story)[6:] == ["turn_b", "turn_b", "turn_a", "turn_a"]


def test_a_crash_ends_a_raw_turn_and_what_names_no_session_belongs_to_the_only_one() -> None:
    story = Story()
    story.prompt(1, "hi")
    story.notice("agent/exited")
    story.say(Origin.NOTICE, {"id": 1, "error": {}})
    story.notice("agent/restarted")
    assert turns_of(story) == ["1", "1", "1", None]


def test_the_end_of_a_turn_whose_beginning_is_gone_is_still_its_own() -> None:
    story = Story()
    story.notice("turn/ended", turnId="turn_a", outcome="failed")
    assert turns_of(story) == ["turn_a"]
