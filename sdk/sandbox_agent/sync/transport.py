# Written by scripts/make-sync from ../transport.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.transport`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from .callbacks import outgoing_again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    import httpx

    from ..providers.provider import Endpoint
    from ..transport import Params, Timeouts
    from ..transport import Transport as AsyncTransport
    from ._line import Line


__all__ = ["Transport"]

T = TypeVar("T")


class Transport:
    """See the module. Made by `open_transport`.

    Attributes:
      endpoint: where the server is now; whoever finds it elsewhere sets it.
      health: what is known of the server.
    """

    def __init__(self, actual: AsyncTransport, line: Line) -> None:
        self._actual = actual
        self._line = line

    @property
    def endpoint(self) -> Endpoint:
        return self._actual.endpoint

    @property
    def timeouts(self) -> Timeouts:
        return self._actual.timeouts

    def url(self, path: str) -> str:
        """A path of the server, percent-encoded as it is to be."""
        return self._actual.url(path)

    def headers(self) -> dict[str, str]:
        """What every request carries."""
        return self._actual.headers()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = msgspec.UNSET,
        content: bytes | Callable[[], Iterable[bytes]] | None = None,
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
        return self._line.call(
            self._actual.request,
            method,
            path,
            params=params,
            json=json,
            content=outgoing_again(content),
            headers=headers,
            silence=silence,
            retry=retry,
        )

    def ask(self, type: type[T], method: str, path: str, **given: Any) -> T:
        """`request`, with the answer's JSON as a value of this type.

        Raises:
          SandboxAgentError: as `request`; or the answer has another shape.
        """
        return self._line.call(lambda: self._actual.ask(type, method, path, **given))

    def decode(self, response: httpx.Response, type: type[T]) -> T:
        """The JSON of an answer. An answer whose head was sent before the server knew may hold a problem instead."""
        return self._actual.decode(response, type)
