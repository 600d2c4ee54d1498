"""HTTP to one server whose address may change, and which may be away for a while.

What may be asked twice is asked again after a break: what changes nothing (GET, HEAD), what comes to the same (PUT,
DELETE), and what carries an idempotency key. Anything else is asked again only where it cannot have arrived. Between
two tries a request waits for the monitor, where there is one, to see the server answer. All is within `retry_within`,
but for the time that a recovery takes.
"""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import anyio
import httpx
import httpx_ws
import msgspec

from . import __version__
from .backoff import Backoff
from .errors import AwaitingInit, ConnectionFailed, NotFound, SandboxAgentError, Unavailable
from .failures import BROKEN, UNSENT, failure_of, problem_in, raise_for_status
from .incoming import Incoming
from .outgoing import Outgoing
from .providers.provider import is_sendable
from .scope import open_tasks
from .trust import trusted
from .websocket import open_websocket

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

    from .health import Health
    from .providers.provider import Endpoint

__all__ = ["Params", "Timeouts", "Transport", "open_transport"]

T = TypeVar("T")

Params: TypeAlias = "Mapping[str, str | int | float | bool | Sequence[str] | None]"
"""Of a query; what is None is left out."""

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110, section 9.2.1)."""

REPEATABLE = SAFE | {"PUT", "DELETE"}
"""Methods of which a second request comes to the same (RFC 9110, section 9.2.2)."""

IDEMPOTENCY_KEY = "Idempotency-Key"

LOOPBACK = ("all://localhost", "all://127.0.0.1", "all://[::1]")
"""What is reached without a proxy, in the words of httpx."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long to wait, in seconds.

    Attributes:
      connect: for a connection.
      silence: for the next bytes of an answer; the server sends blanks while it works.
      heartbeat: for the next bytes of an event stream, where the server sends something every 10.
      retry_within: from the first try of a request to the last.
    """

    connect: float = 10.0
    silence: float = 60.0
    heartbeat: float = 30.0
    retry_within: float = 60.0


class Transport:
    """See the module. Made by `open_transport`.

    Attributes:
      endpoint: where the server is now; whoever finds it elsewhere sets it.
      health: what is known of the server.
    """

    def __init__(self, endpoint: Endpoint, health: Health, timeouts: Timeouts) -> None:
        self.endpoint = endpoint
        self.health = health
        self.timeouts = timeouts
        self._clients: dict[ssl.SSLContext, httpx.AsyncClient] = {}

    @property
    def client(self) -> httpx.AsyncClient:
        """The connections to where the server is now."""
        tls = self.endpoint.tls or trusted(self.endpoint.url)
        if tls not in self._clients:
            self._clients[tls] = httpx.AsyncClient(
                headers={"User-Agent": f"sandbox-agent-python/{__version__}", "Accept": "application/json"},
                verify=tls,
                # A proxy of the environment is for the network outside. It must not see what is said on this machine.
                mounts=dict.fromkeys(LOOPBACK),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
                follow_redirects=False,
            )
        return self._clients[tls]

    async def close(self) -> None:
        """Close all connections."""
        with anyio.CancelScope(shield=True):
            for client in self._clients.values():
                await client.aclose()

    def doubt(self, error: Unavailable) -> None:
        """Have the monitor look where the server itself may be away: a gateway has answered, or one without a past."""
        if not error.type or isinstance(error, AwaitingInit):
            self.health.suspect()

    def url(self, path: str) -> str:
        """A path of the server, percent-encoded as it is to be."""
        return self.endpoint.url + path

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        headers = dict(self.endpoint.headers)
        if (token := self.endpoint.token) is not None:
            name = self.endpoint.token_header
            headers[name] = f"Bearer {token}" if name.lower() == "authorization" else token
        return headers

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = msgspec.UNSET,
        content: bytes | Callable[[], AsyncIterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
        silence: float | None = None,
        retry: bool | None = None,
    ) -> httpx.Response:
        """Ask, and wait for the whole answer, whose status says success.

        Args:
          json: the body, encoded by msgspec.
          content: the body, as it is; or what gives its pieces, asked anew for each try.
          silence: seconds, instead of the usual; `math.inf`: for ever.
          retry: whether it may be asked twice; else the method and an idempotency key decide.

        Raises:
          ApiError: the server said no.
          ConnectionFailed: it cannot be reached, or does not answer.
          ProviderError: it was given up.
          ValueError: a header cannot be sent.
        """
        _check_sendable(headers)
        told = {**self.headers(), **(headers or {})}
        body = content
        if json is not msgspec.UNSET:
            body = msgspec.json.encode(json)
            told["Content-Type"] = "application/json"
        if retry is None:
            retry = _is_repeatable(method, told)
        twice = retry or method in SAFE
        arrived = False
        backoff = Backoff()
        deadline = anyio.current_time() + self.timeouts.retry_within
        while True:
            wait: float | None = None
            try:
                deadline = await self._until_healthy(deadline)
                begun = body() if callable(body) else body
                request = self._build(method, path, params, {**told, **self.headers()}, begun, silence)
                response = await self._send(request)
                try:
                    raise_for_status(response)
                except NotFound as error:
                    # That it is not there any more was done by the try that broke off.
                    if not (arrived and method == "DELETE" and error.type):
                        raise
                return response
            except Unavailable as error:
                failure = failure_of(error, self.endpoint.url, twice=twice)
                again, wait = retry, error.retry_after
                arrived = arrived or not error.type
                self.doubt(error)
            except BROKEN as error:
                failure = failure_of(error, self.endpoint.url, twice=twice)
                # Without a connection nothing has arrived.
                again = retry or isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
                arrived = arrived or not isinstance(error, UNSENT)
                self.health.suspect()
            delay = backoff.next(wait)
            if not again or anyio.current_time() + delay > deadline:
                raise failure
            await anyio.sleep(delay)

    async def ask(self, type: type[T], method: str, path: str, **given: Any) -> T:
        """`request`, with the answer's JSON as a value of this type.

        Raises:
          SandboxAgentError: as `request`; or the answer has another shape.
        """
        response = await self.request(method, path, **given)
        return self.decode(response, type)

    def decode(self, response: httpx.Response, type: type[T]) -> T:
        """The JSON of an answer. An answer whose head was sent before the server knew may hold a problem instead."""
        try:
            return msgspec.json.decode(response.content, type=type)
        except msgspec.ValidationError as error:
            if (refusal := problem_in(response.content)) is not None:
                raise refusal from None
            raise SandboxAgentError(f"{response.url.path} answered in an unknown shape: {error}") from None
        except ValueError as error:
            raise SandboxAgentError(f"{response.url.path} answered with something that is no JSON: {error}") from None

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        content: AsyncIterator[bytes] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        silence: float | None = None,
    ) -> AsyncGenerator[Incoming]:
        """Ask once, and have the answer's body as it comes; its status says success.

        Raises:
          ApiError, ConnectionFailed, ProviderError: as `request`; also in the block, where the body breaks off.
          ValueError: a header cannot be sent.
        """
        _check_sendable(headers)
        twice = _is_repeatable(method, headers or {})
        await self._until_healthy(anyio.current_time() + self.timeouts.retry_within)
        request = self._build(method, path, params, {**self.headers(), **(headers or {})}, content, silence)
        try:
            response = await self.client.send(request, stream=True)
            incoming = Incoming(response)
            try:
                if not response.is_success:
                    await response.aread()
                try:
                    raise_for_status(response)
                except Unavailable as error:
                    raise failure_of(error, self.endpoint.url, twice=twice) from None
                yield incoming
            finally:
                await incoming.close()
        except BROKEN as error:
            self.health.suspect()
            raise failure_of(error, self.endpoint.url, twice=twice) from None

    @asynccontextmanager
    async def websocket(
        self, path: str, *, params: Params | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncGenerator[httpx_ws.AsyncWebSocketSession]:
        """A WebSocket on a path; `httpx_ws` errors of the connection come as `ConnectionFailed`.

        Raises:
          ApiError: the server refused the handshake.
        """
        _check_sendable(headers)
        await self._until_healthy(anyio.current_time() + self.timeouts.retry_within)

        def check(response: httpx.Response) -> None:
            raise_for_status(response)
            raise ConnectionFailed(f"{self.endpoint.url} speaks no WebSocket at {path}")

        told = {**self.headers(), **(headers or {})}
        try:
            async with open_websocket(
                self.client, self.url(path), _query(params), told, self._timeout(), check
            ) as socket:
                yield socket
        except (httpx.TransportError, httpx_ws.HTTPXWSException) as error:
            self.health.suspect()
            raise failure_of(error, self.endpoint.url, twice=True) from None

    async def _send(self, request: httpx.Request) -> httpx.Response:
        """The whole answer. A connection may be dead and not tell: who waits on it hears if the server is given up.

        It is sent in a task of its own: where asyncio cancels a task, httpcore forgets to close its connection. Where a
        scope is cancelled it does not, and that is what becomes of the cancellation on its way into a task group.
        """
        answers: list[httpx.Response] = []

        async def send() -> None:
            answers.append(await self.client.send(request))
            tasks.cancel_scope.cancel()

        async with open_tasks() as tasks:
            tasks.start_soon(send)
            await self.health.given_up()
        return answers[0]

    def _build(
        self,
        method: str,
        path: str,
        params: Params | None,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes] | bytes | None,
        silence: float | None,
    ) -> httpx.Request:
        whole = body if isinstance(body, bytes) else None
        request = self.client.build_request(
            method,
            self.url(path),
            params=_query(params),
            headers=headers,
            content=whole,
            timeout=self._timeout(silence),
        )
        if body is not None and whole is None:
            request.headers.pop("Content-Length", None)
            request.headers["Transfer-Encoding"] = "chunked"
        request.stream = Outgoing(body or b"")
        return request

    def _timeout(self, silence: float | None = None) -> httpx.Timeout:
        read = self.timeouts.silence if silence is None else silence
        return httpx.Timeout(None if math.isinf(read) else read, connect=self.timeouts.connect)

    async def _until_healthy(self, deadline: float) -> float:
        try:
            return await self.health.settled(deadline)
        except TimeoutError:
            raise ConnectionFailed(f"{self.endpoint.url} does not answer") from None


@asynccontextmanager
async def open_transport(endpoint: Endpoint, health: Health, timeouts: Timeouts) -> AsyncGenerator[Transport]:
    """A transport whose connections are closed at the end of the block."""
    transport = Transport(endpoint, health, timeouts)
    try:
        yield transport
    finally:
        await transport.close()


def _query(params: Params | None) -> httpx.QueryParams | None:
    """Values as the server takes them: booleans in lower case, lists as repeated names."""
    pairs: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        if value is None:
            continue
        if isinstance(value, bool):
            pairs.append((name, "true" if value else "false"))
        elif isinstance(value, (str, int, float)):
            pairs.append((name, str(value)))
        else:
            pairs += [(name, each) for each in value]
    return httpx.QueryParams(tuple(pairs)) if pairs else None


def _check_sendable(headers: Mapping[str, str] | None) -> None:
    """Raise where they would not go out, however often that is tried."""
    for name, value in (headers or {}).items():
        if not is_sendable(value):
            raise ValueError(f"{name} cannot be sent: use printable ASCII characters, and no blanks around them")


def _is_repeatable(method: str, headers: Mapping[str, str]) -> bool:
    return method in REPEATABLE or IDEMPOTENCY_KEY in headers
