"""The environment cookie: who owns a process, written where no descendant can lose it by accident.

A cookie names the owner (the stable id of a daemon's state directory), the run (one life of that daemon) and the child
within the run. A child's tree is swept by the whole cookie, the remains of a killed daemon by owner and run, and at
its start a daemon sweeps every run of its owner but its own.
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote_to_bytes

import trio

from .bearers import COOKIE_VARIABLE, bearers, kill_bearers

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COOKIE_VARIABLE", "Cookie", "pids", "sweep", "sweep_in_thread"]

# A sweep is short and mostly system calls; more at once would only fight over the interpreter lock. Its own limiter,
# so that slow file work in other threads cannot keep a stop waiting.
_SWEEPERS = trio.CapacityLimiter(2)

_HEXADECIMAL = frozenset(string.hexdigits)


@dataclass(frozen=True, slots=True)
class Cookie:
    """Whose child a process is.

    As text it is `owner/run/name`, each part percent-encoded, so any characters do in any part.
    """

    owner: str
    """The stable id of a daemon's state directory."""

    run: str
    """One run of that daemon."""

    name: str
    """The child within the run, unique there: two children of one name are swept as one."""

    def __str__(self) -> str:
        return self.prefix + _encode(self.name)

    @property
    def prefix(self) -> str:
        """What the text of every cookie of the same owner and run starts with."""
        return f"{_encode(self.owner)}/{_encode(self.run)}/"

    @classmethod
    def parse(cls, text: str) -> Cookie | None:
        """Read a cookie back, or None where the text is not one: the environment of a process is anybody's to write."""
        parts = text.split("/")
        if len(parts) != 3:
            return None
        try:
            owner, run, name = map(_decode, parts)
        except ValueError:
            return None
        return cls(owner, run, name)


def pids(matches: Callable[[Cookie], bool]) -> list[int]:
    """List the live processes whose cookie matches, without this process and without zombies.

    Raises:
      OSError: /proc cannot be read.
    """
    return bearers(_on_text(matches))


def sweep(matches: Callable[[Cookie], bool], *, seconds: float = 2.0) -> int:
    """SIGKILL every process whose cookie matches, until none is left. Blocks: see `sweep_in_thread`.

    Never signals this process, nor one whose pid was given to somebody else in between.

    Args:
      matches: decides which cookies; must be quick, and is called from the sweeping thread.
      seconds: when to give up. One round of signals is sent in any case.

    Returns:
      How many processes were killed.
    """
    return kill_bearers(_on_text(matches), seconds=seconds)


async def sweep_in_thread(matches: Callable[[Cookie], bool], *, seconds: float = 2.0) -> int:
    """Do `sweep` in a worker thread. Cannot be cancelled once it runs; it is bounded by `seconds`."""
    return await trio.to_thread.run_sync(lambda: sweep(matches, seconds=seconds), limiter=_SWEEPERS)


def _on_text(matches: Callable[[Cookie], bool]) -> Callable[[str], bool]:
    def matches_text(text: str) -> bool:
        cookie = Cookie.parse(text)
        return cookie is not None and matches(cookie)

    return matches_text


def _encode(part: str) -> str:
    # surrogatepass: a name may stem from a file name that is not UTF-8, and must come back as it was.
    return quote(part.encode("utf-8", "surrogatepass"), safe="")


def _decode(part: str) -> str:
    # unquote takes a broken escape for itself; two texts would then mean one cookie.
    for escape in part.split("%")[1:]:
        if not (len(escape) >= 2 and _HEXADECIMAL.issuperset(escape[:2])):
            raise ValueError(f"broken escape: %{escape[:2]}")
    return unquote_to_bytes(part).decode("utf-8", "surrogatepass")
