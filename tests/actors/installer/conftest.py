"""What the tests of the installer share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from actors.installer.yard import Yard
from support.registries import open_registries

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from support.registries import Registries


@pytest.fixture
async def registries() -> AsyncGenerator[Registries]:
    """Package registries of this test's own."""
    async with open_registries() as registries:
        yield registries


@pytest.fixture
def yard(tmp_path: Path, registries: Registries) -> Yard:
    """A place to install in, from those registries."""
    return Yard.of(tmp_path, registries)
