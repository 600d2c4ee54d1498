"""Commands in the sandbox: run to their end, or started and kept."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

import msgspec

from .process import MARGIN, Process
from .process_log import path_of
from .process_models import Limits, ProcessConfig, ProcessInfo, Restart, RunResult

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .transport import Transport

__all__ = ["Processes"]

LONGEST_RUN = 300.0
"""Seconds that a call of run may take where neither it nor the server's configuration says otherwise."""


class _Listed(msgspec.Struct, frozen=True):
    processes: list[ProcessInfo]


class Processes:
    """The processes of a server. Reached as `sandbox.processes`.

    There is no shell unless you start one. A process is all that it has started: it has exited when nothing is left.

    What starts something is not repeated after a break: `ConnectionFailed` says that it may have happened. Methods
    raise `ApiError` where the server says no; `StreamError` is a program that cannot be started.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def run(
        self,
        command: str,
        *args: str,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: bytes | str | None = None,
        merge_output: bool = False,
        max_output_bytes: int | None = None,
        user: str | None = None,
        limits: Limits | None = None,
    ) -> RunResult:
        """Run a command to its end, and have what it wrote.

        Nothing is sent until it has ended, which some proxies take for a dead connection: what takes minutes is better
        started, and waited for.

        Args:
          cwd: absolute, or below the server's own.
          env: beside the server's own environment.
          timeout: seconds, after which it is ended; 30 unless given, at most 300, or as the server is configured.
          stdin: all of its input.
          merge_output: stderr goes where stdout goes.
          max_output_bytes: of each stream; the rest is dropped.
          user: whom it runs as, where the server runs as root.
        """
        told = _command(command, args, cwd, env, timeout, stdin, merge_output, user, limits)
        if max_output_bytes is not None:
            told["maxOutputBytes"] = max_output_bytes
        silence = (LONGEST_RUN if timeout is None else timeout) + MARGIN
        return await self._transport.ask(RunResult, "POST", "/v1/processes/run", json=told, silence=silence)

    async def start(
        self,
        command: str,
        *args: str,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: bytes | str | None = None,
        merge_output: bool = False,
        user: str | None = None,
        limits: Limits | None = None,
        restart: Restart | None = None,
    ) -> Process:
        """Start a process, and keep it.

        Args:
          timeout: seconds, after which it is ended; never unless given.
          stdin: all of its input; without it, it is written by `Process.write`.
          restart: whether it is started again when it has ended; never unless given.
          cwd, env, merge_output, user, limits: as of `run`.
        """
        told = _command(command, args, cwd, env, timeout, stdin, merge_output, user, limits)
        if restart is not None:
            told["restart"] = restart
        return await self._started(told)

    async def terminal(
        self,
        command: str,
        *args: str,
        rows: int = 24,
        cols: int = 80,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        user: str | None = None,
        limits: Limits | None = None,
    ) -> Process:
        """Start a process that has a terminal, which `Process.terminal` shows.

        Args:
          cwd, env, timeout, user, limits: as of `start`.
        """
        told = _command(command, args, cwd, env, timeout, None, False, user, limits)
        return await self._started({**told, "tty": True, "interactive": True, "rows": rows, "cols": cols})

    async def list(self) -> list[Process]:
        """All that the server knows of, in the order of their starts."""
        listed = await self._transport.ask(_Listed, "GET", "/v1/processes")
        return [Process(self._transport, info) for info in listed.processes]

    async def get(self, id: str) -> Process:
        """One process.

        Raises:
          NotFound: there is none of this number.
        """
        return Process(self._transport, await self._transport.ask(ProcessInfo, "GET", path_of(id)))

    async def config(self) -> ProcessConfig:
        """How many processes, how long and how much."""
        return await self._transport.ask(ProcessConfig, "GET", "/v1/processes/config")

    async def configure(self, config: ProcessConfig) -> ProcessConfig:
        """Change that, until the server ends; gives what holds now. `msgspec.structs.replace` makes a new one."""
        return await self._transport.ask(ProcessConfig, "POST", "/v1/processes/config", json=config, retry=True)

    async def _started(self, told: dict[str, Any]) -> Process:
        return Process(self._transport, await self._transport.ask(ProcessInfo, "POST", "/v1/processes", json=told))


def _command(
    command: str,
    args: tuple[str, ...],
    cwd: str | None,
    env: Mapping[str, str] | None,
    timeout: float | None,
    stdin: bytes | str | None,
    merge_output: bool,
    user: str | None,
    limits: Limits | None,
) -> dict[str, Any]:
    """What a call of run and a started process have in common; what is not given is not told."""
    told: dict[str, Any] = {
        "command": command,
        "args": args,
        "cwd": cwd,
        "env": None if env is None else dict(env),
        "timeoutMs": None if timeout is None else round(timeout * 1000),
        "mergeOutput": merge_output or None,
        "user": user,
        "limits": limits,
    }
    if stdin is not None:
        content = stdin.encode() if isinstance(stdin, str) else stdin
        told |= {"stdin": b64encode(content).decode(), "stdinEncoding": "base64"}
    return {name: value for name, value in told.items() if value is not None}
