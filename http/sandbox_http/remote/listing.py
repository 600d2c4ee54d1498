"""`session/list`, completed: ACP sessions that the daemon knows and the agent does not tell of.

An agent lists what its own process, or its store, knows. An ACP session that lives in another session of ours can be
loaded all the same, so it belongs in the list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Raw

from sandbox_actors.envelope import replace_members, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_actors.envelope import Head
    from sandbox_actors.session import Session

__all__ = ["listed"]


class _Listed(msgspec.Struct, rename="camel"):
    sessions: list[Raw]
    next_cursor: str | None = None


class _Entry(msgspec.Struct, rename="camel"):
    session_id: str = ""


def listed(head: Head, directory: str | None, known: Iterable[Session]) -> dict[str, Raw]:
    """The member `result` of an answer, completed; nothing where it stays as it is.

    Args:
      directory: the one that the client asked for; None: all.
      known: the sessions whose ACP sessions belong in the list.
    """
    try:
        answer = msgspec.json.decode(head.result, type=_Listed) if isinstance(head.result, Raw) else None
        told = {msgspec.json.decode(one, type=_Entry).session_id for one in answer.sessions} if answer else set[str]()
    except (msgspec.MsgspecError, RecursionError):
        return {}
    if answer is None or answer.next_cursor is not None or not isinstance(head.result, Raw):
        return {}
    entries = list(answer.sessions)
    for session in known:
        for id, acp_session in session.memory.sessions.items():
            where = text_of(acp_session.params.get("cwd"))
            # By the agent's own id it may be in the list already.
            if where is not None and directory in (None, where) and not told & {id, acp_session.agent_id}:
                told.add(id)
                entries.append(Raw(msgspec.json.encode({"sessionId": id, "cwd": where})))
    if len(entries) == len(answer.sessions):
        return {}
    return {"result": Raw(replace_members(bytes(head.result), {"sessions": Raw(msgspec.json.encode(entries))}))}
