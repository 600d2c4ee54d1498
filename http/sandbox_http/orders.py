"""What the daemon is told from outside while it runs: by signals, and by the end of its stdin.

The end of stdin is a lifeline: whoever started the daemon holds the other end of that pipe, and the kernel closes it
when they end, however they end.
"""

from __future__ import annotations

import math
import os
import signal
import stat
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

from .config import BadConfig

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

__all__ = ["Order", "name_of", "open_orders"]

Order: TypeAlias = signal.Signals | Literal["stdin"]

STDIN = 0

READ_AT_A_TIME = 1 << 16
"""Bytes of what comes by a lifeline, and is thrown away: a pipe's whole buffer."""


@asynccontextmanager
async def open_orders(*heeded: signal.Signals, lifeline: bool) -> AsyncGenerator[AsyncIterator[Order]]:
    """Orders as they come, for as long as the block runs.

    Args:
      heeded: the signals that are orders.
      lifeline: whether the end of stdin is one, too.

    Raises:
      BadConfig: there is no stdin that could end.
    """
    if lifeline:
        _check_stdin()
    # Without bound, since a signal cannot be held up: Trio keeps one of each number at a time.
    send, receive = trio.open_memory_channel[Order](math.inf)

    async def pass_on(signals: AsyncIterator[int]) -> None:
        async for number in signals:
            send.send_nowait(signal.Signals(number))

    async def watch() -> None:
        await _end_of_stdin()
        send.send_nowait("stdin")

    with trio.open_signal_receiver(*heeded) as signals, send, receive:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pass_on, signals)
            if lifeline:
                nursery.start_soon(watch)
            yield receive
            nursery.cancel_scope.cancel()


def name_of(order: Order) -> str:
    """What logs call it."""
    return order.name if isinstance(order, signal.Signals) else "end of stdin"


def _check_stdin() -> None:
    # Where it was closed, that number may be some other file of ours by now.
    mode = 0 if sys.stdin is None else os.fstat(STDIN).st_mode
    # A file and /dev/null are at their end from the start, and the kernel does not watch them for us.
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(STDIN)):
        raise BadConfig("--exit-with-stdin needs a stdin that ends with somebody: a pipe, a socket or a terminal")


async def _end_of_stdin() -> None:
    """Wait until whoever holds the other end has closed it; what they say before is thrown away."""
    # Not by a stream of Trio's: that would change the mode of a terminal, or a socket, which others use too.
    while True:
        await trio.lowlevel.wait_readable(STDIN)
        try:
            if not os.read(STDIN, READ_AT_A_TIME):
                return
        except BlockingIOError:
            continue
        except OSError:  # a terminal that is gone, a connection that was reset
            return
