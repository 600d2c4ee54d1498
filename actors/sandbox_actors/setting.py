"""What all sessions of a daemon share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandbox_supervisor import RestartPolicy, StopLadder

from .directory_config import DirectoryConfig
from .redaction import Redactor

if TYPE_CHECKING:
    from sandbox_supervisor import Reaper

    from .journal import Journal

__all__ = ["Setting"]


@dataclass(frozen=True, slots=True)
class Setting:
    """See the module.

    Attributes:
      owner, run: of the cookie that every process carries.
      policy: how a crashed agent is restarted.
      ladder: how an agent is stopped.
      directory_config: what is stored for the directories in which agents work.
      redactor: takes secrets out of what agents write to stderr.
    """

    journal: Journal
    owner: str
    run: str
    reaper: Reaper | None = None
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    ladder: StopLadder = field(default_factory=StopLadder)
    directory_config: DirectoryConfig = field(default_factory=DirectoryConfig)
    redactor: Redactor = field(default_factory=Redactor)
