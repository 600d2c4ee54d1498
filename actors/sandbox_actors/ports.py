"""The TCP ports that somebody in this sandbox listens on, as the kernel tells them.

`/proc/net/tcp` and `tcp6` have one line a socket (man 5 proc), for our own network namespace; the inode of a socket
leads to the processes that hold it, as far as we may look into them. Nobody is connected to for it: some servers take
one connection and are done.
"""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from .errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Listener", "NobodyListens", "PortsUnavailable", "Socket", "listeners", "parse_sockets", "wait_for_listener"]

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))

LISTEN = "0A"
"""TCP_LISTEN in include/net/tcp_states.h."""

COMMAND_LENGTH = 300

FIRST_LOOK_AFTER = 0.02
LOOK_EVERY = 0.25
"""Seconds between two looks at the table while somebody waits: at first, and at most."""

_THREADS = trio.CapacityLimiter(2)
"""Looks into every process take a while; they are not to take the threads of others."""


class NobodyListens(Refusal):
    """The port was waited for in vain."""

    name = "timeout"

    def __init__(self, port: int, seconds: float) -> None:
        super().__init__(f"nobody has listened on port {port} within {seconds:g} s")


class PortsUnavailable(Refusal):
    """The kernel does not tell who listens."""

    name = "internal_error"

    def __init__(self, error: OSError) -> None:
        super().__init__(f"the ports of this machine cannot be read: {error}")


@dataclass(frozen=True, slots=True)
class Socket:
    """A listening socket."""

    address: IPv4Address | IPv6Address
    port: int
    inode: str

    @property
    def on_loopback(self) -> bool:
        """Whether 127.0.0.1 or ::1 leads to it."""
        address = self.address
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address.is_unspecified or address in (IPv4Address("127.0.0.1"), IPv6Address("::1"))


@dataclass(frozen=True, slots=True)
class Listener:
    """A port that somebody listens on.

    Attributes:
      addresses: all that it is bound to.
      on_loopback: whether it can be reached at 127.0.0.1 or ::1.
      pid: the process that holds the socket, the one of the lowest number where several do; None where we may not look.
      command: its command line, cut.
    """

    port: int
    addresses: tuple[str, ...]
    on_loopback: bool
    pid: int | None
    command: str | None


async def listeners(*, without: Iterable[int] = ()) -> list[Listener]:
    """Everybody who listens, by port.

    Args:
      without: ports that are left out.

    Raises:
      PortsUnavailable: the kernel does not tell.
    """
    left_out = frozenset(without)

    def look() -> list[Listener]:
        return _described([socket for socket in _sockets() if socket.port not in left_out])

    return await _in_thread(look)


async def wait_for_listener(port: int, seconds: float) -> Listener:
    """Wait until somebody listens on a port in such a way that loopback leads to it.

    Raises:
      NobodyListens: not within this time.
      PortsUnavailable: the kernel does not tell.
    """

    def look() -> list[Listener]:
        found = [socket for socket in _sockets() if socket.port == port]
        return _described(found) if any(socket.on_loopback for socket in found) else []

    found = await _in_thread(look)  # also where there is no time to wait
    pause = FIRST_LOOK_AFTER
    with trio.move_on_after(seconds):
        while not found:
            await trio.sleep(pause)
            pause = min(LOOK_EVERY, pause * 1.5)
            found = await _in_thread(look)
    if not found:
        raise NobodyListens(port, seconds)
    return found[0]


async def _in_thread(look: Callable[[], list[Listener]]) -> list[Listener]:
    try:
        return await trio.to_thread.run_sync(look, limiter=_THREADS)
    except OSError as error:
        raise PortsUnavailable(error) from error


def parse_sockets(table: str) -> Iterator[Socket]:
    """The listening sockets in the text of one of the tables."""
    for line in table.splitlines()[1:]:
        fields = line.split()
        if len(fields) > 9 and fields[3] == LISTEN:
            address, _, port = fields[1].rpartition(":")
            yield Socket(_address(address), int(port, 16), fields[9])


def _address(text: str) -> IPv4Address | IPv6Address:
    # The kernel prints each 32 bits as a number, in the byte order of the machine.
    words = (bytes.fromhex(text[start : start + 8]) for start in range(0, len(text), 8))
    return ip_address(b"".join(word[::-1] if sys.byteorder == "little" else word for word in words))


def _sockets() -> list[Socket]:
    found: list[Socket] = []
    for table in TABLES:
        try:
            found += parse_sockets(table.read_text())
        except FileNotFoundError:
            if table is TABLES[0]:
                raise
            # A kernel without IPv6.
    return found


def _described(sockets: list[Socket]) -> list[Listener]:
    holders = _holders({socket.inode for socket in sockets})
    found: list[Listener] = []
    for port in sorted({socket.port for socket in sockets}):
        ours = [socket for socket in sockets if socket.port == port]
        pid = min((holders[socket.inode] for socket in ours if socket.inode in holders), default=None)
        found.append(
            Listener(
                port,
                tuple(sorted({str(socket.address) for socket in ours})),
                any(socket.on_loopback for socket in ours),
                pid,
                None if pid is None else _command(pid),
            )
        )
    return found


def _holders(inodes: set[str]) -> dict[str, int]:
    """The process that holds each socket."""
    links = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, int] = {}
    # From the highest number down, so that the lowest one stays.
    for pid in sorted((int(name) for name in os.listdir("/proc") if name.isdecimal()), reverse=True):
        try:
            with os.scandir(f"/proc/{pid}/fd") as descriptors:
                for descriptor in descriptors:
                    if inode := links.get(_target(descriptor.path)):
                        found[inode] = pid
        except OSError:  # it has ended, or is another user's
            continue
    return found


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except OSError:  # closed meanwhile
        return ""


def _command(pid: int) -> str | None:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return None
    return shlex.join(word.decode(errors="replace") for word in words)[:COMMAND_LENGTH] or None
