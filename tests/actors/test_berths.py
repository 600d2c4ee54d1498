"""Who gets a berth, who waits for one, and who makes room. See `test_room` for the same with agents."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_actors.berths import Berths, Lodging
from sandbox_actors.errors import AgentLimitReached

if TYPE_CHECKING:
    from sandbox_actors.berths import Berth


@dataclass(eq=False)
class Lodger:
    """A session, as far as its berth goes."""

    idle_since: float | None = None
    listens: bool = True
    asked: int = 0

    def make_room(self) -> bool:
        self.asked += self.listens
        return self.listens


@dataclass
class Hostel:
    """Berths, and all that were claimed of them."""

    berths: Berths
    claims: list[Berth] = field(default_factory=list["Berth"])

    def claim(self, lodger: Lodger | None = None) -> Berth:
        self.claims.append(self.berths.claim(lodger or Lodger()))
        return self.claims[-1]

    def states(self) -> list[str]:
        return [berth.state for berth in self.claims]


def test_without_a_limit_there_is_room_for_everybody() -> None:
    hostel = Hostel(Berths())
    for _ in range(100):
        assert hostel.claim().granted.settled
    assert (hostel.berths.occupied, hostel.berths.waiting) == (100, 0)


def test_where_all_are_taken_and_nobody_is_idle_a_claim_is_refused_at_once() -> None:
    hostel = Hostel(Berths(2))
    first, second = hostel.claim(), hostel.claim()
    with pytest.raises(AgentLimitReached):
        hostel.berths.check()
    with pytest.raises(AgentLimitReached):
        hostel.claim()
    assert (hostel.berths.occupied, hostel.berths.waiting) == (2, 0)
    first.leave()
    first.leave()
    hostel.berths.check()
    assert hostel.claim().state == second.state == "taken"


def test_who_has_been_idle_longest_is_asked_first() -> None:
    hostel = Hostel(Berths(3))
    lodgers = [Lodger(3.0), Lodger(1.0), Lodger(2.0)]
    for lodger in lodgers:
        hostel.claim(lodger)
    for asked in ([0, 1, 0], [0, 1, 1], [1, 1, 1]):
        assert not hostel.claim().granted.settled
        assert [lodger.asked for lodger in lodgers] == asked
    with pytest.raises(AgentLimitReached):
        hostel.claim()


def test_berths_are_given_in_the_order_of_the_claims() -> None:
    hostel = Hostel(Berths(2))
    old = [hostel.claim(Lodger(1.0)), hostel.claim(Lodger(2.0))]
    new = [hostel.claim(), hostel.claim()]
    for berth in old:
        berth.vacate()
    old[1].leave()
    assert [berth.granted.settled for berth in new] == [True, False]
    old[0].leave()
    assert [berth.granted.settled for berth in new] == [True, True]


def test_a_berth_that_is_being_left_anyway_is_waited_for_and_nobody_is_asked() -> None:
    hostel = Hostel(Berths(2))
    leaving, idle = hostel.claim(), Lodger(1.0)
    hostel.claim(idle)
    leaving.vacate()
    waiting = hostel.claim()
    assert (waiting.state, idle.asked) == ("waiting", 0)
    leaving.leave()
    assert waiting.state == "taken"


def test_where_one_stays_the_next_is_asked_and_in_the_end_the_last_claim_is_refused() -> None:
    hostel = Hostel(Berths(2))
    lodgers = [Lodger(1.0), Lodger(2.0)]
    berths = [hostel.claim(lodger) for lodger in lodgers]
    waiting = hostel.claim()
    lodgers[0].idle_since = None
    berths[0].stay()
    assert [lodger.asked for lodger in lodgers] == [1, 1]
    lodgers[1].idle_since = None
    berths[1].stay()
    assert hostel.states() == ["taken", "taken", "left"]
    assert waiting.granted.settled


async def test_a_claim_that_is_refused_later_says_so_where_it_is_waited_for() -> None:
    hostel = Hostel(Berths(1))
    idle = Lodger(1.0)
    berth, waiting = hostel.claim(idle), hostel.claim()
    idle.idle_since = None
    berth.stay()
    with pytest.raises(AgentLimitReached):
        await waiting.granted.wait()


def test_who_does_not_listen_is_not_counted_on() -> None:
    hostel = Hostel(Berths(1))
    hostel.claim(Lodger(1.0, listens=False))
    with pytest.raises(AgentLimitReached):
        hostel.claim()


def test_a_claim_that_is_dropped_waits_for_nothing_any_more() -> None:
    hostel = Hostel(Berths(1))
    berth, waiting = hostel.claim(Lodger(1.0)), hostel.claim()
    waiting.leave()
    berth.vacate()
    berth.leave()
    assert (hostel.berths.occupied, hostel.berths.waiting) == (0, 0)


def test_a_session_that_is_wanted_again_while_its_agent_ends_waits_behind_the_others() -> None:
    berths = Berths(1)
    lodger = Lodger(1.0)
    first, other = Lodging(berths, lodger), Lodging(berths, Lodger())
    first.book()
    other.book()
    first.vacate()
    with pytest.raises(AgentLimitReached):
        first.book()
    first.ended(crashed=False)
    assert (berths.occupied, berths.waiting) == (1, 0)
    other.vacate()
    first.book()
    first.book()
    assert berths.waiting == 1
    other.ended(crashed=False)
    assert (berths.occupied, berths.waiting) == (1, 0)


def test_a_session_that_is_wanted_again_while_its_agent_ends_has_its_own_berth_if_nobody_else_wants_it() -> None:
    berths = Berths(1)
    lodging = Lodging(berths, Lodger())
    lodging.book()
    lodging.vacate()
    lodging.book()
    assert (berths.occupied, berths.waiting) == (1, 1)
    lodging.ended(crashed=False)
    assert (berths.occupied, berths.waiting) == (1, 0)
    lodging.leave()
    assert (berths.occupied, berths.waiting) == (0, 0)


def test_an_agent_that_crashes_while_it_is_ended_keeps_its_berth() -> None:
    berths = Berths(1)
    lodging = Lodging(berths, Lodger())
    lodging.book()
    lodging.vacate()
    lodging.book()
    lodging.ended(crashed=True)
    assert (berths.occupied, berths.waiting) == (1, 0)
    lodging.leave()
    assert berths.occupied == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["book", "book", "book", "vacate", "end", "crash", "stay", "leave", "idle", "busy", "deaf"]),
        st.integers(0, 7),
    ),
    max_size=120,
)


@given(limit=st.integers(1, 4), steps=STEPS)
def test_whatever_happens_no_berth_is_lost_and_nobody_waits_in_vain(limit: int, steps: list[tuple[str, int]]) -> None:
    berths = Berths(limit)
    lodgers = [Lodger() for _ in range(8)]
    lodgings = [Lodging(berths, lodger) for lodger in lodgers]
    for now, (step, number) in enumerate(steps):
        lodger, lodging = lodgers[number], lodgings[number]
        match step:
            case "book":
                try:
                    lodging.book()
                except AgentLimitReached:
                    assert berths.occupied == limit
            case "vacate":
                lodging.vacate()
            case "end" | "crash":
                lodging.ended(crashed=step == "crash")
            case "stay":
                lodging.stay()
            case "leave":
                lodging.leave()
            case "idle":
                lodger.idle_since = float(now)
            case "busy":
                lodger.idle_since = None
            case _:
                lodger.listens = not lodger.listens
        assert berths.occupied <= limit
        if berths.waiting:
            assert berths.occupied == limit
            assert berths.waiting <= berths.going
    for lodging in lodgings:
        lodging.leave()
    assert (berths.occupied, berths.waiting) == (0, 0)
