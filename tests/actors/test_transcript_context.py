"""What is told of a conversation: its newest part, joined, within a bound."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox_actors.envelope import decode
from sandbox_actors.journal import open_journal
from sandbox_actors.recovery import Recovered
from sandbox_actors.routed import AGENT, CLIENT, DAEMON, NOTICE
from sandbox_actors.transcript_context import CUT, ENDING, PREAMBLE, WINDOW, Contexts, Item, framed, transcript_of

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_actors.journal import Journal, SessionLog

Line = tuple[int, dict[str, Any]]


def prompted(words: str, session: str = "s", **more: Any) -> Line:
    blocks = [{"type": "text", "text": words}, *more.get("blocks", [])]
    return CLIENT, {"id": 1, "method": "session/prompt", "params": {"sessionId": session, "prompt": blocks}}


def update(kind: str, session: str = "s", **members: Any) -> Line:
    params = {"sessionId": session, "update": {"sessionUpdate": kind, **members}}
    return AGENT, {"method": "session/update", "params": params}


def chunk(words: str, kind: str = "agent_message_chunk", session: str = "s") -> Line:
    return update(kind, session, content={"type": "text", "text": words})


def append(journal: Journal, log: SessionLog, *lines: Line) -> None:
    envelopes = [json.dumps({"jsonrpc": "2.0", **message}).encode() for _, message in lines]
    journal.append(log, 1, bytes(origin for origin, _ in lines), envelopes)


async def told(path: Path, *lines: Line, limit: int = 48 << 10) -> str:
    async with open_journal(path, synchronous="NORMAL") as journal:
        log = await journal.create("s", "mock")
        append(journal, log, *lines)
        await journal.flush()
        return await transcript_of(log, "s", limit)


def whole(*items: str) -> str:
    return PREAMBLE + "\n\n".join(items) + ENDING


async def test_messages_are_joined_and_a_tool_call_is_one_line(path: Path) -> None:
    image = {"type": "image", "data": "AAAA", "mimeType": "image/png"}
    link = {"type": "resource_link", "uri": "file:///a", "name": "a"}
    embedded = {"type": "resource", "resource": {"uri": "file:///b", "text": "long"}}
    assert await told(
        path,
        prompted("look at these", blocks=[image, link, embedded]),
        chunk("hmm", "agent_thought_chunk"),
        chunk("I "),
        chunk("will"),
        update("tool_call", toolCallId="1", title="Read\n  a", status="pending"),
        update("tool_call_update", toolCallId="1", status="completed"),
        update("tool_call_update", toolCallId="2", status="failed"),
        update("plan", entries=[]),
        chunk("Done."),
        prompted("thanks"),
        (NOTICE, {"method": "_sandboxagent/turn/failed", "params": {"sessionId": "s", "requestId": 1}}),
    ) == whole(
        "User: look at these\n[image]\n[file:///a]\n[file:///b]",
        "Agent: I will",
        "Tool: Read a (completed)",
        "Agent: Done.",
        "User: thanks",
        "Note: the agent's process ended here, before it had finished",
    )


async def test_what_is_of_another_session_or_nobodys_is_left_out(path: Path) -> None:
    hidden = update("agent_message_chunk", content={"type": "text", "text": "hidden"})
    assert await told(
        path,
        prompted("here"),
        prompted("there", session="t"),
        chunk("there", session="t"),
        (DAEMON, hidden[1]),
        (AGENT, {"id": 1, "result": {"sessionId": "s"}}),
        (CLIENT, {"method": "session/cancel", "params": {"sessionId": "s"}}),
    ) == whole("User: here")


@pytest.mark.parametrize("lines", [[], [prompted("", session="t")], [prompted("  ")]])
async def test_nothing_said_is_nothing_told(path: Path, lines: list[Line]) -> None:
    assert await told(path, *lines) == ""


async def test_a_prompt_that_the_agent_tells_back_is_told_once(path: Path) -> None:
    back, more = chunk("say it", "user_message_chunk"), chunk("from elsewhere", "user_message_chunk")
    assert await told(path, prompted("say it"), back, chunk("it"), more) == whole(
        "User: say it", "Agent: it", "User: from elsewhere"
    )


async def test_the_newest_part_is_kept_within_the_bound(path: Path) -> None:
    lines = [line for n in range(200) for line in (prompted(f"question {n}"), chunk(f"answer {n}"))]
    text = await told(path, *lines, limit=1000)
    assert text.startswith(PREAMBLE + CUT)
    assert text.endswith("User: question 199\n\nAgent: answer 199" + ENDING)
    assert 900 < len(text.encode()) <= 1000
    assert await told(path.with_name("b"), *lines, limit=len((PREAMBLE + CUT + ENDING).encode()) + 3) == ""


async def test_a_long_message_is_told_by_its_beginning_and_its_end(path: Path) -> None:
    text = await told(path, prompted("a" * 20_000 + "z"), *[chunk("b" * 5000) for _ in range(4)], chunk("!"))
    assert len(text) < 20_000
    assert "aaaa\n[...]\naaaa" in text
    assert "aaz\n" in text
    assert "bb!" + ENDING in text


async def test_an_answer_that_is_longer_than_one_window_is_one_message(path: Path) -> None:
    lines = [prompted("count"), *[chunk(f"{n} ") for n in range(2 * WINDOW + 10)]]
    text = await told(path, *lines, limit=200_000)
    assert text.count("Agent: ") == 1
    assert text.startswith(PREAMBLE + "User: count\n\nAgent: 0 1 2 ")
    assert text.endswith(f"{2 * WINDOW + 9}{ENDING}")


@settings(max_examples=30)
@given(words=st.lists(st.text(min_size=1, max_size=30), max_size=12), limit=st.integers(200, 2000))
def test_the_bound_holds_for_any_words(words: list[str], limit: int) -> None:
    items = [Item("user", [text]) for text in words]
    text = framed(items, limit, complete=True)
    assert text == "" or len(text.encode()) <= limit


def test_it_is_added_to_the_first_prompt_of_its_session_and_to_nothing_else() -> None:
    contexts = Contexts([Recovered("s", "t", "replayed", "what was said"), Recovered("u", "u", "resumed")])

    def sent(message: dict[str, Any]) -> Any:
        envelope = json.dumps({"jsonrpc": "2.0", **message}).encode()
        added = contexts.told_with(envelope, decode(envelope))
        return None if added is None else (json.loads(added[0]), added[1], json.loads(added[2])["params"])

    _, prompt = prompted("go on")
    assert sent({"method": "session/cancel", "params": {"sessionId": "s"}}) is None
    assert sent(prompted("go on", session="u")[1]) is None
    assert sent({**prompt, "params": {"sessionId": "s", "prompt": "odd"}}) is None
    envelope, session, notice = sent(prompt)
    assert envelope["params"] == {
        "sessionId": "s",
        "prompt": [{"type": "text", "text": "go on"}, {"type": "text", "text": "what was said"}],
    }
    assert (session, notice) == ("s", {"sessionId": "s", "requestId": 1, "bytes": len("what was said")})
    assert sent(prompt) is None
