"""Changing the terms of a session while it is there.

What concerns the daemon alone holds at once. Mode, model and config options are the agent's: what it does not offer is
refused at once, the rest is asked of it, or set in its next incarnation where there is none. Should it refuse then, an
event says so.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec import UNSET, Raw

from sandbox_supervisor import Reply

from . import notices
from .configuring import NotOffered, Wanted, step
from .envelope import decode, members_of, text_of
from .errors import InvalidRequest, SessionClosed
from .messages import Say
from .routed import DAEMON, NOTICE, Routed

if TYPE_CHECKING:
    from .configuring import Step
    from .envelope import Head, Json
    from .native import Changes
    from .session import Session

__all__ = ["patch"]


def patch(session: Session, changes: Changes) -> None:
    """Change the terms of a session.

    Raises:
      InvalidRequest: the agent does not offer that; nothing has changed.
      SessionClosed.
      AgentBusy, Overloaded: the agent does not keep up.
    """
    if session.state == "closed":
        raise SessionClosed
    memory = session.memory
    wanted = Wanted(
        None if changes.mode is UNSET else changes.mode,
        None if changes.model is UNSET else changes.model,
        {} if changes.config is UNSET else changes.config,
    )
    steps = _steps(session, wanted)
    if steps and session.state in ("starting", "ready"):
        session.line.check_room()
        session.router.check_room()
    for name in msgspec.structs.asdict(changes):
        value: Json = getattr(changes, name)
        if value is UNSET:
            continue
        if name == "config":
            memory.setup.config = {**memory.setup.config, **value}
        else:
            setattr(memory.setup, name, value)
    if (known := memory.sessions.get(memory.target or "")) is not None:
        known.mode, known.model = wanted.mode or known.mode, wanted.model or known.model
        known.config.update(wanted.config)
    session.remember()
    if told := msgspec.to_builtins(changes):
        session.tell_clients([notices.session_updated(told)])
    if changes.policy is not UNSET:
        session.asking.policy_changed()
    if changes.idle_limit is not UNSET:
        session.resting.begin()
    if session.state in ("starting", "ready"):
        for name, needed in steps:
            _ask(session, name, needed)


def _steps(session: Session, wanted: Wanted) -> list[tuple[str, Step]]:
    known = session.memory.sessions.get(session.memory.target or "")
    if known is None:
        return []  # the agent has not said yet what it offers
    steps: list[tuple[str, Step]] = []
    for name, value in wanted.items():
        try:
            # Also what is so already: an earlier change, of whomever, may be on its way to the agent.
            steps.append((name, step(known.told, name, value)))
        except NotOffered as not_offered:
            raise InvalidRequest(str(not_offered)) from None
    return steps


def _ask(session: Session, name: str, needed: Step) -> None:
    params = {"sessionId": session.memory.target, **needed.params}
    envelope = session.router.call(needed.method, params, Reply(), learn=True, heard=partial(_refused, name))
    session.record(Routed([DAEMON], [envelope]))
    session.line.pass_on(Say(envelope, decode(envelope)))


def _refused(name: str, answer: Head, routed: Routed) -> None:
    if not isinstance(answer.result, Raw):
        reason = text_of(members_of(answer.error).get("message")) or "the agent refuses it"
        routed.add(NOTICE, notices.session_updated({}, {name: reason}))
