"""The parts of a `multipart/form-data` body, byte by byte."""

from __future__ import annotations

from email.message import Message
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cloud import Request

__all__ = ["parts_of"]


def parts_of(request: Request) -> dict[str, bytes]:
    """What was sent, by the names of the parts."""
    boundary = f"--{_parameter(request.headers['content-type'], 'boundary')}".encode()
    parts: dict[str, bytes] = {}
    for piece in request.body.split(boundary)[1:-1]:
        head, _, value = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        for line in head.decode().split("\r\n"):
            name, _, text = line.partition(": ")
            if name.lower() == "content-disposition":
                parts[_parameter(text, "name")] = value.removesuffix(b"\r\n")
    return parts


def _parameter(header: str, name: str) -> str:
    message = Message()
    message["content-type"] = header
    return str(message.get_param(name))
