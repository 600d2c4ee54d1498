"""What there is in a sandbox besides sessions: its files, processes, ports, repositories, agents and their config."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .agents import Agents
    from .config import Config
    from .files import Files
    from .git import Git
    from .ports import Ports
    from .processes import Processes
    from .transport import Transport

__all__ = ["Resources"]


class Resources:
    """What `SandboxAgent` reaches over its transport. Each is imported when it is first used."""

    transport: Transport

    @cached_property
    def files(self) -> Files:
        from .files import Files

        return Files(self.transport)

    @cached_property
    def processes(self) -> Processes:
        from .processes import Processes

        return Processes(self.transport)

    @cached_property
    def ports(self) -> Ports:
        from .ports import Ports

        return Ports(self.transport)

    @cached_property
    def git(self) -> Git:
        from .git import Git

        return Git(self.transport)

    @cached_property
    def agents(self) -> Agents:
        from .agents import Agents

        return Agents(self.transport)

    @cached_property
    def config(self) -> Config:
        from .config import Config

        return Config(self.transport)
