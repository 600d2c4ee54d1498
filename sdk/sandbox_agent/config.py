"""What is stored for the directories of the sandbox, and stays with them.

Sessions that are opened in a directory get the MCP servers that were stored for it here. Skills are for clients to
read. A `directory` is absolute, or below the server's home directory; a name is any text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from .config_models import McpServer, Skills
from .errors import SandboxAgentError
from .files import Files

if TYPE_CHECKING:
    from .transport import Params, Transport

__all__ = ["Config", "Stored"]

E = TypeVar("E")


class Stored(Generic[E]):
    """Entries of one kind. Methods raise `ApiError` and `ConnectionFailed`."""

    def __init__(self, transport: Transport, kind: str, name: str, shape: object) -> None:
        self._transport = transport
        self._files = Files(transport)
        self._kind = kind
        self._name = name
        self._shape = cast("type[E]", shape)

    async def get(self, directory: str, name: str) -> E:
        """One entry.

        Raises:
          SessionNotFound: there is none of this name; the wire has no error of its own for it.
        """
        return await self._transport.ask(self._shape, "GET", self._path, params=self._of(directory, name))

    async def put(self, directory: str, name: str, entry: E) -> None:
        """Store an entry, in the place of the one that there may be."""
        await self._transport.request("PUT", self._path, params=self._of(directory, name), json=entry)

    async def delete(self, directory: str, name: str) -> None:
        """Delete an entry; what is not there is fine."""
        await self._transport.request("DELETE", self._path, params=self._of(directory, name))

    async def names(self, directory: str) -> list[str]:
        """The names of all entries, also of such that were written by hand.

        Raises:
          SandboxAgentError: the file is broken.
        """
        path = f"{directory.rstrip('/')}/.sandbox-agent/config/{self._kind}.json"
        if not await self._files.exists(path):
            return []
        try:
            return sorted(msgspec.json.decode(await self._files.read(path), type=dict[str, Any]))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SandboxAgentError(f"{path} is broken: {error}") from None

    @property
    def _path(self) -> str:
        return f"/v1/config/{self._kind}"

    def _of(self, directory: str, name: str) -> Params:
        return {"directory": directory, self._name: name}


class Config:
    """See the module. Reached as `sandbox.config`.

        await sandbox.config.mcp.put("/srv/app", "files", LocalServer(command="npx", args=["server", "."]))

    Attributes:
      mcp: MCP servers.
      skills: sets of skills.
    """

    def __init__(self, transport: Transport) -> None:
        self.mcp: Stored[McpServer] = Stored(transport, "mcp", "mcpName", McpServer)
        self.skills: Stored[Skills] = Stored(transport, "skills", "skillName", Skills)
