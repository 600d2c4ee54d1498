"""What requests carry beside their bodies, read and checked in one way for all routes."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from quart import has_websocket_context, request, websocket

from .problems import Problem

__all__ = ["accepts", "check_query", "flag", "path_part", "require_json", "required"]


def accepts(media_type: str) -> bool:
    """Whether the client takes a type. As on the public wire, q-values do not count."""
    accept = request.headers.get("Accept")
    if accept is None:
        return True
    ranges = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return bool(ranges & {media_type, media_type.partition("/")[0] + "/*", "*/*"})


def require_json() -> None:
    """Raises `Problem` if the body does not say that it is JSON."""
    if request.mimetype != "application/json":
        raise Problem("unsupported_media_type", "content-type must be application/json")


async def check_query() -> None:
    """Refuse a query that is not UTF-8: read as what it almost says, it would name another file than is meant.

    Raises:
      Problem: `invalid_request`.
    """
    asked = websocket if has_websocket_context() else request
    if asked.routing_exception is not None or b"%" not in asked.query_string:
        return
    try:
        unquote_to_bytes(asked.query_string).decode()
    except UnicodeDecodeError:
        raise Problem("invalid_request", "Invalid URL: Invalid UTF-8 in the query") from None


def path_part(text: str, name: str) -> str:
    """A part of the path: routes get it as it came, percent-encoded.

    Raises:
      Problem: `invalid_request`, it is not UTF-8.
    """
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise Problem("invalid_request", f"Invalid URL: Invalid UTF-8 in `{name}`") from None


def flag(name: str, *, default: bool = False) -> bool:
    """A query parameter, also of a WebSocket's handshake, that is `true` or `false`; the default where it is absent.

    Raises:
      Problem: `invalid_request`, it is anything else.
    """
    text = (websocket if has_websocket_context() else request).args.get(name)
    if text is None:
        return default
    if text not in ("true", "false"):
        raise Problem("invalid_request", f"the query parameter {name!r} must be 'true' or 'false'")
    return text == "true"


def required(name: str) -> str:
    """A query parameter, also of a WebSocket's handshake, that has to be there.

    Raises:
      Problem: `invalid_request`, it is not.
    """
    text = (websocket if has_websocket_context() else request).args.get(name)
    if text is None:
        raise Problem("invalid_request", f"missing required {name!r} query parameter")
    return text
