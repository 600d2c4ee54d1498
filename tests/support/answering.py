"""A server that answers every request with the same bytes: what others than ours may say, down to the last one."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["Asked", "answering", "events", "http"]


class Asked(list[bytes]):
    """The requests that a scripted server has got, each with its body."""

    @property
    def last(self) -> tuple[str, dict[str, str], bytes]:
        """The request line, the headers and the body."""
        head, _, body = self[-1].partition(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        return line, {name.lower(): value for name, _, value in (each.partition(": ") for each in headers)}, body


@asynccontextmanager
async def answering(answer: bytes) -> AsyncGenerator[tuple[str, Asked]]:
    """A server that answers every request with these bytes and closes; gives its URL and what it was asked."""
    asked = Asked()

    async def serve(stream: trio.SocketStream) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += await stream.receive_some(65536)
        head, _, body = request.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += await stream.receive_some(65536)
        asked.append(head + b"\r\n\r\n" + body)
        await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), serve, 0)
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}", asked
        nursery.cancel_scope.cancel()


def http(body: bytes, kind: str = "application/json", status: str = "200 OK", length: int | None = None) -> bytes:
    """An answer; a stream is one without a length, that ends with the connection."""
    size = b"" if length == -1 else b"Content-Length: %d\r\n" % len(body)
    return (
        b"HTTP/1.1 %b\r\nContent-Type: %b\r\nConnection: close\r\n%b\r\n" % (status.encode(), kind.encode(), size)
        + body
    )


def events(*pairs: tuple[str, object]) -> bytes:
    """An answer that is a stream of these events, each with its data, and then the end."""
    body = b": heartbeat\n\n"
    body += b"".join(b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps(data).encode()) for name, data in pairs)
    return http(body, "text/event-stream", length=-1)
