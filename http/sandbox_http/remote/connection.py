"""A connection: one client of the remote transport, and the sessions whose agents it talks to.

It begins with one session and comes to others by the ACP sessions that it names: whatever ACP session the daemon knows
can be loaded, resumed or followed, in whichever session of ours it lives. What it says goes

    for an ACP session, to the session where that lives
    an answer           to the session that has asked
    anything else       to the session that it came to last

It holds no queue and no answer. A connection that ends leaves its sessions as they are.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import trio
from msgspec import Raw

from sandbox_actors.directory_config import stored_servers
from sandbox_actors.envelope import decode, id_text, members_of, replace_members
from sandbox_actors.errors import InvalidRequest, SessionNotFound
from sandbox_actors.messages import Say

from .attachment import Attachment
from .labels import Label, label_id, question_of
from .listing import listed
from .pending import asked_again, open_questions
from .scope import ALL

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from sandbox_actors.envelope import Head
    from sandbox_actors.session import Session
    from sandbox_actors.sessions import Sessions

    from .feed import Feed
    from .labels import Kind
    from .scope import Scope

__all__ = ["SESSION_SCOPED", "Connection"]

SESSION_SCOPED = frozenset(
    {
        "session/prompt",
        "session/cancel",
        "session/set_mode",
        "session/set_model",
        "session/set_config_option",
        "session/close",
    }
)
"""What makes no sense without an ACP session that is there."""

OPENING: dict[str, Kind] = {
    "session/load": "open",
    "session/resume": "open",
    "session/new": "new",
    "session/fork": "new",
    "session/list": "list",
    "session/delete": "connection",
}
"""What is answered on the connection's own stream, though it may name an ACP session."""

CANCELLABLE = 256
"""Requests whose labels are kept, so that `$/cancel_request` can name them to the agent: the newest ones."""

Asked: TypeAlias = "tuple[Attachment, Raw]"


class Connection:
    """See the module.

    Attributes:
      mark: of the requests that are its; it stands in journals, where the id must not.
      owner: the name of the token that opened it; None where there is none to have.
      attachments: in the order in which it came to the sessions; none is ever taken out.
      streams: what is open of it, by what it shows.
      made: the session that was made for it alone, if one was.
      ended: no more is said or told.
      idle_since: when it was last used; infinite while it is.
    """

    def __init__(self, id: str, mark: str, owner: str | None, sessions: Sessions, idle: Callable[[], None]) -> None:
        self.id = id
        self.mark = mark
        self.owner = owner
        self.attachments: list[Attachment] = []
        self.streams: dict[Scope, Feed] = {}
        self.made: str | None = None
        self.ended = False
        self.idle_since = trio.current_time()
        self._sessions = sessions
        self._idle = idle
        self._uses = 0
        self._numbers = 0
        self._current: Attachment | None = None
        self._asked: dict[bytes, Asked] = {}
        self._went = trio.lowlevel.ParkingLot()

    @contextmanager
    def used(self) -> Generator[None]:
        """It is not idle while the block runs."""
        self._uses += 1
        self.idle_since = float("inf")
        try:
            yield
        finally:
            self._uses -= 1
            if not self._uses:
                self.idle_since = trio.current_time()
                self._idle()

    # -- sessions

    def attach(self, session: Session) -> Attachment:
        """Come to a session. The newest one is talked to where nothing says otherwise."""
        for attachment in self.attachments:
            if attachment.log is session.log:
                return attachment
        self._current = attachment = Attachment.to(session)
        self.attachments.append(attachment)
        for feed in self.streams.values():
            feed.wake()
        return attachment

    def find(self, acp_session: str) -> Attachment | None:
        """The session where an ACP session lives, attached by this if it was not; None if nobody knows it."""
        mine = [attachment for attachment in self.attachments if not attachment.log.closed]
        for attachment in mine:
            if acp_session in attachment.opened:
                return attachment
        logs = [attachment.log for attachment in mine]
        homes = [session for session in self._sessions.all() if acp_session in session.memory.sessions]
        # Agents that share a store may have loaded it twice: rather where the connection is already, or where it works.
        homes.sort(key=lambda session: (session.log in logs, session.state == "ready"), reverse=True)
        return self.attach(homes[0]) if homes else None

    def knows(self, acp_session: str) -> bool:
        """Whether `find` would find an ACP session, which is left as it is."""
        mine = (attachment for attachment in self.attachments if not attachment.log.closed)
        return any(acp_session in attachment.opened for attachment in mine) or any(
            acp_session in session.memory.sessions for session in self._sessions.all()
        )

    def follow(self, acp_session: str) -> Attachment:
        """Have an ACP session's events told. Raises `SessionNotFound` if nobody knows it."""
        attachment = self.find(acp_session)
        if attachment is None:
            raise SessionNotFound(acp_session)
        self._follow(attachment, acp_session)
        return attachment

    def _follow(self, attachment: Attachment, acp_session: str, *, anew: bool = False) -> None:
        session = self._session(attachment)
        questions = () if session is None else open_questions(session, acp_session)
        attachment.follow(acp_session, questions, anew=anew)

    def _session(self, attachment: Attachment) -> Session | None:
        """The session of an attachment; None if it was deleted."""
        try:
            session = self._sessions.get(attachment.server)
        except SessionNotFound:
            return None
        return session if session.log is attachment.log else None

    def owed(self, attachment: Attachment, scope: Scope) -> list[tuple[str, bytes]]:
        """The questions that a stream has yet to ask, each with its ACP session."""
        if not attachment.owed or scope is None:
            return []
        session = self._session(attachment)
        due = [attachment.owed.pop(one, ()) for one in ([scope] if isinstance(scope, str) else list(attachment.owed))]
        return [] if session is None else asked_again(session, {id for ids in due for id in ids})

    def listed(self, head: Head, directory: str | None) -> dict[str, Raw]:
        """The `result` of an answer to `session/list`, with the ACP sessions in it that only the daemon knows."""
        agents = {attachment.log.row.agent for attachment in self.attachments}
        return listed(head, directory, [one for one in self._sessions.all() if one.log.row.agent in agents])

    # -- what the client says

    def label(self, kind: Kind, session: str | None, id: Raw) -> Raw:
        """The id under which a request goes to the agent."""
        self._numbers += 1
        return label_id(self.mark, Label(kind, self._numbers, session, Raw(bytes(id))))

    async def say(self, envelope: bytes, head: Head, named: str | None = None) -> None:
        """Hand an envelope to the session that it is for.

        Args:
          named: the ACP session that the client names beside the envelope.

        Raises:
          ActorError: it is not taken.
        """
        if head.is_response:
            await self._answer(envelope, head)
            return
        method = head.method_name
        told = head.member("params", "sessionId")
        target = told if isinstance(told, str) else named
        if named not in (None, target):
            raise InvalidRequest(f"the header names the session {named!r}, the params name {target!r}")
        if method == "$/cancel_request":
            await self._take_back(envelope, head)
            return
        attachment, kind = self._place(method, target)
        if (own_id := head.request_id) is not None:
            label = self.label(kind, target, own_id)
            self._asked[id_text(own_id)] = attachment, label
            while len(self._asked) > CANCELLABLE:
                del self._asked[next(iter(self._asked))]
            envelope = replace_members(envelope, {"id": label})
            head = decode(envelope)
        await self._pass_on(attachment, envelope, head)

    def _place(self, method: str, target: str | None) -> tuple[Attachment, Kind]:
        """Where something goes, and what becomes of its answer."""
        if method in SESSION_SCOPED:
            if target is None:
                raise InvalidRequest(f"{method} needs the id of a session, in params.sessionId or in Acp-Session-Id")
            return self.follow(target), "session"
        known = None if target is None else self.find(target)
        attachment = known or self._current
        if attachment is None:
            raise SessionNotFound(self.id)
        kind = OPENING.get(method)
        if target is not None and kind == "open":
            self._follow(attachment, target, anew=True)
        if kind is not None or known is None or target is None:
            return attachment, kind or "connection"
        self._follow(attachment, target)
        return attachment, "session"

    async def _answer(self, envelope: bytes, head: Head) -> None:
        question = question_of(head.id)
        for attachment in self.attachments:
            row = attachment.log.row
            # Of an incarnation that is gone nobody waits for an answer, and the next one may use its ids again.
            if question is not None and (row.key, row.incarnation) == (question.key, question.incarnation):
                envelope = replace_members(envelope, {"id": question.id})
                await self._pass_on(attachment, envelope, decode(envelope))
                return

    async def _take_back(self, envelope: bytes, head: Head) -> None:
        """`$/cancel_request`: the agent knows the request by its label."""
        members = members_of(head.params)
        asked = self._asked.get(id_text(members["requestId"])) if "requestId" in members else None
        if asked is not None:
            attachment, label = asked
            params = Raw(replace_members(msgspec.json.encode(members), {"requestId": label}))
            envelope = replace_members(envelope, {"params": params})
            await self._pass_on(attachment, envelope, decode(envelope))

    async def _pass_on(self, attachment: Attachment, envelope: bytes, head: Head) -> None:
        if self._session(attachment) is None:
            raise SessionNotFound(attachment.server)
        servers = await stored_servers(self._sessions.directory_config, head.method_name, head.params)
        # A bug of ours may have ended it; then it is taken up again.
        session = await self._sessions.obtain(attachment.server, None)
        await session.ref.ask(Say(envelope, head, servers))

    # -- what the client is told

    def lacks_stream(self, acp_session: str) -> bool:
        """Whether nothing is open on which it would hear of an ACP session."""
        return acp_session not in self.streams and ALL not in self.streams

    @contextmanager
    def telling(self, feed: Feed) -> Generator[None]:
        """A stream of it, for as long as the block runs. It takes the place of the one that shows the same."""
        before = self.streams.get(feed.scope)
        self.streams[feed.scope] = feed
        if before is not None:
            before.close()
        try:
            with self.used():
                yield
        finally:
            if self.streams.get(feed.scope) is feed:
                del self.streams[feed.scope]

    def went(self) -> None:
        """One of its streams was told something."""
        self._went.unpark_all()

    async def caught_up(self, acp_session: str, attachment: Attachment, seq: int) -> None:
        """Wait until an ACP session's stream was told everything up to an event."""
        while attachment.opened.get(acp_session, seq) < seq:
            await self._went.park()

    def end(self) -> None:
        """Say no more. Its streams end."""
        self.ended = True
        for feed in self.streams.values():
            feed.close()
