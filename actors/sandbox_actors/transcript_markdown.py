"""A transcript as Markdown: made by us, filled by others, and still what we made.

Agents and files say what looks like structure: headings, fences, ends of fences. So what was said stands in a quote,
each of its lines with the mark of one, and what tools were given and gave back in a fence that is longer than any
inside. Nothing that is quoted can end its quote. Source: CommonMark 0.31, Block quotes, Fenced code blocks, Code spans.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias, assert_never

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .envelope import Json, text_of
from .transcript_entries import Ended, Message, Missing, Note, Plan, Prompted, ToolCall

if TYPE_CHECKING:
    from .transcript_entries import Entry

__all__ = ["as_markdown", "fenced", "inline", "quoted"]

SHOWN = 16 << 10
"""Characters of one text that a tool was given, or gave back. All of it is in the other formats."""

LINE_END = re.compile("\r\n|\r|\n")
BACKTICKS = re.compile("`+")

_SPEAKERS = {"user": "User", "agent": "Agent", "thought": "Thought", "summary": "Summary"}
_MARKS = {"completed": "x"}

Value: TypeAlias = "Raw | UnsetType"


def as_markdown(entry: Entry) -> str:
    """One entry, with a blank line behind it."""
    match entry:
        case Prompted():
            turn = f" {inline(entry.turn_id)}" if entry.turn_id is not UNSET else ""
            lines = [f"## Turn{turn}", f"*{entry.at}*", "### User", *[_block(block) for block in entry.content]]
        case Message():
            blocks = [] if entry.content is UNSET else entry.content
            lines = [f"### {_SPEAKERS[entry.role]}", quoted(entry.text), *[_block(block) for block in blocks]]
        case ToolCall():
            lines = _tool_call(entry)
        case Plan():
            lines = ["### Plan", "\n".join(_plan_lines(entry.entries))]
        case Ended():
            how = [_word(part) for part in (entry.outcome, entry.stop_reason) if part is not UNSET]
            lines = [f"*The turn ended{': ' if how else ''}*{', '.join(how)}"]
            if entry.error is not UNSET:
                lines.append(fenced(_pretty(entry.error), "json"))
        case Note():
            lines = [f"*{entry.at}* {inline(entry.kind)}", fenced(_pretty(entry.params), "json")]
        case Missing():
            lines = [f"*Events {entry.first} to {entry.last} are missing: {entry.reason}.*"]
        case _:
            assert_never(entry)
    return "\n\n".join(line for line in lines if line) + "\n\n"


def quoted(text: str) -> str:
    """A text in a block quote, each line for itself: none of them can end it."""
    return "\n".join(f"> {line}".rstrip(" ") for line in LINE_END.split(text)) if text else ""


def fenced(text: str, language: str = "") -> str:
    """A text in a fence that is longer than any run of backticks inside."""
    if not text:
        return ""
    if len(text) > SHOWN:
        text = f"{text[:SHOWN]}\n... and {len(text) - SHOWN} characters more"
    fence = "`" * max(3, _longest(text) + 1)
    return "\n".join([f"{fence}{language}", *LINE_END.split(text), fence])


def inline(text: str) -> str:
    """A text within a line, as a code span that no backtick inside can end."""
    text = " ".join(text.split())
    marks = "`" * (_longest(text) + 1)
    space = " " if text[:1] in ("`", "") or text[-1:] == "`" else ""
    return f"{marks}{space}{text}{space}{marks}"


def _longest(text: str) -> int:
    return max((len(run) for run in BACKTICKS.findall(text)), default=0)


def _word(value: Value) -> str:
    return inline(text_of(value) or "unknown")


def _pretty(value: Value) -> str:
    if value is UNSET:
        return ""
    try:
        return msgspec.json.format(bytes(value), indent=2).decode(errors="replace")
    except (msgspec.MsgspecError, RecursionError):
        return bytes(value).decode(errors="replace")


def _members(value: Value) -> dict[str, Json]:
    try:
        return {} if value is UNSET else msgspec.json.decode(value, type=dict[str, Json])
    except (msgspec.MsgspecError, RecursionError):
        return {}


def _items(value: Value) -> list[Raw]:
    try:
        return [] if value is UNSET else msgspec.json.decode(value, type=list[Raw])
    except (msgspec.MsgspecError, RecursionError):
        return []


def _block(block: Raw) -> str:
    """A content block of ACP: its text, or what it is."""
    members = _members(block)
    match members:
        case {"type": "text", "text": str(text)}:
            return quoted(text)
        case {"type": "image" | "audio" as kind, "mimeType": str(media), "data": str(data)}:
            return quoted(inline(f"{kind} {media}, about {len(data) * 3 // 4} bytes"))
        case {"type": "resource_link", "uri": str(uri)}:
            return quoted(inline(uri))
        case {"type": "resource", "resource": {"uri": str(uri), "text": str(text)}}:
            return f"{quoted(inline(uri))}\n\n{fenced(text)}"
        case {"type": "resource", "resource": {"uri": str(uri)}}:
            return quoted(inline(uri))
        case _:
            return fenced(_pretty(block), "json")


def _tool_call(call: ToolCall) -> list[str]:
    title = text_of(call.title) or text_of(call.tool_call_id) or ""
    kind, status = (text_of(value) or "unknown" for value in (call.kind, call.status))
    lines = [f"### Tool {inline(title)}", f"{inline(kind)}, {inline(status)}"]
    places = [_members(place).get("path") for place in _items(call.locations)]
    lines += [f"- {inline(path)}" for path in places if isinstance(path, str)]
    lines.append(fenced(_pretty(call.raw_input), "json"))
    content = _items(call.content)
    lines += [_result(_members(one), one) for one in content]
    if not content:
        lines.append(fenced(_pretty(call.raw_output), "json"))
    return lines


def _result(members: dict[str, Json], whole: Raw) -> str:
    match members:
        case {"type": "content", "content": {"type": "text", "text": str(text)}}:
            return fenced(text)
        case {"type": "diff", "path": str(path), "newText": str(new)}:
            return f"{inline(path)} is now\n\n{fenced(new)}"
        case {"type": "content", "content": content}:
            return _block(Raw(msgspec.json.encode(content)))
        case _:
            return fenced(_pretty(whole), "json")


def _plan_lines(entries: Raw) -> list[str]:
    members = [_members(entry) for entry in _items(entries)]
    return [f"- [{_MARKS.get(str(one.get('status')), ' ')}] {inline(str(one.get('content', '')))}" for one in members]
