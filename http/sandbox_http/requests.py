"""What requests carry beside their bodies, read and checked in one way for all routes."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from quart import request

from .problems import Problem

__all__ = ["accepts", "flag", "path_part", "require_json"]


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


def path_part(text: str, name: str) -> str:
    """A part of the path: routes get it as it came, percent-encoded.

    Raises:
      Problem: `invalid_request`, it is not UTF-8.
    """
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise Problem("invalid_request", f"Invalid URL: Invalid UTF-8 in `{name}`") from None


def flag(name: str) -> bool:
    """A query parameter that is `true` or `false`; False where it is absent.

    Raises:
      Problem: `invalid_request`, it is anything else.
    """
    text = request.args.get(name, "false")
    if text not in ("true", "false"):
        raise Problem("invalid_request", f"the query parameter {name!r} must be 'true' or 'false'")
    return text == "true"
