"""`/v1/tokens` and `/v1/tickets`: who may come in, made, replaced and taken back while the daemon runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from quart import Blueprint, Response, request

from .admission import forbidden, granted
from .problems import Problem
from .process_bodies import body
from .requests import path_part
from .scopes import PUBLIC, ScopeName, needed
from .tickets import PARAMETER, split_query
from .tokens import NAME, NameTaken, NoSuchToken, Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from .tickets import Tickets
    from .tokens import Token, Tokens

__all__ = [
    "NewTokenView",
    "RotateBody",
    "TicketBody",
    "TicketView",
    "TokenBody",
    "TokenView",
    "ticket_routes",
    "token_routes",
]

YEARS = 100 * 366 * 24 * 60 * 60
"""Seconds that are as good as for ever, and still make a time."""

Seconds = Annotated[float, Meta(ge=0, le=YEARS)]

OVERLAP = 300.0
"""Seconds for which a token that was replaced holds on, unless told otherwise: its users change over meanwhile."""

LONGEST_TARGET = 8192
"""Characters of a path with its query."""


class TokenBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    name: str
    scopes: Annotated[list[ScopeName], Meta(min_length=1)]
    expires_in: Annotated[float, Meta(gt=0, le=YEARS)] | None = None


class RotateBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    overlap: Seconds = OVERLAP
    expires_in: Annotated[float, Meta(gt=0, le=YEARS)] | None = None


class TicketBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    path: Annotated[str, Meta(max_length=LONGEST_TARGET)]
    method: Literal["GET", "WEBSOCKET"] = "GET"
    expires_in: Annotated[float, Meta(gt=0, le=3600)] = 60.0


class TokenView(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """A token, as everybody may see it who makes tokens. A time that is absent never was, or never comes."""

    name: str
    scopes: list[ScopeName]
    source: Source
    created_at_ms: int | UnsetType = UNSET
    expires_at_ms: int | UnsetType = UNSET
    last_used_at_ms: int | UnsetType = UNSET


class NewTokenView(TokenView, kw_only=True):
    """One that was made a moment ago: the only time that it is told."""

    token: str


class TicketView(msgspec.Struct, rename="camel"):
    """A ticket, and the URL that has it."""

    ticket: str
    url: str
    expires_at_ms: int


def token_routes(tokens: Tokens) -> Blueprint:
    """The routes of tokens."""
    routes = Blueprint("tokens", __name__)

    @routes.get("/v1/tokens")
    async def listed() -> Response:
        return _json({"tokens": [_view(token, used) for token, used in tokens.listed()]})

    @routes.post("/v1/tokens")
    async def make() -> Response:
        wanted = await body(TokenBody)
        _still_may(tokens)
        if not NAME.fullmatch(wanted.name):
            raise Problem("invalid_request", "a name has letters, digits, '.', '_' and '-', at most 64")
        try:
            token, text = await tokens.make(wanted.name, frozenset(wanted.scopes), wanted.expires_in)
        except NameTaken as error:
            raise Problem("conflict", str(error)) from None
        except OSError as error:
            raise _not_kept(error) from None
        return _json(_new(token, text), 201)

    @routes.post("/v1/tokens/<name>/rotate")
    async def rotate(name: str) -> Response:
        wanted = await body(RotateBody)
        _still_may(tokens)
        try:
            token, text = await tokens.rotate(path_part(name, "name"), wanted.overlap, wanted.expires_in)
        except NoSuchToken as error:
            raise Problem("not_found", str(error)) from None
        except OSError as error:
            raise _not_kept(error) from None
        return _json(_new(token, text), 201)

    @routes.delete("/v1/tokens/<name>")
    async def revoke(name: str) -> Response:
        _still_may(tokens)
        try:
            await tokens.revoke(path_part(name, "name"))
        except NoSuchToken as error:
            raise Problem("not_found", str(error)) from None
        except NameTaken as error:
            raise Problem("conflict", str(error)) from None
        except OSError as error:
            raise _not_kept(error, "the token holds no more, but would again after a restart: ") from None
        response = Response(b"", 204)  # without a body at all, Quart asks asyncio for one
        del response.headers["Content-Type"]
        return response

    return routes


def ticket_routes(tickets: Tickets, exists: Callable[[str], bool]) -> Blueprint:
    """The route of tickets.

    Args:
      exists: whether there is a route for a path.
    """
    routes = Blueprint("tickets", __name__)

    @routes.post("/v1/tickets")
    async def make() -> Response:
        wanted = await body(TicketBody)
        path, _, query = wanted.path.partition("?")
        if not _is_target(wanted.path):
            raise Problem("invalid_request", "the path is that of a request, percent-encoded, from the '/' on")
        if split_query(query.encode())[1] != query.encode():
            raise Problem("invalid_request", f"the query has a {PARAMETER.decode()!r} already")
        if not exists(path):
            raise Problem("not_found", "there is no such path to make a ticket for")
        grant = granted(request.scope)
        need = needed(wanted.method, path)
        if need != PUBLIC and not grant.may(need):
            raise forbidden(grant, need)
        ticket, expires = tickets.make(grant, wanted.method, wanted.path, wanted.expires_in)
        url = f"{wanted.path}{'&' if '?' in wanted.path else '?'}{PARAMETER.decode()}{ticket}"
        return _json(TicketView(ticket, url, expires), 201)

    return routes


def _is_target(text: str) -> bool:
    return (
        text.startswith("/")
        and not text.startswith("//")
        and text.isascii()
        and text.isprintable()
        and " " not in text
        and "#" not in text
    )


def _still_may(tokens: Tokens) -> None:
    """Raises `Problem` where there are no tokens, or the one of this request was taken back while its body came."""
    if not tokens.guarded:
        raise Problem("conflict", "this server takes everybody who reaches it: start it with a token first")
    grant = tokens.find(granted(request.scope).digest.__eq__)
    if grant is None:
        raise Problem("token_invalid", "missing or invalid bearer token")
    need = needed(request.method, request.path)
    if not grant.may(need):
        raise forbidden(grant, need)


def _not_kept(error: OSError, before: str = "") -> Problem:
    return Problem("insufficient_storage", f"{before}the tokens cannot be written to disk: {error.strerror}")


def _view(token: Token, used: float | None) -> TokenView:
    return TokenView(
        name=token.name,
        scopes=sorted(token.scopes),
        source=token.source,
        created_at_ms=_milliseconds(token.created),
        expires_at_ms=_milliseconds(token.expires),
        last_used_at_ms=_milliseconds(used),
    )


def _new(token: Token, text: str) -> NewTokenView:
    return NewTokenView(**msgspec.structs.asdict(_view(token, None)), token=text)


def _milliseconds(moment: float | None) -> int | UnsetType:
    return UNSET if moment is None else int(moment * 1000)


def _json(document: object, status: int = 200) -> Response:
    response = Response(msgspec.json.encode(document), status, content_type="application/json")
    response.headers["Cache-Control"] = "no-store"  # it may hold a token
    return response
