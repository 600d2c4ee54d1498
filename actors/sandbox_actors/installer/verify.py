"""The last question before an install counts: does what was installed answer `initialize`?

It is asked in a home of its own, so that nothing in the user's is touched and nothing is left; a folder that one of its
own variables names (`CODEX_HOME`) it finds as it would in a session. Not within the install: agents put sockets below
their home, and the path of a socket must be short.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ..catalog import Launch
from ..catalog.environment import agent_environment
from ..probe import ProbeFailed, probe
from .trouble import Trouble

if TYPE_CHECKING:
    from msgspec import Raw

    from ..catalog import Agent, Catalog
    from .site import Site

__all__ = ["verify"]


async def verify(site: Site, catalog: Catalog, agent: Agent, launcher: Path, within: float) -> Raw:
    """Start an agent by its launcher, and give its answer to `initialize`.

    Raises:
      Trouble: there is no answer, or a refusal.
    """
    site.step("verifying", "its first answer")
    home = Path(await trio.to_thread.run_sync(lambda: tempfile.mkdtemp(prefix="sandbox-agent-")))
    try:
        env = {
            **agent_environment(agent, catalog.environment, catalog.inherited),
            **agent.env,
            **agent.verify_env,
            "HOME": str(home),
            **{f"XDG_{kind}_HOME": str(home / f".{kind.lower()}") for kind in ("CONFIG", "DATA", "STATE", "CACHE")},
        }
        if catalog.program is not None:
            env["SANDBOX_AGENT_BIN"] = catalog.program
        greeting = await probe(
            Launch((str(launcher),), env), cookie=site.cookie(), reaper=site.reaper, cwd=str(home), within=within
        )
    except ProbeFailed as error:
        message = f"what was installed does not work: {error}; what was installed before, if anything, is kept"
        raise Trouble("verification", message, error.stderr) from None
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lambda: shutil.rmtree(home, ignore_errors=True))
    return greeting.initialize
