"""Problems that many operations have in common."""

from __future__ import annotations

from .operation import Trouble

__all__ = [
    "EVERYWHERE",
    "FILES",
    "JSON_BODY",
    "LIMITED",
    "NOT_ACCEPTABLE",
    "NO_ENDPOINT",
    "NO_SESSION",
    "OVERLOADED",
    "SESSION_BODY",
    "SHUTTING_DOWN",
    "STALE",
    "STREAMED_BODY",
    "TOLD",
    "WRITING",
]

NOT_ACCEPTABLE = Trouble("not_acceptable")
OVERLOADED = Trouble("overloaded")
SHUTTING_DOWN = Trouble("shutting_down")

LIMITED = Trouble("agent_limit")
NO_SESSION = Trouble("session_not_found")

STALE = Trouble("stale_generation")

TOLD = (NO_SESSION, Trouble("session_closed"), OVERLOADED, STALE, Trouble("journal_unavailable"))
"""A session that is told something is not there, ends meanwhile, has too much to read, is another owner's by now, or
cannot keep whose it is."""

NO_ENDPOINT = Trouble("invalid_request", 404)
"""A part of the path has a form that leads nowhere."""

EVERYWHERE = (Trouble("invalid_request"), Trouble("permission_denied"), Trouble("internal_error"))
"""The first is about the path and the query, the second about Host and Origin; here and there about more."""

STREAMED_BODY = (Trouble("timeout", 408), Trouble("invalid_request", 413))
"""Nothing of the body comes any more; it is too large."""

SESSION_BODY = (*STREAMED_BODY, Trouble("unsupported_media_type"))
"""It is not declared as JSON; where it has another shape, that is `invalid_request` as usual."""

JSON_BODY = (*STREAMED_BODY, Trouble("unsupported_media_type"), Trouble("invalid_request", 422))
"""It is not declared as JSON, or has another shape."""

FILES = (Trouble("stream_error"),)
"""What the operating system says, but that there is no such path: that is a bad request."""

WRITING = (*FILES, Trouble("insufficient_storage"))
