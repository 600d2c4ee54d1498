"""The README's first command ends in `sandbox-agent demo`: what it shows must be true."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import trio

WITHIN = 60


async def test_the_demo_shows_a_conversation_a_crash_and_a_recovery_and_leaves_nothing() -> None:
    with tempfile.TemporaryDirectory() as directory, trio.fail_after(WITHIN):
        shown = await trio.run_process(
            [sys.executable, "-m", "sandbox_agent", "demo"],
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": directory},
        )
        text = shown.stdout.decode()
        assert "Hello! Everything I say comes back." in text
        assert "may I: Write" in text
        assert "exited   code 7" in text
        assert "incarnation 2, session resumed" in text
        assert "earlier prompts: 4" in text
        assert text.count("turn     end_turn") == 4
        assert os.listdir(directory) == []
    assert _marked(directory) == []


def _marked(mark: str) -> list[str]:
    return [p.parent.name for p in Path("/proc").glob("[0-9]*/environ") if f"TMPDIR={mark}".encode() in _bytes(p)]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it has just ended, or is not ours
        return b""
