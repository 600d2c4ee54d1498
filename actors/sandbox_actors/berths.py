"""Berths: how many agents may run at a time.

An agent has a berth before its process is started, and until its tree is dead. It keeps it through crashes and
restarts: what comes back by itself need not ask again. Where all are taken, the next one waits for one that is being
left. If none is, the session that has been idle longest is asked to make room; if nobody is idle, the refusal comes at
once.

    waiting ──▶ taken ◀──▶ asked ──▶ leaving ──▶ left
                  └───────────────────▶┘

`asked` is a berth whose session was told that somebody needs it: it stays, because there is work again, or leaves.
There are never more waiting than asked and leaving, so nobody waits for what will not come. Where a session stays after
all and no other is idle, the one that came last is refused.

Everything happens at once, within the actor whose agent it is about; waiting for a berth is for the task that starts
the agent.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Literal, Protocol

from sandbox_supervisor import Reply

from .errors import AgentLimitReached

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Berth", "Berths", "Lodging", "Tenant"]


class Tenant(Protocol):
    """A session, as far as its berth goes."""

    @property
    def idle_since(self) -> float | None:
        """When there was last something to do; None where there is, or where it must not be ended for others."""

    def make_room(self) -> bool:
        """Tell it that its berth is needed; False where it cannot be told. Its answer is `stay` or `vacate`."""
        ...


class Berth:
    """One claim, from the moment it is made until it is given back. Made by `Berths.claim` only.

    Attributes:
      granted: settled when the agent may be started, refused with `AgentLimitReached` if it never will.
    """

    def __init__(self, berths: Berths, tenant: Tenant) -> None:
        self.granted: Reply[None] = Reply()
        self.tenant = tenant
        self.state: Literal["waiting", "taken", "asked", "leaving", "left"] = "waiting"
        self._berths = berths

    def stay(self) -> None:
        """Its agent is not ended, though somebody counted on that."""
        if self.state in ("asked", "leaving"):
            self.state = "taken"
            self._berths.refuse_hopeless()

    def vacate(self) -> None:
        """Its agent is being ended."""
        if self.state in ("taken", "asked"):
            self.state = "leaving"

    def leave(self) -> None:
        """Nothing of its agent is left, or it is not wanted any more. Again is fine."""
        self._berths.take_back(self)


class Berths:
    """See the module.

    Args:
      limit: how many there are; 0: as many as are claimed.
    """

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self._occupied: dict[Berth, None] = {}
        self._waiting: deque[Berth] = deque()

    @property
    def occupied(self) -> int:
        """How many are not free."""
        return len(self._occupied)

    @property
    def waiting(self) -> int:
        """How many claims wait for one."""
        return len(self._waiting)

    @property
    def going(self) -> int:
        """How many will be left, as far as anybody knows."""
        return sum(berth.state in ("asked", "leaving") for berth in self._occupied)

    def check(self) -> None:
        """Raises `AgentLimitReached` if a claim would be refused now."""
        if not self._free and self._short(1) and next(self._idle(), None) is None:
            raise AgentLimitReached(self.limit)

    def claim(self, tenant: Tenant) -> Berth:
        """A berth, or the next one that is left. Raises `AgentLimitReached`."""
        berth = Berth(self, tenant)
        self._waiting.append(berth)
        if not self._free and not self._room_found():
            self._waiting.pop()
            raise AgentLimitReached(self.limit)
        self._grant()
        return berth

    def refuse_hopeless(self) -> None:
        """Fewer leave than were thought to: have others leave, or refuse who came last."""
        while not self._room_found():
            hopeless = self._waiting.pop()
            hopeless.state = "left"
            hopeless.granted.refuse(AgentLimitReached(self.limit))

    def take_back(self, berth: Berth) -> None:
        """A claim is over. See `Berth.leave`."""
        if berth.state == "waiting":
            self._waiting.remove(berth)
        self._occupied.pop(berth, None)
        berth.state = "left"
        self._grant()

    @property
    def _free(self) -> bool:
        return not self.limit or len(self._occupied) < self.limit

    def _grant(self) -> None:
        while self._waiting and self._free:
            berth = self._waiting.popleft()
            berth.state = "taken"
            self._occupied[berth] = None
            berth.granted.settle(None)

    def _short(self, more: int = 0) -> bool:
        """Whether not every claim that waits, and so many more, can count on a berth that will be left."""
        return len(self._waiting) + more > self.going

    def _room_found(self) -> bool:
        """Have as many leave as wait; False where too few can."""
        idle = self._idle()
        while self._short():
            if (berth := next(idle, None)) is None:
                return False
            if berth.tenant.make_room():
                berth.state = "asked"
        return True

    def _idle(self) -> Iterator[Berth]:
        """Those that may be asked to leave, the longest idle first."""
        since = {berth: berth.tenant.idle_since for berth in self._occupied if berth.state == "taken"}
        idle = [(at, berth) for berth, at in since.items() if at is not None]
        return (berth for _, berth in sorted(idle, key=lambda one: one[0]))


class Lodging:
    """A session's berths: the one of its agent and, while that one is being left, the claim to the next."""

    def __init__(self, berths: Berths, tenant: Tenant) -> None:
        self._berths = berths
        self._tenant = tenant
        self._berth: Berth | None = None
        self._next: Berth | None = None

    def book(self) -> None:
        """Claim a berth for the next incarnation, unless there is one. Raises `AgentLimitReached`."""
        if self._berth is None:
            self._berth = self._berths.claim(self._tenant)
        elif self._berth.state == "leaving" and self._next is None:
            self._next = self._berths.claim(self._tenant)

    async def granted(self) -> None:
        """Wait until the agent may be started. Raises `AgentLimitReached` if it may not."""
        assert self._berth is not None, "nothing was booked"
        await self._berth.granted.wait()

    def stay(self) -> None:
        """The agent is not ended, though it was to make room. One that is being ended already is."""
        if self._berth is not None and self._berth.state == "asked":
            self._berth.stay()

    def vacate(self) -> None:
        """The agent is being ended."""
        if self._berth is not None:
            self._berth.vacate()

    def ended(self, *, crashed: bool) -> None:
        """Nothing of an incarnation is left. One that crashed comes back by itself, whatever was meant to be."""
        if self._berth is None or self._berth.state != "leaving":
            return
        if not crashed:
            self._drop_first()
            return
        if self._next is not None:
            self._next.leave()
            self._next = None
        self._berth.stay()

    def leave(self) -> None:
        """There is no agent, and none is about to come."""
        while self._berth is not None:
            self._drop_first()

    def _drop_first(self) -> None:
        first, self._berth, self._next = self._berth, self._next, None
        if first is not None:
            first.leave()
