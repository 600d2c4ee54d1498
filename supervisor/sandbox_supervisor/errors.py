"""What can go wrong on the ground floor, split by who must act.

An `ActorError` is an answer: it travels back to the asker as a reply and the actor goes on. Every other error that
leaves `receive` is a bug in the actor: the asker gets `ActorCrashed` and the actor's task ends with the error itself.
"""

from __future__ import annotations

__all__ = [
    "ActorCrashed",
    "ActorError",
    "ActorStopped",
    "MailboxFull",
    "RestartLimitReached",
    "SpawnFailed",
    "SupervisorError",
]


class SupervisorError(Exception):
    """The root of every error this package raises."""


class ActorError(SupervisorError):
    """A refusal. Domains derive their own refusals from it; raised in `receive`, it becomes the reply."""


class MailboxFull(ActorError):
    """The actor has more mail than it can hold: shed load, try again later."""


class ActorStopped(ActorError):
    """Nobody will ever read this mailbox again."""


class ActorCrashed(ActorError):
    """The actor failed while it worked on this request. What it had done by then is unknown."""


class RestartLimitReached(SupervisorError):
    """A child crashed more often than its policy allows. The last crash is the `__cause__`."""

    def __init__(self, name: str, crashes: int, period: float) -> None:
        super().__init__(f"{name} crashed {crashes} times within {period:g} s")
        self.name = name
        self.crashes = crashes
        self.period = period


class SpawnFailed(SupervisorError):
    """A process could not be started: no such program, no permission, no such working directory."""
