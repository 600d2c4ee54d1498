"""The health monitor: it looks after the server of a sandbox, and has the provider bring it back.

    answers ──(no)──▶ failing ──(3 in a row)──▶ recovering ──(answers)──▶ answers
                                                    │ destroyed, refused, or too often
                                                    ▼
                                                given up

Requests and streams wait in `Health` for what comes of it. The connection that a provider holds open to a sandbox is
entered, left and entered again by the monitor's own task: after a recovery the server may be somewhere else.
"""

from __future__ import annotations

import inspect
import logging
import math
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, cast

import anyio
import httpx
import msgspec

from .backoff import Backoff
from .errors import (
    AwaitingInit,
    ConnectionFailed,
    Forbidden,
    ProviderError,
    RecoveryFailed,
    SandboxAgentError,
    SandboxDestroyed,
    Unauthorized,
    api_error,
)
from .recovery import RecoveryEvent
from .scope import plainly

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskStatus

    from .providers.provider import Endpoint, Provider
    from .recovery import OnRecovery, Recovery
    from .transport import Transport

__all__ = ["Monitor"]

SETTLES_WITHIN = 30.0
"""Seconds that a server which was just started may take to answer, before the provider is asked again."""

HEARD_WITHIN = 10.0
"""Seconds that the application may take to hear of something."""

_log = logging.getLogger("sandbox_agent")


class Monitor:
    """See the module. Its task is `run`.

    Args:
      reach: gives where the server is, for as long as its block runs.
      provider: who brings the server back; None: nobody does.
      sandbox_id: the provider's own.
    """

    def __init__(
        self,
        transport: Transport,
        reach: Callable[[], AbstractAsyncContextManager[Endpoint]],
        recovery: Recovery,
        on_recovery: OnRecovery | None = None,
        *,
        provider: Provider | None = None,
        sandbox_id: str = "",
    ) -> None:
        self._transport = transport
        self._health = transport.health
        self._reach = reach
        self._recovery = recovery
        self._on_recovery = on_recovery
        self._provider = provider
        self._sandbox_id = sandbox_id
        self._backoff = Backoff(first=0.5, limit=5.0)
        self._hold = anyio.Lock()
        self._asking = anyio.CancelScope()
        self._failures = 0
        self._attempts = 0
        self._settles_until = 0.0
        self._error: SandboxAgentError | None = None
        self._refusal: ProviderError | None = None
        self._scope = anyio.CancelScope()
        self._ended = anyio.Event()

    async def run(self, start_within: float, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Look after the server, until it was given up. It counts as started once the server has answered.

        Raises:
          SandboxAgentError: the server has not answered in time, or refuses us; only before it has started.
        """
        begun = False
        try:
            with self._scope:
                while self._health.lost is None:
                    async with self._hold:
                        pass  # it is decided whether the sandbox is put to rest
                    reach_within = self._recovery.within if begun else start_within
                    try:
                        with anyio.move_on_after(reach_within) as reaching:
                            async with plainly(self._reach()) as endpoint:
                                reaching.deadline = math.inf
                                self._transport.endpoint = endpoint
                                if not begun:
                                    await self._begin(start_within)
                                    begun = True
                                    task_status.started()
                                await self._watch()
                        if reaching.cancelled_caught:
                            said = f"the provider has not told within {reach_within:g} s where the server is"
                            raise ProviderError(said) if begun else ConnectionFailed(said)
                    except Exception as error:
                        if not begun or self._provider is None:
                            raise
                        self._error = _of_a_provider(error)
                    if self._health.lost is None:
                        await self._recover()
        finally:
            self._ended.set()

    @asynccontextmanager
    async def holding(self) -> AsyncGenerator[None]:
        """While the block runs no failure counts and the provider is asked for nothing: it puts the sandbox to rest.

        A recovery that is under way is cancelled first: it must not wake what is put to rest.
        """
        self._asking.cancel()
        async with self._hold:
            yield

    async def stop(self) -> None:
        """Look no longer, and let go of the connection to the sandbox."""
        self._scope.cancel()
        await self._ended.wait()

    async def _begin(self, within: float) -> None:
        error: SandboxAgentError | None = None
        backoff = Backoff(first=0.1, limit=2.0)
        with anyio.move_on_after(within):
            while (error := await self._check()) is not None:
                if isinstance(error, (Unauthorized, Forbidden)):
                    raise error
                await anyio.sleep(backoff.next())
            self._health.confirm()
            return
        raise ConnectionFailed(f"the server has not answered within {within:g} s: {error or 'it is silent'}")

    async def _watch(self) -> None:
        """Returns where the server has failed, or was given up."""
        failures = 0
        while True:
            error = await self._check()
            if error is None:
                failures = 0
                await self._well()
                with anyio.move_on_after(self._recovery.interval):
                    await self._health.doubted()
                continue
            self._error = error
            if isinstance(error, (Unauthorized, Forbidden)):
                return await self._give_up("failed", error)
            if anyio.current_time() >= self._settles_until and not self._hold.locked():
                failures += 1
                self._failures = failures
                self._health.suspect()
                await self._tell("failing")
                if failures >= self._recovery.failures and self._provider is not None:
                    return None
            await anyio.sleep(self._backoff.next())

    async def _well(self) -> None:
        troubled = self._failures or self._attempts
        self._error = None
        if troubled:
            await self._tell("recovered")
        self._failures = self._attempts = 0
        self._settles_until = 0.0
        self._backoff.reset()
        self._health.confirm()

    async def _recover(self) -> None:
        if self._attempts == self._recovery.attempts:
            said = f"the server has not come back after {self._attempts} recoveries: {self._refusal or self._error}"
            return await self._give_up("failed", RecoveryFailed(said))
        self._attempts += 1
        self._health.suspect()
        await self._tell("recovering")
        async with self._hold:
            self._refusal = await self._ensure()
        if isinstance(self._refusal, SandboxDestroyed):
            return await self._give_up("destroyed", self._refusal)
        if self._refusal is None:
            self._settles_until = anyio.current_time() + SETTLES_WITHIN
            return self._backoff.reset()
        _log.warning("the server was not brought back: %s", self._refusal)
        return await anyio.sleep(self._backoff.next())

    async def _ensure(self) -> ProviderError | None:
        """Have the provider bring the server back; gives what came in between."""
        assert self._provider is not None, "without one, the endpoint does not fail"
        within = self._recovery.within
        try:
            with anyio.move_on_after(within) as self._asking:
                await self._provider.ensure_server(self._sandbox_id)
                return None
        except Exception as error:
            return _of_a_provider(error)
        if anyio.current_time() < self._asking.deadline:
            return ProviderError("the sandbox is put to rest")
        return ProviderError(f"the provider took longer than {within:g} s")

    async def _check(self) -> SandboxAgentError | None:
        """Ask once; gives what is wrong."""
        url, timeout = self._transport.url("/v1/health"), self._recovery.timeout
        try:
            with anyio.fail_after(timeout):
                response = await self._transport.client.get(url, headers=self._transport.headers(), timeout=timeout)
        except (TimeoutError, httpx.TimeoutException):
            return ConnectionFailed(f"{url} gave no answer within {timeout:g} s")
        except httpx.HTTPError as error:
            return ConnectionFailed(f"{url}: {str(error) or type(error).__name__}")
        told = _object(response.content)
        if not response.is_success:
            return api_error(response.status_code, told or {"detail": f"{url}: HTTP status {response.status_code}"})
        if self._provider is not None and told.get("status") == "awaiting_init":
            return AwaitingInit(503, {"detail": "the server waits to be initialized"})
        return None

    async def _give_up(self, kind: Literal["failed", "destroyed"], error: SandboxAgentError) -> None:
        self._error = error
        await self._tell(kind)
        self._health.give_up(error)

    async def _tell(self, kind: Literal["failing", "recovering", "recovered", "failed", "destroyed"]) -> None:
        event = RecoveryEvent(kind, self._failures, self._attempts, self._error, datetime.now(UTC))
        level = logging.INFO if kind == "recovered" else logging.WARNING
        named = self._sandbox_id or self._transport.endpoint.url
        _log.log(
            level,
            "server of %s: %s (failures %d, attempt %d)%s",
            named,
            kind,
            event.failures,
            event.attempt,
            f": {event.error}" if event.error else "",
        )
        if self._on_recovery is None:
            return
        try:
            with anyio.fail_after(HEARD_WITHIN):
                heard = self._on_recovery(event)
                if inspect.isawaitable(heard):
                    await heard
        except Exception:
            _log.exception("on_recovery failed")


def _of_a_provider(error: Exception) -> ProviderError:
    if isinstance(error, ProviderError):
        return error
    # A provider is somebody else's code, and its bug no reason for the application to end.
    _log.error("the provider failed with an error of its own", exc_info=error)
    return ProviderError(f"{type(error).__name__}: {error}")


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(content)
    except ValueError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
