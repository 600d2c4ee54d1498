"""Supervision for Trio: mailboxes, references, restart policies, process trees.

Three sentences carry it. An actor is a bounded mailbox and the one task that empties it. A supervisor is a loop around
a child, one loop per child, in one nursery. A reference outlives every incarnation of what it names.
"""

from .errors import (
    ActorCrashed,
    ActorError,
    ActorStopped,
    MailboxFull,
    RestartLimitReached,
    SpawnFailed,
    SupervisorError,
)
from .mailbox import ActorRef, Mailbox, Reply, Request, drain
from .policy import PERMANENT, TEMPORARY, TRANSIENT, RestartPolicy
from .process import ChildProcess, ExitStatus, StopLadder, open_process, spawn
from .reaper import Reaper, open_reaper
from .sentinel import Sentinel, open_sentinel
from .supervise import Child, Crash, supervise
from .sweep import COOKIE_VARIABLE, Cookie, pids, sweep, sweep_in_thread
from .tree import Node, Snapshot

__all__ = [
    "COOKIE_VARIABLE",
    "PERMANENT",
    "TEMPORARY",
    "TRANSIENT",
    "ActorCrashed",
    "ActorError",
    "ActorRef",
    "ActorStopped",
    "Child",
    "ChildProcess",
    "Cookie",
    "Crash",
    "ExitStatus",
    "Mailbox",
    "MailboxFull",
    "Node",
    "Reaper",
    "Reply",
    "Request",
    "RestartLimitReached",
    "RestartPolicy",
    "Sentinel",
    "Snapshot",
    "SpawnFailed",
    "StopLadder",
    "SupervisorError",
    "drain",
    "open_process",
    "open_reaper",
    "open_sentinel",
    "pids",
    "spawn",
    "supervise",
    "sweep",
    "sweep_in_thread",
]
