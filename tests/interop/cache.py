"""What the tests install of other people's packages, kept for the next run; nothing of it comes with the repository."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["CACHE", "may_install"]

CACHE = Path(os.environ.get("SANDBOX_AGENT_TEST_CACHE") or Path(__file__).parents[2] / ".interop").absolute()


def may_install() -> bool:
    """Whether what is not there may be fetched; otherwise its tests are skipped."""
    return os.environ.get("SANDBOX_AGENT_TEST_INSTALL") != "0"
