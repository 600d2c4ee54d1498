"""Late binding: a daemon that was started before anybody knew for whom.

Warm pools start sandboxes in stock. Whoever gets one brings its token, its environment and its secrets along:

    waiting ── POST /v1/init ──▶ opening ──▶ open

A daemon that waits does nothing but tell that it does. The first request that makes sense decides everything, and any
other hears that it came too late. Nothing of it is kept on disk: a daemon that is started again waits again.

HTTP is there from the start to the end. What comes while the daemon opens is held, and answered by it a moment later;
so no connection is lost on the way from the one to the other.
"""

from __future__ import annotations

import hmac
import re
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog
import trio
from quart import Blueprint

from sandbox_actors.catalog.environment import PRIVATE
from sandbox_actors.redaction import secrets_in

from .admission import Admission
from .body import BodyLimit
from .config import BadConfig
from .guard import PROBLEM_TYPE, Guard, answer
from .logs import hide_also
from .problems import Problem
from .serving import serving
from .tickets import Tickets
from .token_file import TokenEntry, tokens_of
from .tokens import BadToken, Tokens

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncGenerator

    from quart import Response

    from .config import Config
    from .guard import ASGIApp, Receive, Scope, Send

__all__ = ["Door", "InitBody", "init_routes", "open_door"]

log = structlog.get_logger()

LARGEST = 1 << 20
"""Bytes of the body."""

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

JSON_TYPE = (b"content-type", b"application/json")


class InitBody(msgspec.Struct, forbid_unknown_fields=True):
    """What the daemon is told.

    Attributes:
      env: variables, as if the daemon had been started with them; agents get all of them.
      secrets: further ones, whose values are told nowhere.
      workspace: the directory that is to be HOME; made if it is not there.
    """

    token: str | None = None
    tokens: list[TokenEntry] = []
    env: dict[str, str] = {}
    secrets: dict[str, str] = {}
    workspace: str | None = None


class Door:
    """The application of a daemon that waits, and the way into the one that it becomes. Made by `open_door` only.

    Attributes:
      listener: the socket; it stays open.
    """

    def __init__(self, config: Config, listener: socket.socket) -> None:
        self.listener = listener
        self._config = config
        self._deciding = trio.Lock()
        self._told: Config | None = None
        self._decided = trio.Event()
        self._app: ASGIApp | None = None
        self._opened = trio.Event()
        self.closing = trio.Event()
        self.closed = trio.Event()
        everybody = Tokens(guarded=False)
        self._waiting = Guard(
            BodyLimit(self._wait, LARGEST),
            config.cors,
            everybody,
            Admission(everybody, Tickets(everybody)),
            # Proxies have names of their own; and a page that was re-bound to us says its origin with a POST.
            any_host=not config.loopback,
            exists=lambda _: True,
            is_proxied=lambda _: False,
        )

    async def initialized(self) -> Config:
        """Wait until the daemon is told what it lacks; gives the whole."""
        await self._decided.wait()
        assert self._told is not None
        return self._told

    @asynccontextmanager
    async def through(self, app: ASGIApp) -> AsyncGenerator[None]:
        """While the block runs, all that comes goes to this application; then the door is closed."""
        self._app = app
        self._opened.set()
        try:
            yield
        finally:
            self.closing.set()
            with trio.CancelScope(shield=True):  # HTTP ends within its grace
                await self.closed.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._told is not None:
            await self._opened.wait()
        await (self._app or self._waiting)(scope, receive, send)

    async def _wait(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope.get("method"), scope["path"]:
            case (("GET" | "HEAD"), "/v1/health"):
                await _say(scope, send, "awaiting_init")
            case "POST", "/v1/init":
                body: bytes = (await receive())["body"]  # the whole of it, see `BodyLimit`
                try:
                    await self._decide(scope, body)
                except Problem as problem:
                    await _refuse(scope, send, problem)
                else:
                    await self._opened.wait()
                    await _say(scope, send, "initialized")
            case _:
                await _refuse(scope, send, _awaiting())

    async def _decide(self, scope: Scope, body: bytes) -> None:
        headers = {bytes(name).lower(): bytes(value) for name, value in scope["headers"]}
        if b"origin" in headers and self._config.init_secret is None:
            # A page of an origin that may call has nothing to show for itself yet: no token, and no secret.
            raise Problem("permission_denied", "web pages may initialize this server only with an init secret")
        self._check_secret(headers)
        if headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
            raise Problem("unsupported_media_type", "content-type must be application/json")
        wanted = _decoded(body)
        async with self._deciding:  # a first one that fails leaves the place to the next
            if self._told is not None:
                raise _too_late()
            told = _completed(self._config, wanted)
            if wanted.workspace is not None:
                await trio.to_thread.run_sync(_make, wanted.workspace)
            hide_also({*told.secrets, *secrets_in(told.variables)})
            self._told = told
            self._decided.set()
        log.info("initialized", token=told.guarded, variables=len(told.variables))

    def _check_secret(self, headers: dict[bytes, bytes]) -> None:
        if self._config.init_secret is None:
            return
        given = sha256(headers.get(b"x-sandbox-agent-init-secret", b"")).digest()
        if not hmac.compare_digest(given, sha256(self._config.init_secret.encode()).digest()):
            raise Problem("token_invalid", "missing or invalid init secret")


@asynccontextmanager
async def open_door(config: Config, listener: socket.socket, *, grace: float) -> AsyncGenerator[Door]:
    """HTTP of a daemon that waits, on a socket that listens.

    Args:
      grace: seconds for requests to end when the door is closed.
    """
    door = Door(config, listener)

    async def serve() -> None:
        try:
            async with serving(door, listener, largest_frame=config.max_body, grace=grace):
                await door.closing.wait()
        finally:
            door.closed.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        try:
            yield door
        finally:
            nursery.cancel_scope.cancel()


def init_routes() -> Blueprint:
    """What a daemon says that was told everything."""
    routes = Blueprint("init", __name__)

    @routes.post("/v1/init")
    async def too_late() -> Response:
        raise _too_late()

    return routes


def _decoded(body: bytes) -> InitBody:
    try:
        return msgspec.json.decode(body, type=InitBody)
    except msgspec.ValidationError as error:
        raise Problem("invalid_request", str(error), status=422) from None
    except (msgspec.DecodeError, RecursionError):
        raise Problem("invalid_request", "the body is not JSON") from None


def _completed(config: Config, wanted: InitBody) -> Config:
    """The configuration with what was told. Raises `Problem` where that makes no sense; no message quotes a value."""
    variables = {**wanted.env, **wanted.secrets}
    if twice := wanted.env.keys() & wanted.secrets.keys():
        raise Problem("invalid_request", f"{min(twice)} is in 'env' and in 'secrets'")
    if wanted.workspace is not None:
        if "HOME" in variables:
            raise Problem("invalid_request", "give either 'workspace' or HOME: they are the same")
        if not wanted.workspace.startswith("/") or "\0" in wanted.workspace:
            raise Problem("invalid_request", "'workspace' must be an absolute path")
        variables["HOME"] = wanted.workspace
    for name, value in variables.items():
        if not VARIABLE.fullmatch(name):
            raise Problem("invalid_request", f"{name!r} is no name of a variable")
        if PRIVATE.fullmatch(name):
            raise Problem("invalid_request", f"{name} is a variable of the server's own, and reaches nobody")
        if "\0" in value:
            raise Problem("invalid_request", f"the value of {name} has a NUL character")
    try:
        tokens = tokens_of(wanted.tokens, "start")
        told = replace(
            config,
            token=wanted.token,
            tokens=tokens,
            variables=variables,
            secrets=tuple(
                filter(None, [wanted.token, *(entry.token for entry in wanted.tokens), *wanted.secrets.values()])
            ),
            await_init=False,
            init_secret=None,
            initialized=True,
        )
        told.check()
    except (BadConfig, BadToken) as error:
        raise Problem("invalid_request", str(error)) from None
    return told


def _make(workspace: str) -> None:
    try:
        Path(workspace).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Problem("invalid_request", f"cannot make the workspace: {error.strerror}") from None


async def _say(scope: Scope, send: Send, status: str) -> None:
    await answer(scope, send, 200, [JSON_TYPE], msgspec.json.encode({"status": status}))


async def _refuse(scope: Scope, send: Send, problem: Problem) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
    await answer(scope, send, problem.status, [PROBLEM_TYPE, *headers], problem.body)


def _awaiting() -> Problem:
    message = "this server waits for POST /v1/init, which gives it its token"
    return Problem("awaiting_init", message, headers={"Retry-After": "1"})


def _too_late() -> Problem:
    return Problem("already_initialized", "this server was initialized before: whoever did it has its token")
