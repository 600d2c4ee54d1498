"""What is refused about processes, and why."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ..errors import Refusal

if TYPE_CHECKING:
    from sandbox_supervisor import SpawnFailed

__all__ = [
    "InputBroken",
    "InputFull",
    "NotRunning",
    "ProcessNotFound",
    "ProcessTrouble",
    "StartFailed",
    "UserDenied",
]


class ProcessNotFound(Refusal):
    name = "not_found"

    def __init__(self, id: str) -> None:
        super().__init__(f"process {id}")
        self.id = id

    @property
    def details(self) -> dict[str, str | int | list[str]]:
        return {"id": self.id, "resource": "process"}


class ProcessTrouble(Refusal):
    """The process is not in a state for that, or there are too many. The message says which."""

    name = "conflict"


class NotRunning(ProcessTrouble):
    def __init__(self) -> None:
        super().__init__("process is not running")


class UserDenied(Refusal):
    """Only root may start processes of others."""

    name = "permission_denied"

    def __init__(self, user: str) -> None:
        super().__init__(f"cannot start a process as {user!r}: the daemon does not run as root")


class StartFailed(Refusal):
    """The program could not be started: there is none, no such directory, no permission."""

    name = "stream_error"

    def __init__(self, error: SpawnFailed, *, tty: bool) -> None:
        cause = error.__cause__
        match cause:
            case OSError(errno=int(number)):
                reason = f"{os.strerror(number)} (os error {number})"
            case ValueError() if "null" in str(cause):
                reason = "nul byte found in provided data"
            case _:
                reason = str(error)
        super().__init__(f"failed to spawn {'tty ' if tty else ''}process: {reason}")


class InputBroken(Refusal):
    """The process has closed its standard input."""

    name = "stream_error"

    def __init__(self) -> None:
        super().__init__(f"failed to write stdin: {os.strerror(errno.EPIPE)} (os error {errno.EPIPE})")


class InputFull(Refusal):
    """The process does not read, and too much waits for it already."""

    name = "overloaded"
    retry_after = 1.0

    def __init__(self, waiting: int) -> None:
        super().__init__(f"the process does not read its input: {waiting} bytes wait for it")
