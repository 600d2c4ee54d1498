"""What is told of processes, and what they are given, as it stands on the wire."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = [
    "Exit",
    "HeldLimit",
    "Limits",
    "LogEntry",
    "LogGap",
    "LogPage",
    "ProcessConfig",
    "ProcessInfo",
    "Restart",
    "RunResult",
]


class Limits(msgspec.Struct, frozen=True, rename="camel", kw_only=True, omit_defaults=True):
    """What a process may take; None is without a limit. `HeldLimit` says whether it is held.

    Attributes:
      processes: at once.
      cpus: its share, such as 0.5.
    """

    cpu_seconds: int | None = None
    memory_bytes: int | None = None
    file_bytes: int | None = None
    open_files: int | None = None
    processes: int | None = None
    cpus: float | None = None


class HeldLimit(msgspec.Struct, frozen=True, rename="camel"):
    """A limit that was asked for.

    Attributes:
      held_by: `rlimit` (each process by itself), `cgroup` (the tree as a whole); nothing: it is not held here.
    """

    value: float
    held_by: list[str]


class Restart(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """When a process that has ended is started again, by itself.

    Attributes:
      max_restarts, within_ms: it is given up when it ends more often than that.
      backoff_ms, max_backoff_ms: before it starts again; doubled each time.
    """

    policy: Literal["on-failure", "always"] = "on-failure"
    max_restarts: int = 5
    within_ms: int = 60_000
    backoff_ms: int = 200
    max_backoff_ms: int = 10_000


class ProcessInfo(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A process as it was when this was told.

    Attributes:
      status: `running`, `restarting` or `exited`.
      tty: it has a terminal.
      exit_code, signal: one of them, once it has exited.
      ended_by: `timeout` or `idle`, where the server ended it unasked.
      created_at_ms, exited_at_ms: since 1970.
      restarts: how often it was started again.
    """

    id: str
    command: str
    args: list[str]
    status: str
    created_at_ms: int
    tty: bool = False
    interactive: bool = False
    owner: str = "user"
    cwd: str | None = None
    pid: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    ended_by: str | None = None
    exited_at_ms: int | None = None
    restarts: int = 0
    user: str | None = None
    limits: dict[str, HeldLimit] = {}


class RunResult(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How a command ended.

    Attributes:
      exit_code: None where a `signal` ended it, or the time.
      stdout, stderr: as text; what is no UTF-8 is U+FFFD.
      stdout_truncated, stderr_truncated: there was more.
    """

    exit_code: int | None
    timed_out: bool
    stdout: str
    stderr: str
    stdout_truncated: bool
    stderr_truncated: bool
    duration_ms: int
    signal: int | None = None
    limits: dict[str, HeldLimit] = {}

    @property
    def ok(self) -> bool:
        """It has ended by itself, with 0."""
        return self.exit_code == 0


class LogEntry(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Some output.

    Attributes:
      sequence: its number, over all streams of the process, from 1.
      stream: `stdout`, `stderr` or `pty`.
      timestamp_ms: since 1970.
      offset: the byte of its stream that it begins at.
    """

    sequence: int
    stream: str
    timestamp_ms: int
    data: bytes
    offset: int = 0


class LogGap(msgspec.Struct, frozen=True, kw_only=True):
    """Entries that are not kept any more.

    Attributes:
      first, last: their numbers.
      size: their bytes, where that is known.
    """

    first: int = msgspec.field(name="from")
    last: int = msgspec.field(name="to")
    size: int | None = msgspec.field(name="bytes", default=None)


class LogPage(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Output that is kept.

    Attributes:
      gap: before the first entry some were dropped.
    """

    process_id: str
    stream: str
    entries: list[LogEntry]
    gap: LogGap | None = None

    @property
    def data(self) -> bytes:
        """The entries' bytes."""
        return b"".join([entry.data for entry in self.entries])


class Exit(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """How a process ended; as in `ProcessInfo`."""

    exit_code: int | None = None
    signal: int | None = None
    ended_by: str | None = None


class ProcessConfig(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """What holds for all processes of a server. Zero `terminal_idle_ms` is never."""

    max_concurrent_processes: int
    default_run_timeout_ms: int
    max_run_timeout_ms: int
    max_output_bytes: int
    max_log_bytes_per_process: int
    max_input_bytes_per_request: int
    max_exited_processes: int | msgspec.UnsetType = msgspec.UNSET
    max_exited_log_bytes: int | msgspec.UnsetType = msgspec.UNSET
    max_terminals: int | msgspec.UnsetType = msgspec.UNSET
    terminal_scrollback_bytes: int | msgspec.UnsetType = msgspec.UNSET
    terminal_idle_ms: int | msgspec.UnsetType = msgspec.UNSET
