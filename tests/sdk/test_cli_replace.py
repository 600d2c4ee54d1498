"""`sandbox-agent daemon start --replace`: a server that does not answer is ended and started again."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from support.command import run
from support.daemon import free_port
from support.processes import alive, processes_with
from support.wire import exchange

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_server_that_hangs_is_replaced_and_one_that_answers_stays(tmp_path: Path) -> None:
    port = free_port()
    mark = f"MOCK_AGENT_HOME={tmp_path}/agent"
    env = {
        "SANDBOX_AGENT_PORT": str(port),
        "SANDBOX_AGENT_DATA_DIR": str(tmp_path / "data"),
        "SANDBOX_AGENT_GRACE": "0.1",
        "MOCK_AGENT_HOME": f"{tmp_path}/agent",
    }
    file = tmp_path / "data" / "daemon" / f"daemon-127-0-0-1-{port}.pid"

    async def start() -> tuple[int, str]:
        done = await run("daemon", "start", "--replace", env=env, within=60)
        assert done.code == 0, done.stderr
        return int(await trio.Path(file).read_text()), done.stderr

    try:
        pid, said = await start()
        assert said.startswith("starting daemon at ")
        again, said = await start()
        assert (again, said.startswith("daemon already running at ")) == (pid, True)
        os.kill(pid, signal.SIGSTOP)
        other, said = await start()
        assert other != pid
        assert said.startswith(f"the daemon (PID {pid}) does not answer, restarting...\nstarting daemon at ")
        assert not alive(pid)
        assert (await exchange(port, "GET", "/v1/health")).status == 200
        os.kill(other, signal.SIGKILL)
        third, said = await start()
        assert third != other
        assert said.startswith("starting daemon at ")
        assert (await run("daemon", "stop", env=env)).code == 0
    finally:
        for left in processes_with(mark):
            with suppress(ProcessLookupError):
                os.kill(left, signal.SIGKILL)
