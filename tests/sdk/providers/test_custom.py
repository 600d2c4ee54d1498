"""The provider of docs/providers/custom.md, as it stands there."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from sandbox_agent.providers import Preinstalled, Server
from sandbox_agent.providers.conformance import CHECKS, Check, Subject, name_of
from support.daemon import free_port
from support.processes import alive, eventually, processes_with

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = Path(__file__).parents[3] / "docs" / "providers" / "custom.md"

WITHIN = 60
"""Seconds for a check."""


def page_provider() -> Callable[[Path, Server], Any]:
    """The class on the page."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(block, str(PAGE), "exec"), names)
    provider: Callable[[Path, Server], Any] = names["HomeProvider"]
    return provider


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
async def test_it_is_a_provider(check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = f"{tmp_path}/mark"
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    monkeypatch.setenv("MOCK_AGENT_HOME", mark)
    make, port, root = page_provider(), free_port(), tmp_path / "homes"
    server = Server(install=Preinstalled(), port=port)

    async def crash(sandbox_id: str) -> None:
        daemon = root / sandbox_id / ".local" / "share" / "sandbox-agent" / "daemon"
        pid = int(await trio.Path(daemon / f"daemon-0-0-0-0-{port}.pid").read_text())
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: not alive(pid))

    async def count() -> int:
        return len(list(await trio.Path(root).glob("*")))

    subject = Subject(
        provider=make(root, server),
        again=lambda: make(root, server),
        crash=crash,
        count=count,
        beside=make(root, Server(install=Preinstalled(), port=free_port())),
        broken=make(root, Server(install=Preinstalled("false"), port=port)),
    )
    try:
        with trio.fail_after(WITHIN):
            await check(subject)
            await eventually(lambda: not processes_with(f"MOCK_AGENT_HOME={mark}"))
    finally:
        for pid in processes_with(f"MOCK_AGENT_HOME={mark}"):
            os.kill(pid, signal.SIGKILL)
