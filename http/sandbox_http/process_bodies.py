"""What clients send to have processes run, as it stands on the wire, and what the domain makes of it."""

from __future__ import annotations

import base64
import binascii
import signal as signal_module
from dataclasses import replace
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType
from quart import request

from sandbox_actors.processes import Limits, ProcessConfig, Size, Spec
from sandbox_supervisor import PERMANENT, TRANSIENT, RestartPolicy

from .problems import Problem
from .requests import require_json

__all__ = [
    "ConfigBody",
    "CreateBody",
    "InputBody",
    "RunBody",
    "Short",
    "SignalBody",
    "SizeBody",
    "body",
    "input_bytes",
    "number",
]

T = TypeVar("T")
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Short = Annotated[int, Meta(ge=0, le=2**16 - 1)]

ENCODINGS = ("base64", "utf8", "text")


class ConfigBody(msgspec.Struct, rename="camel"):
    """All of what the public wire knows, and perhaps some of what it does not."""

    max_concurrent_processes: Count
    default_run_timeout_ms: Count
    max_run_timeout_ms: Count
    max_output_bytes: Count
    max_log_bytes_per_process: Count
    max_input_bytes_per_request: Count
    max_exited_processes: Count | UnsetType = UNSET
    max_exited_log_bytes: Count | UnsetType = UNSET
    max_terminals: Count | UnsetType = UNSET
    terminal_scrollback_bytes: Count | UnsetType = UNSET
    terminal_idle_ms: Count | UnsetType = UNSET

    def config(self, present: ProcessConfig) -> ProcessConfig:
        """What is to hold from now on. Raises `InvalidRequest` if it cannot."""
        given = msgspec.structs.asdict(self)
        told = {name: getattr(present, name) if value is UNSET else value for name, value in given.items()}
        return ProcessConfig(**told).checked()


class _Limits(msgspec.Struct, rename="camel"):
    cpu_seconds: Count | None = None
    memory_bytes: Count | None = None
    file_bytes: Count | None = None
    open_files: Count | None = None
    processes: Count | None = None
    cpus: Annotated[float, Meta(gt=0)] | None = None


class _Restart(msgspec.Struct, rename="camel"):
    policy: Literal["on-failure", "always"]
    max_restarts: Count = 5
    within_ms: Count = 60_000
    backoff_ms: Count = 200
    max_backoff_ms: Count = 10_000

    def decided(self) -> RestartPolicy:
        return RestartPolicy(
            PERMANENT if self.policy == "always" else TRANSIENT,
            intensity=self.max_restarts,
            period=self.within_ms / 1000,
            backoff=self.backoff_ms / 1000,
            backoff_limit=self.max_backoff_ms / 1000,
        )


class _Command(msgspec.Struct, rename="camel"):
    """What a call of run and a created process have in common."""

    command: str
    args: list[str] = []
    cwd: str | None = None
    env: dict[str, str] = {}
    timeout_ms: Count | None = None
    stdin: str | None = None
    stdin_encoding: str = "text"
    merge_output: bool = False
    user: str | None = None
    limits: _Limits | None = None

    def spec(self) -> Spec:
        """Raises `Problem` if there is no such encoding, or the input is not in it."""
        return Spec(
            self.command,
            tuple(self.args),
            cwd=self.cwd,
            env=self.env,
            stdin=None if self.stdin is None else input_bytes(self.stdin, self.stdin_encoding),
            merged=self.merge_output,
            user=self.user,
            limits=Limits() if self.limits is None else Limits(**msgspec.structs.asdict(self.limits)),
        )


class RunBody(_Command, rename="camel"):
    max_output_bytes: Count | None = None


class CreateBody(_Command, rename="camel"):
    tty: bool = False
    interactive: bool = False
    rows: Short = 24
    cols: Short = 80
    restart: _Restart | None = None

    def spec(self) -> Spec:
        """Raises as for a call of run."""
        return replace(
            super().spec(),
            tty=Size(self.rows, self.cols) if self.tty else None,
            interactive=self.interactive,
            timeout=self.timeout_ms / 1000 if self.timeout_ms else None,
            restart=None if self.restart is None else self.restart.decided(),
        )


class InputBody(msgspec.Struct):
    """Without `data` it is the end alone."""

    data: str | UnsetType = UNSET
    encoding: str = "base64"
    eof: bool = False

    def decided(self) -> bytes | None:
        """What is to be written. Raises `Problem` if there is nothing to be done, or it is not in that encoding."""
        if self.data is UNSET:
            if not self.eof:
                raise Problem("invalid_request", "Object missing required field `data`", status=422)
            return None
        return input_bytes(self.data, self.encoding)


class SizeBody(msgspec.Struct):
    cols: Short
    rows: Short

    def decided(self) -> Size:
        """Raises `InvalidRequest` if it is none."""
        return Size(rows=self.rows, cols=self.cols).checked()


class SignalBody(msgspec.Struct):
    """By its name, with or without SIG, or by its number."""

    signal: str | int

    def decided(self) -> signal_module.Signals:
        """Raises `Problem` if there is no such signal."""
        asked = self.signal
        try:
            if isinstance(asked, int):
                return signal_module.Signals(asked)
            return signal_module.Signals[asked if asked.startswith("SIG") else f"SIG{asked}"]
        except (KeyError, ValueError):
            raise Problem("invalid_request", f"there is no signal {asked!r}") from None


async def body(shape: type[T]) -> T:
    """The body of the request.

    Raises:
      Problem: it is not of this shape, or no JSON at all.
    """
    require_json()
    try:
        return msgspec.json.decode(bytes(await request.body), type=shape)
    except msgspec.ValidationError as error:
        raise Problem("invalid_request", str(error), status=422) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem("invalid_request", f"the body is not JSON: {error}") from None


def number(name: str) -> int | None:
    """A query parameter; None where it is absent.

    Raises:
      Problem: it is no number.
    """
    text = request.args.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise Problem("invalid_request", f"the query parameter {name!r} must be a number")
    return int(text)


def input_bytes(text: str, encoding: str) -> bytes:
    """What a client wants written.

    Raises:
      Problem: it is not in that encoding, or there is no such.
    """
    if encoding not in ENCODINGS:
        raise Problem("invalid_request", f"encoding must be one of: {', '.join(ENCODINGS)}")
    if encoding != "base64":
        return text.encode()
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem("invalid_request", f"invalid base64 input: {error}") from None
