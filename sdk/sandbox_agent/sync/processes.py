# Written by scripts/make-sync from ../processes.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.processes`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .process import Process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..process_models import Limits, ProcessConfig, Restart, RunResult
    from ..processes import Processes as AsyncProcesses
    from ._line import Line


__all__ = ["Processes"]


class Processes:
    """The processes of a server. Reached as `sandbox.processes`.

    There is no shell unless you start one. A process is all that it has started: it has exited when nothing is left.

    What starts something is not repeated after a break: `ConnectionFailed` says that it may have happened. Methods
    raise `ApiError` where the server says no; `StreamError` is a program that cannot be started.
    """

    def __init__(self, actual: AsyncProcesses, line: Line) -> None:
        self._actual = actual
        self._line = line

    def run(
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
        return self._line.call(
            self._actual.run,
            command,
            *args,
            cwd=cwd,
            env=env,
            timeout=timeout,
            stdin=stdin,
            merge_output=merge_output,
            max_output_bytes=max_output_bytes,
            user=user,
            limits=limits,
        )

    def start(
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
        return Process(
            self._line.call(
                self._actual.start,
                command,
                *args,
                cwd=cwd,
                env=env,
                timeout=timeout,
                stdin=stdin,
                merge_output=merge_output,
                user=user,
                limits=limits,
                restart=restart,
            ),
            self._line,
        )

    def terminal(
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
        return Process(
            self._line.call(
                self._actual.terminal,
                command,
                *args,
                rows=rows,
                cols=cols,
                cwd=cwd,
                env=env,
                timeout=timeout,
                user=user,
                limits=limits,
            ),
            self._line,
        )

    def list(self) -> list[Process]:
        """All that the server knows of, in the order of their starts."""
        return [Process(each, self._line) for each in self._line.call(self._actual.list)]

    def get(self, id: str) -> Process:
        """One process.

        Raises:
          NotFound: there is none of this number.
        """
        return Process(self._line.call(self._actual.get, id), self._line)

    def config(self) -> ProcessConfig:
        """How many processes, how long and how much."""
        return self._line.call(self._actual.config)

    def configure(self, config: ProcessConfig) -> ProcessConfig:
        """Change that, until the server ends; gives what holds now. `msgspec.structs.replace` makes a new one."""
        return self._line.call(self._actual.configure, config)
