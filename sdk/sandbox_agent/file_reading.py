"""A file of the sandbox as it is read: in pieces, all of it or an error."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from .errors import ConnectionFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from .incoming import Incoming
    from .transport import Params, Transport

__all__ = ["AS_IT_IS", "Pieces", "open_pieces"]

AS_IT_IS: Mapping[str, str] = {"Accept": "*/*", "Accept-Encoding": "identity"}
"""Headers of requests for bytes: nothing in between is to pack them, so the length that is told is that of the body."""


PARTIAL = 206
"""The status of an answer to `Range`."""


class Pieces:
    """An async iterator over the bytes of an answer. Where they break off it raises; it never just ends early.

    Attributes:
      size: of the whole file in bytes; None where the server does not know.
      etag: names the content, for `if_match`; None where there is none.
      partial: this is the part that was asked for.
    """

    def __init__(self, incoming: Incoming) -> None:
        headers = incoming.headers
        whole = headers.get("Content-Range", "").rpartition("/")[2] or headers.get("Content-Length", "")
        self.size = int(whole) if whole.isdecimal() else None
        self.etag: str | None = headers.get("ETag")
        self.partial = incoming.status_code == PARTIAL
        self._incoming = incoming

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        """Some more bytes.

        Raises:
          ConnectionFailed: not all has come.
        """
        try:
            return await anext(self._incoming)
        except httpx.TransportError as error:
            raise ConnectionFailed(f"the answer was cut off: {str(error) or type(error).__name__}") from None


@asynccontextmanager
async def open_pieces(
    transport: Transport, path: str, params: Params, headers: Mapping[str, str] | None = None
) -> AsyncGenerator[Pieces]:
    """The body of a GET. Raises as `Transport.stream`."""
    async with transport.stream("GET", path, params=params, headers={**AS_IT_IS, **(headers or {})}) as incoming:
        yield Pieces(incoming)
