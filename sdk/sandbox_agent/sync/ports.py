# Written by scripts/make-sync from ../ports.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.ports`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..ports import Listener
    from ..ports import Ports as AsyncPorts
    from ._line import Line


__all__ = ["Ports"]


class Ports:
    """The ports of a sandbox. Reached as `sandbox.ports`.

    listener = sandbox.ports.wait(3000)
    with httpx.AsyncClient(headers=sandbox.ports.headers()) as client:
        page = client.get(sandbox.ports.url(3000, "/index.html"))
    """

    def __init__(self, actual: AsyncPorts, line: Line) -> None:
        self._actual = actual
        self._line = line

    def list(self) -> list[Listener]:
        """Who listens, by port, without the server itself. Raises `ApiError`, `ConnectionFailed`."""
        return self._line.call(self._actual.list)

    def wait(self, port: int, *, timeout: float = 30.0) -> Listener:
        """Wait until somebody listens.

        Args:
          timeout: seconds, up to 600; 0 only looks.

        Raises:
          ServerTimeout: nobody does.
          ApiError, ConnectionFailed.
        """
        return self._line.call(self._actual.wait, port, timeout=timeout)

    def url(self, port: int, path: str = "/") -> str:
        """Where an application on a port is reached, with any method, by any HTTP client: with `headers()`.

        It holds for as long as the sandbox's server stays where it is. With `ws` for `http` it is that of a WebSocket.

        Args:
          path: at the application, with a query if there is one.
        """
        return self._actual.url(port, path)

    def headers(self) -> dict[str, str]:
        """What each request through the server needs. The server's token is in it, and is not passed on."""
        return self._actual.headers()
