"""Whether a driver keeps to what `store` says: small checks, each with a session of its own.

    await check_store("my_package.store:MyStore.open", "address")

or one by one, in a test suite:

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    async def test_it_conforms(check):
        await check(Subject("my_package.store:MyStore.open", "address"))

What opens the store is named, so that other processes can do so as well. A check leaves its sessions in the store,
works under asyncio and Trio, and raises `AssertionError` with a sentence where the driver does otherwise, or what the
driver raises where it should not.
"""

from __future__ import annotations

from .event_checks import EVENT_CHECKS
from .lease_checks import LEASE_CHECKS
from .trial import Check, Subject

__all__ = ["CHECKS", "Check", "Subject", "check_store", "name_of"]

CHECKS: tuple[Check, ...] = (*EVENT_CHECKS, *LEASE_CHECKS)


async def check_store(opener: str, target: str) -> None:
    """Make every check, one after the other.

    Args:
      opener, target: see `Subject`.

    Raises:
      AssertionError, PersistenceError: the driver does not keep to it; the message says to what.
    """
    for check in CHECKS:
        await check(Subject(opener, target))


def name_of(check: Check) -> str:
    """The check's name in words, for test suites."""
    return str(getattr(check, "__name__", check)).removeprefix("check_")
