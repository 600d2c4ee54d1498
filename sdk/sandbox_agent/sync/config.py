# Written by scripts/make-sync from ../config.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.config`."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from ..config import Config as AsyncConfig
    from ..config import Stored as AsyncStored
    from ..config_models import McpServer, Skills
    from ._line import Line


__all__ = ["Config", "Stored"]

E = TypeVar("E")


class Config:
    """See the module. Reached as `sandbox.config`.

        sandbox.config.mcp.put("/srv/app", "files", LocalServer(command="npx", args=["server", "."]))

    Attributes:
      mcp: MCP servers.
      skills: sets of skills.
    """

    def __init__(self, actual: AsyncConfig, line: Line) -> None:
        self._actual = actual
        self._line = line

    @cached_property
    def mcp(self) -> Stored[McpServer]:
        return Stored(self._actual.mcp, self._line)

    @cached_property
    def skills(self) -> Stored[Skills]:
        return Stored(self._actual.skills, self._line)


class Stored(Generic[E]):
    """Entries of one kind. Methods raise `ApiError` and `ConnectionFailed`."""

    def __init__(self, actual: AsyncStored[E], line: Line) -> None:
        self._actual = actual
        self._line = line

    def get(self, directory: str, name: str) -> E:
        """One entry.

        Raises:
          SessionNotFound: there is none of this name; the wire has no error of its own for it.
        """
        return self._line.call(self._actual.get, directory, name)

    def put(self, directory: str, name: str, entry: E) -> None:
        """Store an entry, in the place of the one that there may be."""
        self._line.call(self._actual.put, directory, name, entry)

    def delete(self, directory: str, name: str) -> None:
        """Delete an entry; what is not there is fine."""
        self._line.call(self._actual.delete, directory, name)

    def names(self, directory: str) -> list[str]:
        """The names of all entries, also of such that were written by hand.

        Raises:
          SandboxAgentError: the file is broken.
        """
        return self._line.call(self._actual.names, directory)
