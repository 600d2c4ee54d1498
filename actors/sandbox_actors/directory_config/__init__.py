"""What a directory's `.sandbox-agent/config` says: MCP servers, which sessions there get, and skills."""

from .entries import MCP, SKILLS, Kind, LocalServer, McpServer, RemoteServer, Skills
from .errors import ConfigInaccessible, ConfigLocked, InvalidConfigFile, InvalidEntry
from .merge import merged, stored_servers
from .servers import Skipped, StoredServer, StoredServers
from .store import DirectoryConfig

__all__ = [
    "MCP",
    "SKILLS",
    "ConfigInaccessible",
    "ConfigLocked",
    "DirectoryConfig",
    "InvalidConfigFile",
    "InvalidEntry",
    "Kind",
    "LocalServer",
    "McpServer",
    "RemoteServer",
    "Skills",
    "Skipped",
    "StoredServer",
    "StoredServers",
    "merged",
    "stored_servers",
]
