"""What the tests of the SDK share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.docker_engine import running_engine
from support.docker_image import build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.docker_engine import Engine


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine of our own that has the image. It is one for all, so its tests are one group."""
    with running_engine() as engine:
        build(engine)
        yield engine
