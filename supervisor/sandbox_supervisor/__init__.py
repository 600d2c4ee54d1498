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
from .supervise import Child, Crash, supervise
from .tree import Node, Snapshot

__all__ = [
    "PERMANENT",
    "TEMPORARY",
    "TRANSIENT",
    "ActorCrashed",
    "ActorError",
    "ActorRef",
    "ActorStopped",
    "Child",
    "Crash",
    "Mailbox",
    "MailboxFull",
    "Node",
    "Reply",
    "Request",
    "RestartLimitReached",
    "RestartPolicy",
    "Snapshot",
    "SpawnFailed",
    "SupervisorError",
    "drain",
    "supervise",
]
