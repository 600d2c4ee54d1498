"""The content of a prompt: a text, or ACP's content blocks; and blocks that name a file, which the daemon reads.

What is in ACP's shape goes to the agent as the text that it is, after a look at whether it is what it says. A file
becomes what an agent understands: an image, a sound, or a resource, as text where it is UTF-8. Source: ACP protocol
version 1, Content.
"""

from __future__ import annotations

import base64
import mimetypes
from typing import TYPE_CHECKING, Annotated, TypeAlias
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from sandbox_actors.errors import InvalidRequest

if TYPE_CHECKING:
    from sandbox_actors.envelope import Json
    from sandbox_actors.files import FileSystem
    from sandbox_actors.files.reading import OpenFile

__all__ = ["FILES_LIMIT", "MOST_BLOCKS", "Block", "Filled", "content_blocks"]

MOST_BLOCKS = 256

FILES_LIMIT = 16 << 20
"""Bytes of all files of a prompt: base64 makes a third more of them, and agents read a prompt as one line."""

PIECE = 1 << 20

IMAGES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""What models take as images; others, such as SVG, are resources."""

Filled = Annotated[str, Meta(min_length=1)]


class _Block(msgspec.Struct, tag_field="type"):
    """A content block. Further members, such as `annotations`, are the agent's business."""


class TextBlock(_Block, tag="text"):
    text: str


class ImageBlock(_Block, tag="image", rename="camel"):
    data: str
    mime_type: Filled


class AudioBlock(_Block, tag="audio", rename="camel"):
    data: str
    mime_type: Filled


class Resource(msgspec.Struct):
    uri: Filled
    text: str | UnsetType = UNSET
    blob: str | UnsetType = UNSET


class ResourceBlock(_Block, tag="resource"):
    resource: Resource


class LinkBlock(_Block, tag="resource_link"):
    uri: Filled
    name: str


class FileBlock(_Block, tag="file", rename="camel", forbid_unknown_fields=True):
    path: Filled
    mime_type: Filled | None = None


Block: TypeAlias = TextBlock | ImageBlock | AudioBlock | ResourceBlock | LinkBlock | FileBlock
_decoder: msgspec.json.Decoder[Block] = msgspec.json.Decoder(Block)


async def content_blocks(content: Raw, files: FileSystem, cwd: str) -> tuple[Raw, ...]:
    """The blocks that the agent gets.

    Args:
      content: as the client wrote it.
      cwd: what relative paths start from.

    Raises:
      InvalidRequest: it is no content, or has a file that cannot be read or is too large.
      OutsideRoot, FileTrouble: see `FileSystem`.
    """
    try:
        given = msgspec.json.decode(content, type=Filled | list[Raw])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(f"content: {error}") from None
    if isinstance(given, str):
        return (_raw({"type": "text", "text": given}),)
    if not 1 <= len(given) <= MOST_BLOCKS:
        raise InvalidRequest(f"content: expected between 1 and {MOST_BLOCKS} blocks")
    blocks: list[Raw] = []
    room = FILES_LIMIT
    for place, raw in enumerate(given):
        block = _checked(raw, place)
        if isinstance(block, FileBlock):
            data, kind = await _read(block, files, cwd, room)
            room -= len(data)
            blocks.append(_of_file(data, kind, files.located(_located(block.path, cwd))))
        else:
            blocks.append(Raw(bytes(raw)))  # a copy: what a decoder gives keeps the whole body alive
    return tuple(blocks)


def _checked(raw: Raw, place: int) -> Block:
    try:
        block = _decoder.decode(raw)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(f"content[{place}]: {error}") from None
    if isinstance(block, ResourceBlock) and (block.resource.text is UNSET) == (block.resource.blob is UNSET):
        raise InvalidRequest(f"content[{place}]: a resource has either text or blob")
    return block


def _located(path: str, cwd: str) -> str:
    return path if path.startswith("/") else f"{cwd.rstrip('/')}/{path}"


async def _read(block: FileBlock, files: FileSystem, cwd: str, room: int) -> tuple[bytes, str]:
    """The bytes of a file, and its type."""
    opened = await files.open(_located(block.path, cwd))
    with opened.file:
        data = await _whole(opened, files, room)
    if len(data) > room:
        raise InvalidRequest(f"the files of a prompt may have {FILES_LIMIT} bytes together: {block.path} is too large")
    return data, block.mime_type or mimetypes.guess_type(block.path)[0] or "application/octet-stream"


async def _whole(opened: OpenFile, files: FileSystem, room: int) -> bytes:
    if opened.size is not None and opened.whole is not None:
        return opened.whole
    pieces = [opened.whole or b""]
    size = len(pieces[0])
    while size <= room:
        piece = await files.read(opened, None if opened.size is None else size, PIECE)
        if not piece:
            break
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)


def _of_file(data: bytes, kind: str, path: str) -> Raw:
    uri = f"file://{quote(path)}"
    if kind in IMAGES:
        return _raw({"type": "image", "mimeType": kind, "data": base64.b64encode(data).decode(), "uri": uri})
    if kind.startswith("audio/"):
        return _raw({"type": "audio", "mimeType": kind, "data": base64.b64encode(data).decode()})
    try:
        text = data.decode()
    except UnicodeDecodeError:
        blob = base64.b64encode(data).decode()
        return _raw({"type": "resource", "resource": {"uri": uri, "mimeType": kind, "blob": blob}})
    told = kind if kind != "application/octet-stream" else "text/plain"
    return _raw({"type": "resource", "resource": {"uri": uri, "mimeType": told, "text": text}})


def _raw(members: Json) -> Raw:
    return Raw(msgspec.json.encode(members))
