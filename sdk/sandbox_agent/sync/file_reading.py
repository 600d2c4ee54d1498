# Written by scripts/make-sync from ../file_reading.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.file_reading`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..file_reading import Pieces as AsyncPieces
    from ._line import Line


__all__ = ["Pieces"]


class Pieces:
    """An iterator over the bytes of an answer. Where they break off it raises; it never just ends early.

    Attributes:
      size: of the whole file in bytes; None where the server does not know.
      etag: names the content, for `if_match`; None where there is none.
      partial: this is the part that was asked for.
    """

    def __init__(self, actual: AsyncPieces, line: Line) -> None:
        self._actual = actual
        self._line = line

    @property
    def size(self) -> int | None:
        return self._actual.size

    @property
    def etag(self) -> str | None:
        return self._actual.etag

    @property
    def partial(self) -> bool:
        return self._actual.partial

    def __iter__(self) -> Pieces:
        return self

    def __next__(self) -> bytes:
        """Some more bytes.

        Raises:
          ConnectionFailed: not all has come.
        """
        return self._line.next(self._actual)
