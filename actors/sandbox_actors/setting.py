"""What all sessions of a daemon share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandbox_supervisor import RestartPolicy, StopLadder

from .berths import Berths
from .directory_config import DirectoryConfig
from .redaction import Redactor

if TYPE_CHECKING:
    from sandbox_supervisor import Reaper

    from .files import FileSystem
    from .journal import Journal
    from .processes import Processes

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
      files, processes: what agents are served with whose clients do not serve them; None: nothing.
      queue_limit: how many prompts may wait in a session that says nothing of it.
      turn_deadline: how many seconds a turn may take there; None: as long as it likes.
      cancel_within: seconds for an agent to end a turn that it was told to cancel; then it is ended itself.
      idle_limit: seconds without anything to do after which an agent is ended until there is, in a session that says
        nothing of it; 0: never. Agents that can neither resume nor load lose part of what they know by it, and what
        they do beside their turns ends; so it is for those to choose who know the agents and their clients.
      berths: how many agents may run at a time.
      transcript_limit: bytes of the transcript that an agent is told which has lost the conversation; 0: none.
    """

    journal: Journal
    owner: str
    run: str
    reaper: Reaper | None = None
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    ladder: StopLadder = field(default_factory=StopLadder)
    directory_config: DirectoryConfig = field(default_factory=DirectoryConfig)
    redactor: Redactor = field(default_factory=Redactor)
    files: FileSystem | None = None
    processes: Processes | None = None
    queue_limit: int = 8
    turn_deadline: float | None = None
    cancel_within: float = 10.0
    transcript_limit: int = 48 << 10
    idle_limit: float = 0.0
    berths: Berths = field(default_factory=Berths)
