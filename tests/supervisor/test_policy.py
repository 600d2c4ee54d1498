from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_supervisor import RestartPolicy
from sandbox_supervisor.policy import CrashCount

STEADY = RestartPolicy(intensity=100, backoff=1.0, backoff_limit=1e9)
MANY = 300


def test_the_first_start_is_not_delayed() -> None:
    assert STEADY.delay(0) == 0.0


@given(st.integers(1, 60), st.floats(0.001, 100), st.floats(0.001, 1e6))
def test_a_delay_lies_between_half_and_the_whole_of_a_backoff_that_doubles_up_to_its_limit(
    crashes: int, backoff: float, limit: float
) -> None:
    full = min(backoff * 2 ** (crashes - 1), limit)
    assert full / 2 <= RestartPolicy(backoff=backoff, backoff_limit=limit).delay(crashes) <= full


@pytest.mark.parametrize("crashes", [1, 2, 3, 8])
def test_delays_are_spread_over_their_whole_range(crashes: int) -> None:
    full = 2.0 ** (crashes - 1)
    delays = [STEADY.delay(crashes) for _ in range(MANY)]
    # 300 draws that all miss a tenth of the range: once in 10**13 runs.
    assert min(delays) < 0.55 * full
    assert max(delays) > 0.95 * full


def test_a_huge_number_of_crashes_is_still_a_number() -> None:
    assert 5 <= RestartPolicy(intensity=10**9, backoff_limit=10).delay(10**9) <= 10


@given(st.integers(0, 20))
def test_as_many_crashes_as_the_intensity_are_survived_and_not_one_more(intensity: int) -> None:
    count = CrashCount(RestartPolicy(intensity=intensity, period=60))
    for crash in range(intensity):
        assert count.add(float(crash)) == crash + 1
        assert not count.exceeded
    count.add(float(intensity))
    assert count.exceeded


def test_a_quiet_period_forgets() -> None:
    count = CrashCount(RestartPolicy(intensity=2, period=60))
    assert [count.add(0), count.add(30), count.add(59)] == [1, 2, 3]
    assert count.exceeded
    # The window is half open: what lies a whole period back is out of it.
    assert count.add(90) == 2
    assert not count.exceeded
    assert count.add(1000) == 1


@given(st.lists(st.floats(0, 1000), min_size=1).map(sorted), st.floats(0.1, 500))
def test_the_count_is_that_of_the_crashes_within_the_period_before_the_last(times: list[float], period: float) -> None:
    count = CrashCount(RestartPolicy(period=period))
    for number, now in enumerate(times):
        assert count.add(now) == sum(time > now - period for time in times[: number + 1])
