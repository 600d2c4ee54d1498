"""Forking: a second session goes on from where one is; from then on neither knows of the other.

    the source's agent      `session/fork`: it makes an ACP session with the same past
                            `session/close`, where it has that: the fork is not to live on in there
    the new session's       `session/resume` or `session/load`, like any session of an agent's that is gone on with

The source's actor asks, as it does for a client, so the agent is woken where it sleeps. It closes the fork as soon as
it hears of it, so that none is left open where nobody waits any more.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio
from msgspec import UNSET, Raw, UnsetType

from sandbox_supervisor import ActorError

from . import notices
from .configuring import NotOffered, Wanted, step
from .envelope import decode, members_of, request
from .errors import InvalidRequest, NotSupported, Refusal, SessionBusy, SessionClosed
from .messages import Fork, Forked, ForkEnded, Say
from .native import Changes, ForkedFrom, Setup, new_id
from .opening import no_answer, refused
from .routed import CLIENT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .acp_session import AcpSession
    from .envelope import Head, Json
    from .memory import Memory
    from .routed import Routed
    from .session import Session

__all__ = ["Forking", "forked"]

FORK_WITHIN = 120.0
"""Seconds for an agent to fork one session; it may have to be started for it, and get its own back first."""

CLOSE_WITHIN = 10.0
"""Seconds that the closing of the fork is waited for. Two processes that have one session open are worth the wait."""

NOTHING_OPENED = "no ACP session was opened here yet"


class Forking:
    """The part of a session's actor that asks its agent."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def ask(self) -> Forked:
        """Have the agent make a fork.

        Raises:
          SessionClosed, InvalidRequest, NotSupported, SessionBusy, JournalUnavailable, AgentUnavailable, AgentBusy,
            AgentLimitReached, Overloaded.
        """
        session, memory = self._session, self._session.memory
        if session.state == "closed":
            raise SessionClosed
        if (target := memory.target) is None:
            raise InvalidRequest(NOTHING_OPENED)
        _check(session.log.row.agent, memory)
        if session.turns.open or session.router.is_prompting(target):
            raise SessionBusy
        known, id = memory.sessions[target], Raw(msgspec.json.encode(new_id("fork")))
        # No MCP servers: nothing is prompted in it before another process opens it, and that one has them.
        params: dict[str, Json] = {**known.params, "mcpServers": [], "sessionId": target}
        envelope = request(id, "session/fork", params)
        made = Forked(session.log.next_seq)
        accepted = session.ask_agent(Say(envelope, decode(envelope)), id, partial(self._heard, made, known))
        made.answer = accepted.answer or made.answer
        return made

    def _heard(self, made: Forked, known: AcpSession, outcome: Head | Refusal, routed: Routed) -> None:
        if isinstance(outcome, Refusal):
            made.refusal = outcome
            return
        if not isinstance(id := outcome.member("result", "sessionId"), str):
            return
        if known.owes_context:
            made.refusal = NotSupported("the agent has lost the conversation, and knows it again after one more prompt")
        if "close" in _abilities(self._session.memory):
            own_id = Raw(msgspec.json.encode(new_id("fork")))
            envelope = request(own_id, "session/close", {"sessionId": id})
            head = decode(envelope)
            waiting, envelope = self._session.router.ask(envelope, head, own_id)  # there is room: one was just answered
            routed.add(CLIENT, envelope)
            self._session.line.pass_on(Say(envelope, head))
            made.closed = waiting.answer

    def ended(self, news: ForkEnded) -> None:
        """Tell of the new session; where there is none, have the agent forget the fork, if it can."""
        session = self._session
        if news.into is not None:
            session.tell_clients([notices.session_forked(news.into)])
        elif session.state in ("starting", "ready") and "delete" in _abilities(session.memory):
            id = Raw(msgspec.json.encode(new_id("fork")))
            envelope = request(id, "session/delete", {"sessionId": news.acp_session})
            session.ask_agent(Say(envelope, decode(envelope)), id)


@asynccontextmanager
async def forked(source: Session, changes: Changes, generation: int | None) -> AsyncGenerator[Setup]:
    """A fork of a session, as the setup of the one that is to go on with it; is that not made, the fork is dropped.

    Args:
      changes: what is to be different in it: title, tags, mode, model, config.
      generation: of the owner who asks for it, where it has one.

    Raises:
      Refusal: as `Forking.ask`.
      StaleGeneration.
      SessionOpenFailed: the agent does not make one.
    """
    setup = _setup(source, changes)
    made = await source.fence.ask(Fork(), generation)
    id = await _answered(source.log.row.agent, made)
    try:
        if made.refusal is not None:
            raise made.refusal
        if made.closed is not None:
            with suppress(ActorError), trio.move_on_after(CLOSE_WITHIN):
                await made.closed.wait()
        yield msgspec.structs.replace(setup, resume=id, forked_from=ForkedFrom(source.log.row.id, made.seq))
    except BaseException:
        with suppress(ActorError):
            source.ref.offer(ForkEnded(id))
        raise


async def _answered(agent: str, made: Forked) -> str:
    answer = None
    with trio.move_on_after(FORK_WITHIN):
        answer = decode(await made.answer.wait())
    if answer is None:
        raise no_answer(agent, "session/fork", FORK_WITHIN)
    id = answer.member("result", "sessionId")
    if isinstance(id, str):
        return id
    raise made.refusal or refused(agent, "session/fork", answer)


# -- what the agent can do


def _check(agent: str, memory: Memory) -> None:
    abilities = _abilities(memory)
    if "fork" not in abilities:
        raise NotSupported(f"the agent {agent} cannot fork a session: it does not offer sessionCapabilities.fork")
    if "resume" not in abilities and not _loads(memory):
        raise NotSupported(
            f"the agent {agent} cannot go on with a fork in another process: "
            "it offers neither sessionCapabilities.resume nor loadSession"
        )


def _abilities(memory: Memory) -> set[str]:
    """What the agent offers beyond prompting: `fork`, `close`, ..."""
    offered = members_of(members_of(memory.agent.get("agentCapabilities")).get("sessionCapabilities"))
    return {name for name, told in offered.items() if bytes(told) not in (b"null", b"false")}


def _loads(memory: Memory) -> bool:
    return bytes(members_of(memory.agent.get("agentCapabilities")).get("loadSession", b"")) == b"true"


# -- what it is made with


def _setup(source: Session, changes: Changes) -> Setup:
    memory, before = source.memory, source.setup
    if (known := memory.sessions.get(memory.target or "")) is None:
        raise InvalidRequest(NOTHING_OPENED)
    wanted = Wanted(changes.mode or None, changes.model or None, changes.config or {})
    for name, value in wanted.items():
        try:
            step(known.told, name, value)
        except NotOffered as not_offered:
            raise InvalidRequest(str(not_offered)) from None
    config = {**before.config, **known.config}
    for category, chosen in (("mode", wanted.mode), ("model", wanted.model)):
        # It may have been set by its option, which would be set after it.
        if chosen is not None and (option := known.told.option(category=category)) is not None:
            config.pop(option.id, None)
    return msgspec.structs.replace(
        before,
        native=True,
        cwd=memory.directory_of(memory.target),
        mcp_servers=before.mcp_servers if before.native else _servers(known),
        mode=wanted.mode or known.mode or before.mode,
        model=wanted.model or known.model or before.model,
        config={**config, **wanted.config},
        title=before.title if changes.title is UNSET else changes.title,
        tags=before.tags if changes.tags is UNSET else changes.tags,
    )


def _servers(known: AcpSession) -> list[Raw] | UnsetType:
    """Those that a client of the raw wire has named."""
    try:
        listed = msgspec.json.decode(known.params.get("mcpServers", b"[]"), type=list[Raw])
    except (msgspec.MsgspecError, RecursionError):
        return UNSET
    return [Raw(bytes(one)) for one in listed] or UNSET
