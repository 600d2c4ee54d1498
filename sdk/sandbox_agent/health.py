"""Whether the server answers: what requests and streams wait for, and what they tell when it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from .errors import SandboxAgentError

__all__ = ["Health"]


class Health:
    """The state that a monitor and all requests share.

    A request that fails calls `suspect`, so that the monitor looks at once; it then waits in `healthy` until the
    monitor has seen the server answer, or has given it up.

    Attributes:
      watched: a monitor keeps this up to date. Without one nobody knows, and a request just tries again.
      recovers: the monitor brings the server back or gives it up, in a time that it bounds: worth waiting for.
    """

    def __init__(self, *, watched: bool, recovers: bool = False) -> None:
        self.watched = watched
        self.recovers = recovers
        self._good = anyio.Event()
        self._doubt = anyio.Event()
        self._over = anyio.Event()
        self._lost: SandboxAgentError | None = None
        if not watched:
            self._good.set()

    @property
    def lost(self) -> SandboxAgentError | None:
        """Why the server was given up; None while it was not."""
        return self._lost

    def suspect(self) -> None:
        """Tell that a request has failed on its way."""
        self._doubt.set()
        if self.watched and self._good.is_set() and self._lost is None:
            self._good = anyio.Event()

    async def doubted(self) -> None:
        """Wait until somebody suspects the server; for its monitor, who is the only one to wait here."""
        await self._doubt.wait()

    def confirm(self) -> None:
        """The server answers."""
        self._doubt = anyio.Event()
        self._good.set()

    def give_up(self, error: SandboxAgentError) -> None:
        """The server does not come back: whoever waits, or asks from now on, gets the error."""
        self._lost = error
        self._over.set()
        self._good.set()

    async def healthy(self) -> None:
        """Wait until the server is known to answer.

        Raises:
          SandboxAgentError: it was given up, as the monitor put it (`SandboxDestroyed`, `RecoveryFailed`).
        """
        await self._good.wait()
        if self._lost is not None:
            raise self._lost.with_traceback(None)

    async def given_up(self) -> None:
        """Wait until the server is given up, for those that need not know whether it answers meanwhile.

        Raises:
          SandboxAgentError: always, as `healthy`.
        """
        await self._over.wait()
        await self.healthy()

    async def settled(self, deadline: float) -> float:
        """Wait until the server is known to answer: for a recovery as long as that takes, else up to a deadline.

        Returns:
          The deadline, later by what a recovery took: a server that is away is no slow one.

        Raises:
          TimeoutError: the deadline has come.
          SandboxAgentError: as `healthy`.
        """
        start = anyio.current_time()
        if self.recovers or self._good.is_set():
            await self.healthy()
            return deadline + anyio.current_time() - start
        with anyio.fail_after(max(0.0, deadline - start)):
            await self.healthy()
        return deadline
