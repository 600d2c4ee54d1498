"""A connection to what listens on a port of this machine, by IPv4 or else IPv6."""

from __future__ import annotations

import os
import socket

import trio

from ..problems import Problem

__all__ = ["TAKES_WITHIN", "connect", "give"]

CONNECTS_WITHIN = 5.0
"""Seconds for a connection on loopback: longer only where the other side takes no more of them."""

TAKES_WITHIN = 60.0
"""Seconds for an application to take what it is sent. Meanwhile nobody would notice that the client has gone."""

LOOPBACK = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))


async def connect(port: int) -> trio.SocketStream:
    """Connect to a port.

    Raises:
      Problem: `port_unreachable` or `timeout`.
    """
    reasons: list[str] = []
    late = False
    for family, host in LOOPBACK:
        try:
            return await _connect(family, host, port)
        except trio.TooSlowError:
            late = True
        except OSError as error:
            reasons.append(f"{host}: {os.strerror(error.errno) if error.errno else error}")
    if late:
        raise Problem("timeout", f"port {port} takes no connection; what listens there is stuck", port=port)
    message = f"nobody can be reached on port {port} ({'; '.join(reasons)}); start the server, or wait for it"
    raise Problem("port_unreachable", message, port=port)


async def _connect(family: int, host: str, port: int) -> trio.SocketStream:
    connection = trio.socket.socket(family, socket.SOCK_STREAM)
    try:
        with trio.fail_after(CONNECTS_WITHIN):
            await connection.connect((host, port))
        # Where nobody listens on a port that the kernel gives to clients, a connection may meet itself.
        if connection.getsockname()[:2] == connection.getpeername()[:2]:
            raise ConnectionRefusedError("Connection refused")
    except BaseException:
        connection.close()
        raise
    return trio.SocketStream(connection)


async def give(stream: trio.SocketStream, data: bytes) -> None:
    """Send to the application.

    Raises:
      trio.BrokenResourceError: it has closed the connection.
      trio.TooSlowError: it does not take it.
    """
    with trio.fail_after(TAKES_WITHIN):
        await stream.send_all(data)
