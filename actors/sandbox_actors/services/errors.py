"""What an agent is told when a request of its cannot be served: a JSON-RPC error in ACP's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..envelope import error_response
from ..errors import InvalidRequest
from ..files import PathNotFound

if TYPE_CHECKING:
    from msgspec import Raw

    from ..envelope import Json
    from ..errors import Refusal

__all__ = [
    "CANCELLED",
    "INVALID_PARAMS",
    "METHOD_NOT_FOUND",
    "OVERLOADED",
    "RESOURCE_NOT_FOUND",
    "ServiceError",
    "error_answer",
    "refused",
]

METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
OVERLOADED = -32603
"""JSON-RPC 2.0, section 5.1, has nothing better."""

RESOURCE_NOT_FOUND = -32002
CANCELLED = -32800
"""ACP protocol version 1, Error Codes."""


class ServiceError(Exception):
    """The request is answered with this error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def error_answer(id: Raw, code: int, message: str, data: Json = None) -> bytes:
    """A JSON-RPC response that tells an error."""
    error: dict[str, Json] = {"code": code, "message": message}
    if data is not None:
        error["data"] = data
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "error": error})


def refused(id: Raw, refusal: Refusal, path: str | None) -> bytes:
    """The response where the file system or the processes refuse.

    Args:
      path: what the request is about, where that is a file.
    """
    match refusal:
        case PathNotFound():
            # By just these words clients of this protocol tell agents, and some agents look for them.
            return error_answer(id, RESOURCE_NOT_FOUND, f"Resource not found: {path}", {"uri": path})
        case InvalidRequest():
            return error_answer(id, INVALID_PARAMS, str(refusal))
        case _:
            return error_response(id, refusal)
