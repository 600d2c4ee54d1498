# Written by scripts/make-sync from ../terminals.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.terminals`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..process_models import Exit
    from ..terminals import Terminal as AsyncTerminal
    from ._line import Line


__all__ = ["Terminal"]


class Terminal:
    """An iterator over what the terminal shows, in bytes, until the program has exited.

        with process.terminal() as terminal:
            terminal.write("ls\\n")
            for shown in terminal: ...
        print(terminal.exit_code)

    One thread may read while others write. A program in the usual mode of terminals takes lines of up to 4,096 bytes.

    Attributes:
      skipped: bytes that were dropped before this viewer came to them.
      refused: why the server has not taken the last thing that it has not taken, such as input while another viewer has
        taken the terminal over; None: it has taken all.
      exit: how the program ended, once the iteration has.
    """

    def __init__(self, actual: AsyncTerminal, line: Line) -> None:
        self._actual = actual
        self._line = line

    @property
    def skipped(self) -> int:
        return self._actual.skipped

    @property
    def refused(self) -> str | None:
        return self._actual.refused

    @property
    def exit(self) -> Exit | None:
        return self._actual.exit

    def __iter__(self) -> Terminal:
        return self

    def __next__(self) -> bytes:
        """What it shows next.

        Raises:
          ConnectionFailed: the connection broke, the server goes, or another task has left the block. View the terminal
            again.
        """
        return self._line.next(self._actual)

    @property
    def exit_code(self) -> int | None:
        """Of the program; None while it runs, and where a signal has ended it."""
        return self._actual.exit_code

    def write(self, data: bytes | str) -> None:
        """Type. What a program does not read is not kept for ever: see `refused`, and `Process.write`, which waits.

        Raises:
          ConnectionFailed.
        """
        self._line.call(self._actual.write, data)

    def resize(self, rows: int, cols: int) -> None:
        """Give it another size. Raises `ConnectionFailed`."""
        self._line.call(self._actual.resize, rows, cols)

    def take_over(self) -> None:
        """From now on only this viewer may write and resize. Raises `ConnectionFailed`."""
        self._line.call(self._actual.take_over)

    def release(self) -> None:
        """All may again. Raises `ConnectionFailed`."""
        self._line.call(self._actual.release)
