"""One command from its start to its end, as an answer: its output, bounded, and how it ended.

The call owns the command. When it ends, for whatever reason, also because nobody waits for it any more, the whole tree
of the command is ended.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec
import trio

from sandbox_supervisor import SpawnFailed

from .child import open_child
from .errors import StartFailed
from .process import LAST_WORDS_WITHIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sandbox_supervisor import Cookie, ExitStatus, Reaper

    from .cgroups import Cgroups
    from .child import Launch
    from .limits import Holder

__all__ = ["RunResult", "run_command"]


@dataclass(frozen=True, slots=True)
class RunResult:
    """What became of a command.

    Attributes:
      status: how it ended; of one that was given up, by SIGKILL.
      seconds: how long that took.
      held: by what its limits were held.
    """

    status: ExitStatus
    timed_out: bool
    stdout: Output
    stderr: Output
    seconds: float
    held: dict[str, list[Holder]]


class Output:
    """The first bytes of a stream, as the text of a JSON string; the rest is read and dropped.

    The text is made while the bytes come, so that the answer to a command that wrote megabytes is neither made at once
    in the end nor ever in one piece. What is no UTF-8 is replaced; a character that the limit cut in two is left out.
    """

    def __init__(self, limit: int) -> None:
        self.truncated = False
        self._room = limit
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._pieces: list[memoryview] = []

    def take(self, data: bytes) -> None:
        if len(data) > self._room:
            self.truncated = True
            data = data[: self._room]
        if data:
            self._room -= len(data)
            self._add(self._decoder.decode(data))

    def end(self) -> None:
        """Nothing more comes."""
        if not self.truncated:
            self._add(self._decoder.decode(b"", final=True))

    def _add(self, text: str) -> None:
        if text:
            self._pieces.append(memoryview(msgspec.json.encode(text))[1:-1])

    @property
    def pieces(self) -> Sequence[memoryview]:
        """What stands between the quotes of the JSON string."""
        return self._pieces

    @property
    def text(self) -> str:
        return msgspec.json.decode(b'"%b"' % b"".join(self._pieces), type=str)


async def run_command(
    launch: Launch,
    *,
    cookie: Cookie,
    reaper: Reaper | None,
    cgroups: Cgroups,
    stdin: bytes | None,
    timeout: float,
    limit: int,
) -> RunResult:
    """Run it.

    Args:
      stdin: its whole input, if `launch` has one.
      timeout: seconds for all of it; then its whole tree is ended.
      limit: bytes of each stream that are given back.

    Raises:
      StartFailed: it could not be started.
    """
    begun = trio.current_time()
    outputs = {"stdout": Output(limit), "stderr": Output(limit)}
    try:
        async with open_child(launch, cookie=cookie, reaper=reaper, cgroups=cgroups) as child:
            if stdin is not None:
                child.input.write_all(stdin)
            async with trio.open_nursery() as readers:
                readers.start_soon(child.input.flush)
                for stream, output in child.outputs.items():
                    readers.start_soon(output.pump, outputs[stream].take)
                with trio.move_on_at(begun + timeout) as patience:
                    await child.wait()
                status = await child.end()
                readers.cancel_scope.deadline = trio.current_time() + LAST_WORDS_WITHIN
            held = launch.limits.held(
                child.group.controllers if child.group is not None else (),
                root=None if launch.user is None else launch.user.uid == 0,
            )
    except SpawnFailed as error:
        raise StartFailed(error, tty=False) from None
    for taken in outputs.values():
        taken.end()
    return RunResult(
        status,
        patience.cancelled_caught,
        outputs["stdout"],
        outputs["stderr"],
        trio.current_time() - begun,
        held,
    )
