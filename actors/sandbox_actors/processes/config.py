"""How many processes, how long and how much: the limits of a daemon's processes, which a client may change."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..errors import InvalidRequest

__all__ = ["ProcessConfig"]


@dataclass(frozen=True, slots=True)
class ProcessConfig:
    """The first six are the public wire's; the names are those of the wire in the letters of Python.

    Attributes:
      max_concurrent_processes: how many may run that were created, and again how many calls of run; the next created
        one is refused, the next call waits.
      max_output_bytes: how much of each stream a call of run gives back.
      max_log_bytes_per_process: how much output of a process is kept, the newest.
      max_exited_processes: how many that have ended are kept, the latest.
      max_exited_log_bytes: how much output all of those may have; the latest one is kept in any case.
      max_terminals: how many of the running may have a terminal.
      terminal_scrollback_bytes: how much of its past a new viewer of a terminal is shown.
      terminal_idle_ms: a terminal without a viewer, input and output for so long is ended; 0: never.
    """

    max_concurrent_processes: int = 64
    default_run_timeout_ms: int = 30_000
    max_run_timeout_ms: int = 300_000
    max_output_bytes: int = 1 << 20
    max_log_bytes_per_process: int = 10 << 20
    max_input_bytes_per_request: int = 64 << 10
    max_exited_processes: int = 256
    max_exited_log_bytes: int = 64 << 20
    max_terminals: int = 64
    terminal_scrollback_bytes: int = 1 << 20
    terminal_idle_ms: int = 0

    def checked(self) -> ProcessConfig:
        """This, with the default timeout not above the largest.

        Raises:
          InvalidRequest: a zero where something is needed.
        """
        if self.max_concurrent_processes == 0:
            raise InvalidRequest("maxConcurrentProcesses must be greater than 0")
        if self.default_run_timeout_ms == 0 or self.max_run_timeout_ms == 0:
            raise InvalidRequest("timeouts must be greater than 0")
        if 0 in (self.max_output_bytes, self.max_log_bytes_per_process, self.max_input_bytes_per_request):
            raise InvalidRequest("byte limits must be greater than 0")
        return replace(self, default_run_timeout_ms=min(self.default_run_timeout_ms, self.max_run_timeout_ms))

    def run_seconds(self, timeout_ms: int | None) -> float:
        """How long a call of run may last that asks for so much; 0 and None ask for the default."""
        return min(timeout_ms or self.default_run_timeout_ms, self.max_run_timeout_ms) / 1000
