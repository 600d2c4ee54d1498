"""The wire: JSON-RPC messages as lines on stdin and stdout.

Writes are whole lines under one lock, so turns never cut into each other's lines. A reader that went away ends the
process quietly: nothing that an agent has to say makes sense without its client.
"""

from __future__ import annotations

import json
import math
import os
from threading import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn, TypeAlias

    Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
    Object: TypeAlias = "dict[str, Json]"

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
AUTH_REQUIRED = -32000
RESOURCE_NOT_FOUND = -32002

# One read of a pipe on Linux returns at most its capacity, 64 KiB unless someone raised it.
READ_SIZE = 65536


class RpcError(Exception):
    """The request is answered with this JSON-RPC error."""

    def __init__(self, code: int, message: str, data: Json = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data

    def body(self) -> Object:
        body: Object = {"code": self.code, "message": self.message}
        if self.data is not None:
            body["data"] = self.data
        return body


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"number out of range: {text[:32]}")
    return number


# The decoder takes NaN and 1e999 unless told not to; both would leave in an echo as something that is no JSON.
_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_encode_raw = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":")).encode


def decode(line: bytes) -> Json:
    """Raises ValueError, whatever the reason."""
    try:
        value: Json = _decoder.decode(line.decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return value


def encode(message: Json) -> bytes:
    """One line, newline included."""
    try:
        return _encode_raw(message).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can carry
        return _encode_ascii(message).encode("ascii") + b"\n"


class Wire:
    def __init__(self, stdin: int = 0, stdout: int = 1) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._lock = Lock()

    def lines(self) -> Iterator[bytes]:
        """The lines of input, of any length, blank ones left out."""
        with open(self._stdin, "rb", buffering=READ_SIZE, closefd=False) as stream:
            for line in stream:
                if not line.isspace():
                    yield line

    def write(self, data: bytes) -> None:
        """Write whole lines; leave the process if nobody can read them any more."""
        view = memoryview(data)
        with self._lock:
            try:
                while view:
                    view = view[os.write(self._stdout, view) :]
            except OSError:
                os._exit(0)

    def send(self, message: Object) -> None:
        self.write(encode(message))

    def notify(self, method: str, params: Object) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})

    def reply(self, request: Object, result: Object) -> None:
        self.send({"jsonrpc": "2.0", "id": request["id"], "result": {**result, "echoed": request}})

    def refuse(self, request: Object, error: RpcError) -> None:
        self.send({"jsonrpc": "2.0", "id": request["id"], "error": error.body()})

    def update(self, session: str, update: Object) -> None:
        self.send(update_message(session, update))


def update_message(session: str, update: Object) -> Object:
    return {"jsonrpc": "2.0", "method": "session/update", "params": {"sessionId": session, "update": update}}


def chunk(kind: str, text: str) -> Object:
    """A `user_message_chunk`, `agent_message_chunk` or `agent_thought_chunk`."""
    return {"sessionUpdate": kind, "content": {"type": "text", "text": text}}
