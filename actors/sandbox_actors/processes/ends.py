"""The two ends of everything between us and a child: pipes or a terminal, and what it reports before it begins."""

from __future__ import annotations

import contextlib
import os
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandbox_supervisor import SpawnFailed

from .descriptor import Descriptor
from .terminal import Size, open_terminal

if TYPE_CHECKING:
    from collections.abc import Generator

    from .log import Stream

__all__ = ["Ends", "open_ends"]


@dataclass(slots=True, eq=False)
class Ends:
    """See the module.

    Attributes:
      outputs: our ends of what the child writes to, by the name of the stream.
      input: our end of what it reads; None where its input is empty.
      terminal: our end of its terminal; None for pipes.
      report: where the launcher tells why the program could not be started; None without a launcher.
      stdin, stdout, stderr: the child's own, as `spawn` takes them.
      reported: the launcher's own end of the report.
    """

    outputs: dict[Stream, Descriptor] = field(default_factory=dict["Stream", Descriptor])
    input: Descriptor | None = None
    terminal: Descriptor | None = None
    report: Descriptor | None = None
    stdin: int = subprocess.DEVNULL
    stdout: int = subprocess.DEVNULL
    stderr: int = subprocess.DEVNULL
    reported: int | None = None
    _ours: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _theirs: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def given(self) -> None:
        """The child has its ends. Only when nobody else has them, the end of its output can be told."""
        self._theirs.close()

    def close(self) -> None:
        self._theirs.close()
        self._ours.close()

    def attach_terminal(self, size: Size) -> None:
        ours, theirs = open_terminal(size)
        self.terminal = self.input = self.outputs["pty"] = self._keep(ours)
        self.stdin = self.stdout = self.stderr = self._give(theirs)

    def attach_pipes(self, *, stdin: bool, merged: bool) -> None:
        if stdin:
            theirs, ours = os.pipe()
            self.input, self.stdin = self._keep(ours), self._give(theirs)
        self.stdout = self._output("stdout")
        self.stderr = subprocess.STDOUT if merged else self._output("stderr")

    def attach_report(self) -> None:
        ours, theirs = os.pipe()
        self.report, self.reported = self._keep(ours), self._give(theirs)

    def _output(self, stream: Stream) -> int:
        ours, theirs = os.pipe()
        self.outputs[stream] = self._keep(ours)
        self.outputs[stream].widen()
        return self._give(theirs)

    def _keep(self, number: int) -> Descriptor:
        descriptor = Descriptor(number)
        self._ours.callback(descriptor.close)
        return descriptor

    def _give(self, number: int) -> int:
        self._theirs.callback(os.close, number)
        return number


@contextlib.contextmanager
def open_ends(*, tty: Size | None, stdin: bool, merged: bool, report: bool) -> Generator[Ends]:
    """Both ends, for as long as the block runs.

    Raises:
      SpawnFailed: there are no more descriptors or terminals.
    """
    ends = Ends()
    try:
        try:
            if tty is not None:
                ends.attach_terminal(tty)
            else:
                ends.attach_pipes(stdin=stdin, merged=merged)
            if report:
                ends.attach_report()
        except OSError as error:
            raise SpawnFailed(f"cannot open what a process needs: {error.strerror}") from error
        yield ends
    finally:
        ends.close()
