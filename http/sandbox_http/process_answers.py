"""What clients are told of processes. Members beyond the public wire's are there only where they say something."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox_actors.envelope import Json
    from sandbox_actors.processes import Holder, Limits, Process, ProcessConfig, RunResult

__all__ = ["config_members", "exit_members", "record_members", "result_pieces"]


def config_members(config: ProcessConfig) -> dict[str, Json]:
    return {
        "maxConcurrentProcesses": config.max_concurrent_processes,
        "defaultRunTimeoutMs": config.default_run_timeout_ms,
        "maxRunTimeoutMs": config.max_run_timeout_ms,
        "maxOutputBytes": config.max_output_bytes,
        "maxLogBytesPerProcess": config.max_log_bytes_per_process,
        "maxInputBytesPerRequest": config.max_input_bytes_per_request,
        "maxExitedProcesses": config.max_exited_processes,
        "maxExitedLogBytes": config.max_exited_log_bytes,
        "maxTerminals": config.max_terminals,
        "terminalScrollbackBytes": config.terminal_scrollback_bytes,
        "terminalIdleMs": config.terminal_idle_ms,
    }


def record_members(process: Process) -> dict[str, Json]:
    """A process as it is at present."""
    spec, state = process.spec, process.state
    record: dict[str, Json] = {"id": process.id, "command": spec.command, "args": list(spec.args)}
    if spec.cwd is not None:
        record["cwd"] = spec.cwd
    record |= {"tty": spec.tty is not None, "interactive": spec.interactive, "owner": "user", "status": state}
    if process.pid is not None and state == "running":
        record["pid"] = process.pid
    if state == "exited" and process.status is not None and process.status.code is not None:
        record["exitCode"] = process.status.code
    record["createdAtMs"] = process.created_ms
    if state == "exited":
        record["exitedAtMs"] = process.exited_ms
        record |= {name: value for name, value in exit_members(process).items() if name != "exitCode"}
    if process.runs > 1:
        record["restarts"] = process.runs - 1
    if spec.user is not None:
        record["user"] = spec.user
    if spec.limits.any:
        record["limits"] = _limits(spec.limits, process.held)
    return record


def exit_members(process: Process) -> dict[str, Json]:
    """How a process ended."""
    status = process.status
    members: dict[str, Json] = {"exitCode": None if status is None else status.code}
    if status is not None and status.signal is not None:
        members["signal"] = status.signal
    if process.ended_by is not None:
        members["endedBy"] = process.ended_by
    return members


def result_pieces(result: RunResult, limits: Limits) -> list[bytes | memoryview]:
    """What came of a call of run, as the pieces of its JSON text: it may be megabytes."""
    before: dict[str, Json] = {
        "exitCode": None if result.timed_out else result.status.code,
        "timedOut": result.timed_out,
    }
    after: dict[str, Json] = {
        "stdoutTruncated": result.stdout.truncated,
        "stderrTruncated": result.stderr.truncated,
        "durationMs": round(result.seconds * 1000),
    }
    if result.status.signal is not None and not result.timed_out:
        after["signal"] = result.status.signal
    if limits.any:
        after["limits"] = _limits(limits, result.held)
    return [
        msgspec.json.encode(before)[:-1],
        b',"stdout":"',
        *result.stdout.pieces,
        b'","stderr":"',
        *result.stderr.pieces,
        b'",',
        msgspec.json.encode(after)[1:],
    ]


def _limits(limits: Limits, held: Mapping[str, list[Holder]]) -> dict[str, Json]:
    """Each limit that was asked for, and by what it is held."""
    return {_camel(name): {"value": getattr(limits, name), "heldBy": holders} for name, holders in held.items()}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)
