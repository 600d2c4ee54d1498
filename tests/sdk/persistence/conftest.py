"""What the tests of the stores share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.postgres import programs, running_postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for all tests, one after the other: whoever stops it starts it again."""
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with running_postgres() as server:
        yield server
