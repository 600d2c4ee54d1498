"""A server whose answers a test writes down, byte by byte, for clients under either event loop.

Each connection is served by the next script, those behind the last one by the last one again. A script that returns
closes its connection.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.abc

from sandbox_agent.scope import open_tasks

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

__all__ = ["Asked", "Script", "Scripted", "cut", "event_stream", "hang", "refused", "said", "scripted"]

Stream: TypeAlias = anyio.abc.SocketStream


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. Header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)


Script: TypeAlias = "Callable[[Asked, Stream], Awaitable[None]]"


@dataclass(slots=True)
class Scripted:
    """See the module.

    Attributes:
      asked: every request, in order.
    """

    url: str
    asked: list[Asked] = field(default_factory=list[Asked])


@asynccontextmanager
async def scripted(*scripts: Script, port: int = 0) -> AsyncGenerator[Scripted]:
    """A server for as long as the block runs, on a port of its own, or this one."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    port = listener.extra(anyio.abc.SocketAttribute.local_port)
    server = Scripted(f"http://127.0.0.1:{port}")

    async def serve(stream: Stream) -> None:
        async with stream:
            try:
                asked = await _read(stream)
                server.asked.append(asked)
                await scripts[min(len(server.asked), len(scripts)) - 1](asked, stream)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return  # the client has left

    async with listener, open_tasks() as tasks:
        tasks.start_soon(listener.serve, serve)
        yield server


async def _read(stream: Stream) -> Asked:
    text = b""
    while b"\r\n\r\n" not in text:
        text += await stream.receive()
    head, _, body = text.partition(b"\r\n\r\n")
    line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += await stream.receive()
    method, target, _ = line.split(" ")
    return Asked(method, target, headers, body)


def said(body: bytes = b"{}", status: int = 200, **headers: str) -> Script:
    """An answer. Underscores in names of headers are dashes."""

    async def script(_: Asked, stream: Stream) -> None:
        head = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
        head |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        await stream.send(f"HTTP/1.1 {status} \r\n{lines}\r\n".encode() + body)

    return script


def refused(status: int, type: str, **headers: str) -> Script:
    """A problem."""
    return said(b'{"type":"urn:sandbox-agent:error:%b","detail":"no"}' % type.encode(), status, **headers)


def event_stream(*frames: bytes, then: Script | None = None, **headers: str) -> Script:
    """A chunked event stream of these frames, that ends well, unless something else comes then."""

    async def script(asked: Asked, stream: Stream) -> None:
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
        head += "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await stream.send(head.encode() + b"\r\n")
        for frame in frames:
            await stream.send(b"%x\r\n%b\r\n" % (len(frame), frame))
        if then is not None:
            await then(asked, stream)
        else:
            await stream.send(b"0\r\n\r\n")

    return script


async def cut(_: Asked, stream: Stream) -> None:
    """The connection ends here, without a word."""


async def hang(_: Asked, stream: Stream) -> None:
    """Nothing more comes, as from a peer that is gone without having said so."""
    await anyio.sleep_forever()
