"""What the tests of the domain share."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from actors import talking

if TYPE_CHECKING:
    from pathlib import Path

# An example that takes long on a busy machine is no failure.
settings.register_profile("busy-machine", deadline=None)
settings.load_profile("busy-machine")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a journal may be."""
    return tmp_path / "journal.db"


@pytest.fixture
def open_house(tmp_path: Path) -> talking.OpenHouse:
    """Opens sessions in the folder of this test; see `talking.open_house`."""
    return partial(talking.open_house, tmp_path)
