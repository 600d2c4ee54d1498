"""The transcript: chunks become messages, tool calls stand where they began, and nothing grows with the past."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.telling import Story
from sandbox_actors.journal import Gap, Origin
from sandbox_actors.transcript import WAITING_LIMIT, Transcript

if TYPE_CHECKING:
    from sandbox_actors.transcript_entries import Entry


def entries_of(story: Story, **options: Any) -> list[dict[str, Any]]:
    transcript = Transcript(**options)
    entries: list[Entry] = []
    for event in story.events:
        entries += transcript.add(event)
    entries += transcript.end()
    return [json.loads(msgspec.json.encode(entry)) for entry in entries]


def shown(story: Story, **options: Any) -> list[tuple[str, str | None]]:
    """The entries in short: their type, and their text or what else tells them apart."""
    return [
        (one["type"], one.get("text") or one.get("title") or one.get("outcome") or one.get("kind"))
        for one in entries_of(story, **options)
    ]


def test_a_turn_is_told_from_its_prompt_to_its_outcome() -> None:
    story = Story()
    story.begin("turn_a", "Hi there")
    story.chunk("Hm", "agent_thought")
    for piece in ("Hel", "lo", " you"):
        story.chunk(piece)
    story.end("turn_a")
    prompt, thought, message, ended = entries_of(story)
    assert prompt == {
        "type": "prompt",
        "seq": 2,
        "at": "2023-11-14T22:13:20.000Z",
        "sessionId": "s1",
        "turnId": "turn_a",
        "content": [{"type": "text", "text": "Hi there"}],
    }
    assert (thought["role"], thought["text"]) == ("thought", "Hm")
    assert (message["role"], message["text"], message["seq"], message["turnId"]) == (
        "agent",
        "Hello you",
        5,
        "turn_a",
    )
    assert (ended["type"], ended["outcome"], ended["stopReason"]) == ("turn_ended", "completed", "end_turn")


def test_thoughts_are_left_out_where_nobody_wants_them() -> None:
    story = Story()
    story.begin("turn_a", "hi")
    story.chunk("hm", "agent_thought")
    story.chunk("a")
    story.chunk("hm", "agent_thought")
    story.chunk("b")
    story.end("turn_a")
    assert [text for kind, text in shown(story, thoughts=False) if kind == "message"] == ["ab"]


def test_a_tool_call_stands_where_it_began_as_it_was_in_the_end() -> None:
    story = Story()
    story.begin("turn_a", "hi")
    story.chunk("before")
    story.update("tool_call", toolCallId="1", title="Look", kind="read", status="pending", rawInput={"a": 1})
    story.chunk("aft")
    story.update("tool_call_update", toolCallId="1", status="in_progress", title=None)
    story.chunk("er")
    story.update("tool_call_update", toolCallId="1", status="completed", rawOutput="ok", title="Looked")
    story.end("turn_a")
    assert shown(story) == [
        ("prompt", None),
        ("message", "before"),
        ("tool_call", "Looked"),
        ("message", "after"),
        ("turn_ended", "completed"),
    ]
    call = entries_of(story)[2]
    assert (call["status"], call["kind"], call["rawInput"], call["rawOutput"]) == ("completed", "read", {"a": 1}, "ok")


def test_a_plan_is_told_once_as_it_was_when_the_next_thing_happened() -> None:
    story = Story()
    story.begin("turn_a", "hi")
    for done in ("pending", "completed"):
        story.update("plan", entries=[{"content": "x", "status": done}])
    story.chunk("done")
    story.end("turn_a")
    plans = [one for one in entries_of(story) if one["type"] == "plan"]
    assert [plan["entries"][0]["status"] for plan in plans] == ["completed"]


def test_two_acp_sessions_that_speak_at_once_are_not_mixed() -> None:
    story = Story()
    story.begin("turn_a", "hi", session="a")
    story.begin("turn_b", "ho", session="b")
    for number in range(3):
        story.chunk(f"a{number}", session="a")
        story.chunk(f"b{number}", session="b")
    story.end("turn_b")
    story.end("turn_a")
    assert [text for kind, text in shown(story) if kind == "message"] == ["a0a1a2", "b0b1b2"]
    assert [text for kind, text in shown(story, turn="turn_b") if kind == "message"] == ["b0b1b2"]


def test_of_one_turn_nothing_else_is_told() -> None:
    story = Story()
    for turn in ("turn_a", "turn_b"):
        story.begin(turn, turn)
        story.chunk(f"said in {turn}")
        story.end(turn)
    assert [one["turnId"] for one in entries_of(story, turn="turn_b")] == ["turn_b"] * 3


def test_a_prompt_that_the_agent_repeats_is_told_once() -> None:
    story = Story()
    story.begin("turn_a", "hi")
    story.chunk("h", "user_message")
    story.chunk("i", "user_message")
    story.chunk("hello")
    story.end("turn_a")
    assert [one.get("role") for one in entries_of(story)] == [None, "agent", None]


def test_a_raw_turn_ends_with_its_answer_and_its_error_is_told() -> None:
    story = Story()
    story.prompt(3, "hi")
    story.chunk("hello")
    story.answer(3)
    story.prompt(3, "again")
    story.say(Origin.NOTICE, {"id": 3, "error": {"code": 1, "message": "gone"}})
    ends = [one for one in entries_of(story) if one["type"] == "turn_ended"]
    assert [(one.get("stopReason"), one.get("error")) for one in ends] == [
        ("end_turn", None),
        (None, {"code": 1, "message": "gone"}),
    ]


def test_what_is_no_text_is_kept_beside_it() -> None:
    story = Story()
    image = {"type": "image", "mimeType": "image/png", "data": "AAAA"}
    story.begin("turn_a", "hi")
    story.chunk("look: ")
    story.update("agent_message_chunk", content=image)
    story.end("turn_a")
    message = entries_of(story)[1]
    assert (message["text"], message["content"]) == ("look: ", [image])


def test_a_replay_without_a_turn_is_told_as_it_comes() -> None:
    story = Story()
    story.chunk("question", "user_message")
    story.chunk("answer")
    story.update("tool_call", toolCallId="1", title="Look", status="completed")
    story.chunk("more")
    transcript = Transcript()
    counts = [len(transcript.add(event)) for event in story.events]
    assert counts == [0, 1, 2, 0]


def test_a_gap_is_told_and_ends_what_was_open() -> None:
    story = Story()
    story.begin("turn_a", "hi")
    story.chunk("hal")
    transcript = Transcript()
    before = [entry for event in story.events for entry in transcript.add(event)]
    told = before + transcript.gap(Gap(5, 9, "damaged", 10))
    assert [type(entry).__name__ for entry in told] == ["Prompted", "Message", "Missing"]
    assert json.loads(msgspec.json.encode(told[-1])) == {"type": "gap", "from": 5, "to": 9, "reason": "damaged"}


def test_notes_tell_what_became_of_the_agent_and_of_permissions() -> None:
    story = Story()
    story.notice("permission/resolved", permissionId="p", outcome="selected", by="client")
    story.notice("session/recovered", sessionId="s1", fidelity="new")
    story.notice("turn/queued", turnId="t")
    assert [(one["kind"], one["params"].get("by")) for one in entries_of(story)] == [
        ("permission.resolved", "client"),
        ("session.recovered", None),
    ]


def test_a_turn_of_any_length_waits_with_a_bounded_number_of_bytes() -> None:
    story = Story()
    story.begin("turn_a", "hi")
    story.update("tool_call", toolCallId="1", title="Forever", status="pending")
    transcript = Transcript()
    for event in story.events:
        transcript.add(event)
    piece, text, most = "x" * 10_000, "", 0
    for _ in range(300):
        story.events.clear()
        story.chunk(piece)
        entries = transcript.add(story.events[0])
        text += "".join(getattr(entry, "text", "") for entry in entries)
        most = max(most, transcript.waiting_bytes)
    text += "".join(getattr(entry, "text", "") for entry in transcript.end())
    assert text == piece * 300
    assert most <= WAITING_LIMIT


@pytest.mark.parametrize("content", [None, 5, [], {"type": "text"}, {"type": "text", "text": 5}])
def test_a_chunk_of_another_shape_does_no_harm(content: Any) -> None:
    story = Story()
    story.update("agent_message_chunk", content=content)
    story.chunk("fine")
    assert entries_of(story)[0]["text"] == "fine"


def test_half_a_character_does_not_hide_the_rest() -> None:
    story = Story()
    story.say(
        Origin.AGENT,
        b'{"method":"session/update","params":{"sessionId":"s1","update":{"sessionUpdate":"agent_message_chunk",'
        b'"content":{"type":"text","text":"cut \\ud83d"}}}}',
    )
    assert entries_of(story)[0]["text"] == "cut �"


pieces = st.text(alphabet="ab \n#`>é", max_size=4)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), pieces),
        st.tuples(st.just("think"), pieces),
        st.tuples(st.just("call"), st.sampled_from("12")),
        st.tuples(st.just("finish"), st.sampled_from("12")),
        st.tuples(st.just("plan"), pieces),
        st.tuples(st.just("noise"), pieces),
    ),
    max_size=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=4))
def test_every_word_is_told_once_and_in_order_and_no_message_is_split_without_reason(turns: list[Any]) -> None:
    story = Story()
    words = ""
    for number, doings in enumerate(turns):
        story.begin(f"turn_{number}", "q")
        for what, text in doings:
            match what:
                case "say":
                    story.chunk(text)
                    words += text
                case "think":
                    story.chunk(text, "agent_thought")
                case "call":
                    story.update("tool_call", toolCallId=text, title=text, status="pending")
                case "finish":
                    story.update("tool_call_update", toolCallId=text, status="completed")
                case "plan":
                    story.update("plan", entries=[{"content": text}])
                case _:
                    story.update("available_commands_update", availableCommands=[])
        story.end(f"turn_{number}")
    entries = entries_of(story)
    assert "".join(one["text"] for one in entries if one.get("role") == "agent") == words
    assert [one["seq"] for one in entries] == sorted(one["seq"] for one in entries)
    assert [one["type"] for one in entries].count("turn_ended") == len(turns)
    for one, following in pairwise(entries):
        assert not (one["type"] == following["type"] == "message" and one["role"] == following["role"])
