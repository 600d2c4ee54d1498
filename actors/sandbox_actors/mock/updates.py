"""Updates: what a well-behaved agent does in a turn, one function a command."""

from __future__ import annotations

import json
import os
import time
from itertools import islice

from .params import members
from .script import Misuse
from .store import timestamp
from .wire import RpcError, chunk, encode, update_message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .script import Words
    from .turn import Turn
    from .wire import Json, Object

# An unpaced stream writes as much as fits below half a pipe's capacity, so that writer and reader overlap.
BATCH = 32768
LINE_SIZE = 200
CONTEXT_WINDOW = 200_000
# As in claude's adapter, the ids are unlike the kinds: a client that matches by id is found out.
PERMISSIONS = {
    "allow_once": ("yes", "Allow"),
    "allow_always": ("yes-always", "Always allow"),
    "reject_once": ("no", "Reject"),
    "reject_always": ("no-never", "Always reject"),
}
TOOL_KINDS = ("read", "edit", "delete", "move", "search", "execute", "think", "fetch", "switch_mode", "other")


def echo(turn: Turn, words: Words) -> None:
    turn.echo(words.rest(""))


def think(turn: Turn, words: Words) -> None:
    turn.update(chunk("agent_thought_chunk", words.rest()))


def stream(turn: Turn, words: Words) -> None:
    total, size, rate = words.whole(), words.whole(LINE_SIZE), words.number(0)
    turn.session.remember("agent", f"(streamed {total} updates)")
    stream_lines(turn, total, size, rate)


def stream_lines(turn: Turn, total: int, size: int = LINE_SIZE, rate: float = 0) -> None:
    lines, longest = _lines(turn.session.id, total, size)
    if rate:
        start = time.monotonic()
        for number, line in enumerate(lines):
            early = start + number / rate - time.monotonic()
            turn.sleep(early) if early > 0 else turn.check()
            turn.wire.write(line)
        return
    fitting = max(1, BATCH // longest)
    while batch := b"".join(islice(lines, fitting)):
        turn.check()
        turn.wire.write(batch)


def huge(turn: Turn, words: Words) -> None:
    size = words.whole()
    turn.session.remember("agent", f"(one update of {size} bytes)")
    stream_lines(turn, 1, size)


def _lines(session: str, total: int, size: int) -> tuple[Iterator[bytes], int]:
    """Numbered chunks of about `size` bytes a line, made without encoding each, and the length of the longest."""
    marked = encode(update_message(session, chunk("agent_message_chunk", "#")))
    head, tail = marked.split(b'"text":"#"', 1)
    head, tail = head + b'"text":"', b'"' + tail
    room = max(0, size - len(head) - len(tail))
    filler = b"x" * room

    def lines() -> Iterator[bytes]:
        for number in range(1, total + 1):
            mark = b"#%d/%d " % (number, total)
            yield b"%b%b%b%b" % (head, mark, filler[len(mark) :], tail)

    return lines(), len(head) + max(room, len(b"#%d/%d " % (total, total))) + len(tail)


def tool(turn: Turn, words: Words) -> None:
    title = words.rest("Look around")
    call = _tool_call(title, "other", rawInput={"name": title})
    turn.update({"sessionUpdate": "tool_call", **call})
    _progress(turn, call, "in_progress")
    _progress(turn, call, "completed", content=[_text(f"{title}: done")], rawOutput={"ok": True})


def write(turn: Turn, words: Words) -> None:
    _write(turn, words, ask_first=False)


def write_if_allowed(turn: Turn, words: Words) -> None:
    _write(turn, words, ask_first=True)


def _write(turn: Turn, words: Words, *, ask_first: bool) -> None:
    path = os.path.join(turn.session.cwd, words.word())
    new = words.rest("").replace("\\n", "\n")
    old = _read(path)
    diff: Object = {"type": "diff", "path": path, "oldText": old, "newText": new}
    call = _tool_call(f"Write {path}", "edit", content=[diff], locations=[{"path": path}])
    turn.update({"sessionUpdate": "tool_call", **call})
    if ask_first and not (decision := _ask_permission(turn, call)).startswith("allow"):
        _progress(turn, call, "failed", content=[_text(f"not allowed: {decision}")])
        turn.say(f"not written: {decision}")
        return
    _progress(turn, call, "in_progress")
    try:
        with open(path, "w", encoding="utf-8", errors="surrogatepass") as file:
            file.write(new)
    except (OSError, ValueError) as error:
        _progress(turn, call, "failed", content=[_text(str(error))])
        turn.say(f"not written: {error}")
        return
    _progress(turn, call, "completed", content=[diff])
    turn.say(f"wrote {path}")


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except (OSError, ValueError):
        return None


def permission(turn: Turn, words: Words) -> None:
    title = words.rest("Run a command")
    kind, colon, described = title.partition(":")
    kind, title = (kind, described.strip()) if colon and kind in TOOL_KINDS else ("execute", title)
    turn.say(f"permission: {_ask_permission(turn, _tool_call(title, kind))}")


def _ask_permission(turn: Turn, call: Object) -> str:
    """The kind of the option that the client chose, `cancelled`, or what is wrong with the answer."""
    options: list[Json] = [
        {"optionId": option, "name": name, "kind": kind} for kind, (option, name) in PERMISSIONS.items()
    ]
    params: Object = {"sessionId": turn.session.id, "toolCall": call, "options": options}
    try:
        answer = turn.ask("session/request_permission", params)
    except RpcError as error:
        return f"error {error.code} {error.message}"
    match answer:
        case {"outcome": {"outcome": "selected", "optionId": str(chosen)}}:
            return next((kind for kind, (option, _) in PERMISSIONS.items() if option == chosen), f"unknown {chosen}")
        case {"outcome": {"outcome": "cancelled"}}:
            return "cancelled"
        case _:
            return f"unknown {json.dumps(answer)}"


def plan(turn: Turn, words: Words) -> None:
    tasks = [task for part in words.rest().split(";") if (task := part.strip())]
    for done in range(len(tasks) + 1):
        entries: list[Json] = [
            {"content": task, "priority": "medium", "status": _status(number - done)}
            for number, task in enumerate(tasks)
        ]
        turn.update({"sessionUpdate": "plan", "entries": entries})


def _status(ahead: int) -> str:
    return "completed" if ahead < 0 else "pending" if ahead > 0 else "in_progress"


def usage(turn: Turn, words: Words) -> None:
    said = sum(len(text) for _, text in turn.session.entries)
    used, size = words.whole(said), words.whole(CONTEXT_WINDOW)
    cost: Object = {"amount": used / 1_000_000, "currency": "USD"}
    turn.update({"sessionUpdate": "usage_update", "used": used, "size": size, "cost": cost})


def title(turn: Turn, words: Words) -> None:
    turn.session.name(words.rest())
    updated = timestamp(time.time())
    turn.update({"sessionUpdate": "session_info_update", "title": turn.session.title, "updatedAt": updated})


def ask_client(turn: Turn, words: Words) -> None:
    method = words.word()
    try:
        params = members(json.loads(words.rest("{}")))
    except (ValueError, RecursionError, RpcError) as error:
        raise Misuse(f"not a JSON object: {error}") from error
    try:
        answer = turn.ask(method, {"sessionId": turn.session.id, **params})
    except RpcError as error:
        turn.say(f"error: {json.dumps(error.body())}")
    else:
        turn.say(f"answer: {json.dumps(answer)}")


def _tool_call(title: str, kind: str, **more: Json) -> Object:
    call = f"tool-{os.urandom(4).hex()}"
    return {"toolCallId": call, "title": title, "kind": kind, "status": "pending", **more}


def _progress(turn: Turn, call: Object, status: str, **more: Json) -> None:
    turn.update({"sessionUpdate": "tool_call_update", "toolCallId": call["toolCallId"], "status": status, **more})


def _text(text: str) -> Object:
    return {"type": "content", "content": {"type": "text", "text": text}}
