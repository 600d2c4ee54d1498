"""The state directory: one daemon's own, and the id by which its processes are known over all its lives."""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

from .config import BadConfig

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["locked", "owner_of"]


@contextmanager
def locked(state_dir: Path) -> Generator[None]:
    """The state directory is ours alone. Raises `BadConfig` if another daemon has it."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        state_dir.chmod(0o700)  # also one that was there: prompts are private
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadConfig(f"cannot use the state directory {state_dir}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadConfig(
            f"another daemon uses the state directory {state_dir}; stop it, or give this one its own --state-dir"
        ) from None
    else:
        yield
    finally:
        os.close(descriptor)


def owner_of(state_dir: Path) -> str:
    """The stable id of this state directory, by which processes of earlier daemons are known."""
    path = state_dir / "owner"
    try:
        return path.read_text().strip() or _new_owner(path)
    except FileNotFoundError:
        return _new_owner(path)


def _new_owner(path: Path) -> str:
    owner = secrets.token_hex(8)
    path.write_text(owner)
    return owner
