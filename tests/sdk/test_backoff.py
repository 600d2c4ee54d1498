"""Delays: longer each time, and never the same for two."""

from __future__ import annotations

from sandbox_agent.backoff import Backoff


def test_who_was_told_when_to_come_back_does_not_come_with_all_others_at_once() -> None:
    delays = {Backoff().next(2.0) for _ in range(20)}
    assert len(delays) > 10
    assert all(2.0 < delay <= 2.1 for delay in delays)


def test_delays_double_up_to_a_limit_and_begin_anew() -> None:
    backoff = Backoff(first=1.0, limit=4.0)
    for most in (1.0, 2.0, 4.0, 4.0):
        assert most / 2 <= backoff.next() <= most
    backoff.reset()
    assert backoff.next() <= 1.0
