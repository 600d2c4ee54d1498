"""What a client asks to be run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..catalog.environment import PRIVATE
from ..errors import InvalidRequest
from .child import Launch
from .limits import Limits
from .user import User

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox_supervisor import RestartPolicy

    from .terminal import Size

__all__ = ["Spec"]

TERM = "xterm-256color"
"""What the terminals of clients understand (terminfo(5))."""


@dataclass(frozen=True, slots=True)
class Spec:
    """See the module.

    Attributes:
      cwd: None: the daemon's own.
      env: beside what the daemon's own environment has.
      tty: the size of its terminal; None for pipes.
      interactive: kept for the client alone.
      timeout: seconds after which its tree is ended; None: never.
      stdin: the whole of its input; None: more may come, or, in a call of run, none at all.
      merged: whether stderr goes where stdout goes.
      user: the name or number of whom it runs as; None: as the daemon does.
      restart: when it is started again; None: never.
    """

    command: str
    args: tuple[str, ...] = ()
    cwd: str | None = None
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    tty: Size | None = None
    interactive: bool = False
    timeout: float | None = None
    stdin: bytes | None = None
    merged: bool = False
    user: str | None = None
    limits: Limits = field(default_factory=Limits)
    restart: RestartPolicy | None = None

    def checked(self) -> Spec:
        """This.

        Raises:
          InvalidRequest: it makes no sense.
        """
        if not self.command.strip():
            raise InvalidRequest("command must not be empty")
        if self.tty is not None:
            self.tty.checked()
        return self

    def launch(self, environment: Mapping[str, str], *, stdin: bool, term: bool) -> Launch:
        """How it is started. Blocks where there is a user to be looked up.

        Args:
          environment: the daemon's own: all of it but what is the daemon's business alone. These are the user's own
            commands, and have what the user gave the daemon.
          stdin: whether there is an input.
          term: whether to tell programs what terminal there is.

        Raises:
          InvalidRequest, UserDenied: about the user.
        """
        user = None if self.user is None else User.find(self.user)
        inherited = {name: value for name, value in environment.items() if PRIVATE.fullmatch(name) is None}
        return Launch(
            (self.command, *self.args),
            {
                **inherited,
                **({"TERM": TERM} if term else {}),
                **({} if user is None else user.environment),
                **self.env,
            },
            cwd=self.cwd,
            tty=self.tty,
            stdin=stdin,
            merged=self.merged,
            limits=self.limits,
            user=user,
        )
