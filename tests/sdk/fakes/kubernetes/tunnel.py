"""A forwarded port, as the kubelet has it over WebSockets: messages begin with a channel, 0 for data and 1 for errors.

The first message on each channel is the number of the port, the lower byte first.
"""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping
from wsproto.utilities import ProtocolError

if TYPE_CHECKING:
    import ssl
    from threading import Event

__all__ = ["SUBPROTOCOL", "accept", "carry"]

SUBPROTOCOL = "v4.channel.k8s.io"

PIECE = 32 << 10
"""Bytes of a message: as the kubelet copies."""

LOOK_EVERY = 0.2
"""Seconds between two looks whether all is over."""


def accept(key: str) -> bytes:
    """The answer to a handshake."""
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
    ).encode()


def carry(client: socket.socket | ssl.SSLSocket, ip: str, port: int, over: Event) -> None:
    """Carry bytes between a WebSocket and a port of a pod, until one of them ends."""
    wire = Connection(ConnectionType.SERVER)
    writing = threading.Lock()

    def say(channel: int, data: bytes) -> None:
        with writing:
            client.sendall(wire.send(BytesMessage(bytes([channel]) + data)))

    number = port.to_bytes(2, "little")
    say(0, number)
    say(1, number)
    try:
        upstream = socket.create_connection((ip, port), timeout=5)
    except OSError as error:
        say(1, f"error forwarding port {port} to pod, uid : failed to connect to localhost:{port}: {error}".encode())
        _close(client, wire, writing)
        return

    def back() -> None:
        with suppress(OSError, ProtocolError):
            while data := upstream.recv(PIECE):
                say(0, data)
        _close(client, wire, writing)

    with upstream:
        upstream.settimeout(None)
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread = threading.Thread(target=back)
        thread.start()
        client.settimeout(LOOK_EVERY)
        with suppress(OSError, ProtocolError):
            _read(client, wire, writing, upstream, over)
        with suppress(OSError):
            upstream.shutdown(socket.SHUT_RDWR)
        thread.join()


def _read(
    client: socket.socket, wire: Connection, writing: threading.Lock, upstream: socket.socket, over: Event
) -> None:
    begun = False
    while not over.is_set():
        try:
            data = client.recv(PIECE)
        except TimeoutError:
            continue
        wire.receive_data(data or None)
        for event in wire.events():
            match event:
                case BytesMessage():
                    # Whether a message is whole does not matter to a stream; whether it begins does.
                    piece = bytes(event.data)
                    upstream.sendall(piece if begun else piece[1:])
                    begun = not event.message_finished
                case Ping():
                    with writing:
                        client.sendall(wire.send(event.response()))
                case CloseConnection():
                    return
                case _:
                    pass
        if not data:
            return


def _close(client: socket.socket, wire: Connection, writing: threading.Lock) -> None:
    with writing, suppress(OSError, ProtocolError):
        client.sendall(wire.send(CloseConnection(1000)))
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
