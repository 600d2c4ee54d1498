"""Markdown of a transcript: whatever was said, the structure is ours."""

from __future__ import annotations

import json
import re

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Raw

from sandbox_actors.transcript_entries import Ended, Entry, Message, Missing, Plan, Prompted, ToolCall
from sandbox_actors.transcript_markdown import SHOWN, as_markdown, fenced, inline, quoted

nasty = st.text(alphabet="`#>-*_=[]()<!\r\n\t ab1.\u2028\x0b", max_size=40)


def raw(value: object) -> Raw:
    return Raw(json.dumps(value).encode())


@given(nasty)
@example("text\n```\n# heading\r## again\r\nend")
def test_every_line_of_a_quote_has_its_mark(text: str) -> None:
    for line in re.split("\r\n|\r|\n", quoted(text)):
        assert line.startswith(">") or not text


@given(nasty)
@example("```\n````\n~~~\n`````")
def test_no_line_inside_ends_a_fence(text: str) -> None:
    lines = re.split("\r\n|\r|\n", fenced(text, "json"))
    if not text:
        assert lines == [""]
        return
    fence = lines[-1]
    assert set(fence) == {"`"}
    assert lines[0] == f"{fence}json"
    assert not any(re.match(rf" {{0,3}}`{{{len(fence)},}}\s*$", line) for line in lines[1:-1])


@given(nasty)
def test_a_text_within_a_line_is_one_code_span(text: str) -> None:
    span = inline(text)
    assert "\n" not in span
    assert "\r" not in span
    marks = re.match("`+", span)
    assert marks is not None
    body = span[len(marks[0]) : -len(marks[0])]
    assert span.endswith(marks[0])
    assert marks[0] not in re.findall("`+", body)
    assert body.strip() == " ".join(text.split())


def test_a_long_text_of_a_tool_is_cut_and_says_so() -> None:
    text = fenced("x" * (SHOWN + 5))
    assert "and 5 characters more" in text
    assert len(text) < SHOWN + 100


def test_a_turn_reads_as_a_conversation() -> None:
    entries: list[Entry] = [
        Prompted(seq=1, at="now", turn_id="turn_a", content=[raw({"type": "text", "text": "Hi\n# there"})]),
        Message(seq=2, role="agent", text="Hello\n\n```\nunclosed"),
        ToolCall(
            seq=3,
            title=raw("Edit `x`\n# y"),
            kind=raw("edit"),
            status=raw("completed"),
            locations=raw([{"path": "/a"}]),
            content=raw([{"type": "diff", "path": "/a", "newText": "new"}]),
        ),
        Plan(seq=4, entries=raw([{"content": "one", "status": "completed"}, {"content": "two"}])),
        Ended(seq=5, outcome=raw("completed"), stop_reason=raw("end_turn")),
        Missing(6, 7, "damaged"),
    ]
    text = "".join(as_markdown(entry) for entry in entries)
    assert text == (
        "## Turn `turn_a`\n\n*now*\n\n### User\n\n> Hi\n> # there\n\n"
        "### Agent\n\n> Hello\n>\n> ```\n> unclosed\n\n"
        "### Tool ``Edit `x` # y``\n\n`edit`, `completed`\n\n- `/a`\n\n`/a` is now\n\n```\nnew\n```\n\n"
        "### Plan\n\n- [x] `one`\n- [ ] `two`\n\n"
        "*The turn ended: *`completed`, `end_turn`\n\n"
        "*Events 6 to 7 are missing: damaged.*\n\n"
    )


def test_blocks_that_are_no_text_say_what_they_are() -> None:
    blocks = [
        {"type": "image", "mimeType": "image/png", "data": "AAAA"},
        {"type": "resource_link", "uri": "file:///x", "name": "x"},
        {"type": "resource", "resource": {"uri": "file:///y", "text": "```"}},
        {"type": "of tomorrow", "x": 1},
    ]
    text = as_markdown(Prompted(seq=1, at="now", content=[raw(block) for block in blocks]))
    assert "> `image image/png, about 3 bytes`" in text
    assert "> `file:///x`" in text
    assert "> `file:///y`\n\n````\n```\n````" in text
    assert '"of tomorrow"' in text
