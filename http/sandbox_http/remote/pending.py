"""Questions that were open when a connection came to an ACP session: it is asked them again.

Whoever was asked first may have gone, and the turn waits. The question itself lies behind the point from which the
connection is told, so it is made again out of what the session keeps of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Raw

from sandbox_actors.envelope import Json, members_of, request
from sandbox_actors.permissions.permission import ELICITATION, PERMISSION

from .labels import question_id

if TYPE_CHECKING:
    from collections.abc import Collection

    from sandbox_actors.permissions.permission import Permission
    from sandbox_actors.session import Session

__all__ = ["asked_again", "open_questions"]


def open_questions(session: Session, acp_session: str) -> tuple[str, ...]:
    """The ids of what the agent asks in an ACP session at present."""
    return tuple(one.id for one in session.permissions.pending() if one.session_id == acp_session)


def asked_again(session: Session, ids: Collection[str]) -> list[tuple[str, bytes]]:
    """Those of these questions that nobody has answered since, each with its ACP session."""
    row = session.log.row
    return [
        (one.session_id or "", request(question_id(row.key, row.incarnation, one.request_id), *_said(one)))
        for one in session.permissions.pending()
        if one.id in ids
    ]


def _said(permission: Permission) -> tuple[str, dict[str, Json]]:
    """The method and the params of a question."""
    params: dict[str, Json] = {"sessionId": permission.session_id}
    if permission.kind == "elicitation":
        return ELICITATION, params | members_of(permission.elicitation)
    if isinstance(permission.tool_call, Raw):
        params["toolCall"] = permission.tool_call
    return PERMISSION, params | {"options": permission.options}
