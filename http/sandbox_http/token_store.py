"""The tokens that were made here and those that were taken back, as the state directory keeps them: digests, mode 0600.

The file is replaced as a whole: after a crash at any point there is the old one or the new one.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
import trio

from .config import BadConfig
from .scopes import ScopeName
from .tokens import Token

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Kept", "TokenStore"]


@dataclass(frozen=True, slots=True)
class Kept:
    """What is in the file.

    Attributes:
      retired: digests of tokens from elsewhere, and until when each holds.
    """

    tokens: tuple[Token, ...] = ()
    retired: dict[bytes, float] = field(default_factory=dict[bytes, float])


class _Token(msgspec.Struct, omit_defaults=True):
    name: str
    sha256: str
    scopes: list[ScopeName]
    expires: float | None = None
    created: float | None = None


class _File(msgspec.Struct):
    version: int
    tokens: list[_Token]
    retired: dict[str, float]


class TokenStore:
    """See the module.

    Attributes:
      kept: what was in the file at the start.

    Raises:
      BadConfig: it cannot be read; nobody knows then which tokens were taken back.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.kept = _read(path)

    async def keep(self, tokens: tuple[Token, ...], retired: dict[bytes, float]) -> None:
        """Replace the file. Raises `OSError`."""
        file = _File(
            1,
            [
                _Token(token.name, token.digest.hex(), sorted(token.scopes), token.expires, token.created)
                for token in tokens
            ],
            {digest.hex(): end for digest, end in retired.items()},
        )
        # Whoever asked may leave: what is written then must be what is remembered.
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_replace, self._path, msgspec.json.encode(file))


def _read(path: Path) -> Kept:
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        return Kept(
            tuple(
                Token(each.name, bytes.fromhex(each.sha256), frozenset(each.scopes), "made", each.expires, each.created)
                for each in file.tokens
            ),
            {bytes.fromhex(digest): end for digest, end in file.retired.items()},
        )
    except FileNotFoundError:
        return Kept()
    except OSError as error:
        raise BadConfig(f"cannot read the tokens that were made, {path}: {error.strerror}") from None
    except ValueError:  # not JSON, not of this shape, or no hexadecimal number
        raise BadConfig(
            f"the tokens that were made cannot be read: {path} is damaged; remove it, and make them anew"
        ) from None


def _replace(path: Path, text: bytes) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
