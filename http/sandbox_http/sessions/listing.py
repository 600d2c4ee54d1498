"""`GET /v1/sessions`: which sessions there are, filtered, and page by page in the order of their ids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from quart import request

from ..problems import Problem
from ..process_bodies import number
from ..requests import flag
from .answers import STATES, SessionView, session_view, shown_state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox_actors.files import FileSystem
    from sandbox_actors.session import Session

__all__ = ["SessionsView", "listed"]

LIMIT, MOST = 100, 1000
"""Sessions of a page."""


class SessionsView(msgspec.Struct, rename="camel"):
    """A page. `next_cursor` is where the next one begins; None where this is the last."""

    sessions: list[SessionView]
    next_cursor: str | None


def listed(sessions: Sequence[Session], files: FileSystem, epoch: str) -> SessionsView:
    """The page that the present request asks for, by `agent`, `state`, `tag`, `native`, `limit` and `cursor`.

    Args:
      sessions: all there are, sorted by id.

    Raises:
      Problem: a parameter makes no sense.
    """
    limit = number("limit")
    if limit is not None and not 1 <= limit <= MOST:
        raise Problem("invalid_request", f"the query parameter 'limit' must be between 1 and {MOST}")
    state, agent, cursor = (request.args.get(name) for name in ("state", "agent", "cursor"))
    if state is not None and state not in STATES:
        raise Problem("invalid_request", f"unknown state {state!r}, expected one of {', '.join(STATES)}")
    native = flag("native") if "native" in request.args else None
    tags = [_tag(text) for text in request.args.getlist("tag")]
    found = [
        session
        for session in sessions
        if (cursor is None or session.log.row.id > cursor)
        and agent in (None, session.log.row.agent)
        and state in (None, shown_state(session))
        and native in (None, session.setup.native)
        and all(session.setup.tags.get(key) == value for key, value in tags)
    ]
    page = found[: limit or LIMIT]
    more = len(found) > len(page)
    return SessionsView([session_view(one, files, epoch) for one in page], page[-1].log.row.id if more else None)


def _tag(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not colon or not key:
        raise Problem("invalid_request", f"the query parameter 'tag' must be key:value, not {text!r}")
    return key, value
