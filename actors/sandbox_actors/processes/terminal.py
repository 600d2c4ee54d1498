"""A pseudo-terminal: our end, and the end that a child gets as its input, output and controlling terminal."""

from __future__ import annotations

import fcntl
import os
import struct
import termios
from dataclasses import dataclass

from ..errors import InvalidRequest

__all__ = ["Size", "foreground", "open_terminal", "resize"]

# From asm-generic/termbits.h; erasing a character then erases all of its bytes.
_IUTF8 = 0x4000


@dataclass(frozen=True, slots=True)
class Size:
    """Of a terminal, in characters."""

    rows: int = 24
    cols: int = 80

    def checked(self) -> Size:
        """This. Raises `InvalidRequest` if nothing fits in there."""
        if 0 in (self.rows, self.cols):
            raise InvalidRequest("a terminal has at least one row and one column")
        return self


def open_terminal(size: Size) -> tuple[int, int]:
    """Our end and the child's.

    Raises:
      OSError: there are no more terminals.
    """
    ours, theirs = os.openpty()
    modes = termios.tcgetattr(theirs)
    modes[0] |= _IUTF8
    termios.tcsetattr(theirs, termios.TCSANOW, modes)
    resize(ours, size)
    return ours, theirs


def resize(number: int, size: Size) -> None:
    """Tell it its size; whatever runs in its foreground gets SIGWINCH."""
    fcntl.ioctl(number, termios.TIOCSWINSZ, struct.pack("HHHH", size.rows, size.cols, 0, 0))


def foreground(number: int) -> int:
    """The process group that the terminal's keys reach; 0 where there is none.

    Raises:
      OSError: nobody has it open.
    """
    return os.tcgetpgrp(number)
