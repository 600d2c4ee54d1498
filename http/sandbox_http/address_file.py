"""Where the daemon listens, in a file: for programs that start it on a free port."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from .config import BadConfig

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["announced"]


@contextmanager
def announced(file: Path | None, url: str) -> Generator[None]:
    """The file has the URL while the block runs; it appears with all that is in it.

    Raises:
      BadConfig: it cannot be written.
    """
    if file is None:
        yield
        return
    new = file.with_name(f"{file.name}.new")
    try:
        new.write_text(f"{url}\n")
        new.replace(file)
    except OSError as error:
        raise BadConfig(f"cannot write --address-file {file}: {error.strerror}") from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
