"""One JSON-RPC message: only its head is read, its bytes are passed on.

Routing needs to know whether there is an `id` and a `method`, nothing else; everything beside them stays the text that
it was, so numbers keep their digits and keys their order. `msgspec` checks the whole text while it skips through it.
Ids are compared by their canonical text: `7`, `"7"` and `7.0` are three ids. (JSON-RPC 2.0, ACP protocol version 1.)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import UNSET, Raw, UnsetType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .errors import Refusal

__all__ = [
    "Head",
    "InvalidEnvelope",
    "Json",
    "Params",
    "as_line",
    "decode",
    "error_response",
    "id_text",
    "members_of",
    "notification",
    "replace_members",
    "request",
    "text_of",
]

Json: TypeAlias = Any
"""Whatever JSON can say. The one place where a type ends."""

Params: TypeAlias = "Raw | Mapping[str, Json]"

INTERNAL_ERROR = -32603
"""JSON-RPC 2.0, section 5.1."""


class InvalidEnvelope(ValueError):
    """The text is no JSON object. The message says why."""


class Head(msgspec.Struct, gc=False):
    """What is read of an envelope; each member is its JSON text, or UNSET where the key is absent.

    It cannot be part of a cycle, so the garbage collector need not look at the one of every line.
    """

    id: Raw | UnsetType = UNSET
    method: Raw | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET

    @property
    def request_id(self) -> Raw | None:
        """The id, if this is a request; None for a notification or a response."""
        return self.id if isinstance(self.id, Raw) and self.method is not UNSET else None

    @property
    def is_response(self) -> bool:
        return self.method is UNSET and self.id is not UNSET

    @property
    def method_name(self) -> str:
        """The method; empty where there is none or it is no string."""
        return text_of(self.method) or ""

    def member(self, of: str, name: str) -> Json:
        """A member of `params` or `result`, None where there is none."""
        whole = self.params if of == "params" else self.result
        try:
            raw = _object.decode(whole).get(name) if isinstance(whole, Raw) else None
            return None if raw is None else msgspec.json.decode(raw)
        except (msgspec.MsgspecError, RecursionError):
            return None


_decoder = msgspec.json.Decoder(Head)
_object = msgspec.json.Decoder(dict[str, Raw])


def decode(text: bytes) -> Head:
    """Read the head of one envelope.

    Raises:
      InvalidEnvelope: it is no JSON, not UTF-8, nested too deeply, or no object.
    """
    try:
        if not text.isascii():
            text.decode()
        return _decoder.decode(text)
    except UnicodeDecodeError as error:
        raise InvalidEnvelope(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise InvalidEnvelope("nested too deeply") from None
    except msgspec.ValidationError:
        raise InvalidEnvelope("not a JSON object") from None
    except msgspec.DecodeError as error:
        if (mended := _mended(text)) != text:
            return decode(mended)
        raise InvalidEnvelope(str(error)) from None


MENDED_LIMIT = 8 << 20
"""Bytes of the longest text that is mended: a surrogate costs a microsecond, and meanwhile nothing else runs."""

_SURROGATES = re.compile(
    rb"(?<!\\)((?:\\\\)*)"  # an even number of backslashes before: the next one begins an escape
    rb"(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2}))"
)


def _mended(text: bytes) -> bytes:
    """The text with the replacement character for every half of a surrogate pair.

    JavaScript writes a string that was cut inside a pair with a lone `\\ud83d`: legal JSON that msgspec refuses. Agents
    cut tool output anywhere, and their answer must not be lost for it.
    """
    if len(text) > MENDED_LIMIT:
        return text
    return _SURROGATES.sub(lambda found: found[1] + rb"\ufffd" if found["lone"] else found[0], text)


def text_of(raw: Raw | UnsetType | None) -> str | None:
    """The string that a member is; None where it is absent or anything else."""
    try:
        return msgspec.json.decode(raw, type=str) if isinstance(raw, Raw) else None
    except (msgspec.MsgspecError, RecursionError):
        return None


def members_of(raw: Raw | UnsetType | None) -> dict[str, Raw]:
    """The members of an object, each as its text; none where it is anything else."""
    try:
        members = _object.decode(raw) if isinstance(raw, Raw) else {}
    except (msgspec.MsgspecError, RecursionError):
        return {}
    # Copies: a Raw out of a decoder keeps the whole message alive that it was cut from.
    return {name: Raw(bytes(value)) for name, value in members.items()}


def as_line(text: bytes) -> bytes:
    """A client's envelope as one line: a line feed would end it on the agent's stdin, any other blank will do."""
    return text.replace(b"\n", b" ").replace(b"\r", b" ").strip()


def id_text(raw: Raw) -> bytes:
    """The canonical text of an id, for comparison."""
    text = bytes(raw)
    if text.isdigit() or (text[:1] == b'"' and b"\\" not in text):
        return text
    try:
        return msgspec.json.encode(msgspec.json.decode(text), order="sorted")
    except (msgspec.MsgspecError, RecursionError):
        return text


def replace_members(text: bytes, members: Mapping[str, Raw]) -> bytes:
    """The envelope with some top-level members replaced; the others keep their text.

    Args:
      text: what `decode` accepts.
    """
    try:
        whole = _object.decode(text)
    except msgspec.DecodeError:
        whole = _object.decode(_mended(text))
    return msgspec.json.encode({**whole, **members})


def request(id: Raw, method: str, params: Params) -> bytes:
    # As a line: what is Raw in it is a client's own text, which may be of several.
    return as_line(msgspec.json.encode({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))


def notification(method: str, params: Mapping[str, Json]) -> bytes:
    return as_line(msgspec.json.encode({"jsonrpc": "2.0", "method": method, "params": params}))


def error_response(id: Raw, refusal: Refusal) -> bytes:
    """The answer to a request that the daemon gives in the agent's place.

    `error.data` is what a program can act on: `type` is one of the problem types of the HTTP API.
    """
    data: dict[str, Json] = {"type": refusal.type, "detail": str(refusal), **refusal.details}
    if refusal.retry_after is not None:
        data["retryAfterMs"] = round(refusal.retry_after * 1000)
    error = {"code": INTERNAL_ERROR, "message": str(refusal), "data": data}
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "error": error})
