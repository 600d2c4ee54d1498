"""Sandboxes on this machine: a directory each, and a server on loopback that lives no longer than the application.

The application holds a lifeline of each server that it starts, a pipe whose end is the server's: it ends in good order
when the application does, be it by `kill -9`. The directory stays until `destroy`; `reconnect` starts a server in it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import httpx

from ..errors import ProviderError, SandboxDestroyed
from ..trust import trusted
from .confinement import confined
from .place import LocalPlace
from .provider import Endpoint, Provider
from .undo import undone_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["LocalProvider"]

START_WITHIN = 30.0
"""Seconds until a server must listen."""

ANSWER_WITHIN = 5.0
"""Seconds to answer; a server that does not is ended."""

STOP_WITHIN = 12.0
"""Seconds from SIGTERM to SIGKILL for a server that is well: four more than it gives itself."""

END_WITHIN = 2.0
"""Seconds from SIGTERM to SIGKILL for one that is not."""

KILL_WITHIN = 5.0
"""Seconds from SIGKILL until the kernel has taken the processes away."""

LOOK_EVERY = 0.02
"""Seconds between two looks at what tells us nothing by itself."""

UNWELL = 500
"""The first status of HTTP that says so. Below, somebody answers, if only that the token is another one by now."""

_started: dict[subprocess.Popen[bytes], Path] = {}
"""Servers that this application has started, and their sandboxes. Each has a lifeline for its stdin, and has to be
collected by us. It is the application that they live no longer than, not a provider, of which there may be several."""


class LocalProvider(Provider):
    """See the module. It works on Linux.

    Args:
      directory: of all its sandboxes; by default `sandbox-agent/local` among the user's data.
      command: of the server, without the word `server`; by default this Python's own.
      env: variables of the server, beside the application's own, of which `SANDBOX_AGENT_…` are left out.
      port: that servers listen on; 0: each on a free one.
      workspace: the directory where sessions work that name none; it is there. By default the sandbox's own home.
      confined: whether a server and its agents see of home directories only their own and the workspace, change nothing
        else, and see no other processes. By bubblewrap, which has to be installed.
      readable: what a confined sandbox may read of home directories all the same.
    """

    name = "local"

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        command: Sequence[str] = (sys.executable, "-P", "-m", "sandbox_agent"),
        env: Mapping[str, str] | None = None,
        port: int = 0,
        workspace: str | os.PathLike[str] | None = None,
        confined: bool = False,
        readable: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        # By its real name: servers are known by it, and another object may have been given another one.
        self.directory = (_data_home() / "sandbox-agent" / "local" if directory is None else Path(directory)).resolve()
        self.command = (command,) if isinstance(command, str) else tuple(command)
        self.env = dict(env or {})
        self.port = port
        self.workspace = None if workspace is None else Path(workspace).absolute()
        self.default_cwd = None if self.workspace is None else str(self.workspace)
        self.confined = confined
        self.readable = tuple(map(Path, readable))

    async def create(self, token: str) -> str:
        place = LocalPlace.make(self.directory, token)
        async with undone_by(lambda: self.kill(place.id)), place.locked():
            await self._start(place)
        return place.id

    async def endpoint(self, sandbox_id: str) -> Endpoint:
        place = self._place(sandbox_id)
        place.check()
        return Endpoint(f"http://127.0.0.1:{place.port}", place.token)

    async def ensure_server(self, sandbox_id: str) -> None:
        place = self._place(sandbox_id)
        async with place.locked():
            if not await self._answers(place):
                await self._end(place, END_WITHIN)
                await self._start(place)

    async def pause(self, sandbox_id: str) -> None:
        place = self._place(sandbox_id)
        async with place.locked():
            await self._end(place, STOP_WITHIN)

    async def destroy(self, sandbox_id: str) -> None:
        await self._destroy(sandbox_id, STOP_WITHIN)

    async def kill(self, sandbox_id: str) -> None:
        await self._destroy(sandbox_id, 0.0)

    async def _destroy(self, sandbox_id: str, patience: float) -> None:
        place = self._place(sandbox_id)
        if not place.exists:  # somebody else has destroyed it; the end of the process may be ours to see
            if _ours(place.path):
                await self._end(place, patience)
            return
        with suppress(SandboxDestroyed):  # by somebody who was quicker
            async with place.locked():
                await self._end(place, patience)
                await place.delete()

    def _place(self, sandbox_id: str) -> LocalPlace:
        for process in list(_started):
            if process.poll() is not None:
                _collect(process)
        return LocalPlace(self.directory, sandbox_id)

    async def _answers(self, place: LocalPlace) -> bool:
        """Whether the server runs, whoever started it, and answers."""
        if not await anyio.to_thread.run_sync(place.servers):
            return False
        # It is on this machine: no proxy of the environment is asked.
        url, headers = f"http://127.0.0.1:{place.port}/v1/health", {"Authorization": f"Bearer {place.token}"}
        async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_WITHIN, verify=trusted(url)) as client:
            try:
                answer = await client.get(url, headers=headers)
            except httpx.HTTPError:
                return False
            return answer.status_code < UNWELL

    async def _end(self, place: LocalPlace, patience: float) -> None:
        """End the server with all that it has started, gently for so many seconds."""
        for number, within in ((signal.SIGTERM, patience), (signal.SIGKILL, KILL_WITHIN)):
            if within:
                await anyio.to_thread.run_sync(place.signal, number)
            with anyio.move_on_after(within):
                while await anyio.to_thread.run_sync(place.servers):  # noqa: ASYNC110 (they may be nobody's children)
                    await anyio.sleep(LOOK_EVERY)
                for process in _ours(place.path):
                    await anyio.to_thread.run_sync(process.wait)  # at once, or almost
                    _collect(process)
                return
        raise ProviderError(f"the server of the sandbox {place.path} does not end, in spite of SIGKILL")

    async def _start(self, place: LocalPlace) -> None:
        """Start the server, on the port of before if that is free. None runs, and the sandbox is locked."""
        begin = place.log_size
        for port in (self.port,) if self.port else dict.fromkeys((place.port, 0)):
            try:
                place.address_file.unlink(missing_ok=True)
                process = self._launch(place, port)
            except OSError as error:
                said = ": ".join(filter(None, (error.strerror, error.filename)))
                raise ProviderError(f"cannot start the server: {said}") from None
            bound: int | None = None
            with anyio.move_on_after(START_WITHIN) as starting:
                while (bound := place.address) is None and process.poll() is None:  # noqa: ASYNC110 (a file is no event)
                    await anyio.sleep(LOOK_EVERY)
            if starting.cancelled_caught:
                await self._end(place, END_WITHIN)
                raise ProviderError(f"the server does not listen within {START_WITHIN:g} seconds; its log: {place.log}")
            if bound is not None:
                place.port = bound
                return
            _collect(process)
        raise ProviderError(f"the server does not start: {place.last_words(begin)}")

    def _launch(self, place: LocalPlace, port: int) -> subprocess.Popen[bytes]:
        command = (*self.command, "server", "--host", "127.0.0.1", "--port", str(port), "--exit-with-stdin")
        command += ("--state-dir", str(place.state), "--token-file", str(place.token_file))
        command += ("--address-file", str(place.address_file))
        if self.confined:
            writable = [place.home, place.data, place.state, *([self.workspace] if self.workspace else [])]
            readable = [place.token_file, *self.readable]
            command = confined(command, hidden=self.directory, writable=writable, readable=readable)
        variables = {name: value for name, value in os.environ.items() if not name.startswith("SANDBOX_AGENT_")}
        variables |= {"HOME": str(place.home), "SANDBOX_AGENT_DATA_DIR": str(place.data), **self.env}
        log = place.open_log()
        try:
            # Not in a thread of a pool: the kernel ends bubblewrap with the thread that started it.
            process = subprocess.Popen(
                command,
                env=variables,
                cwd=place.home,
                stdin=subprocess.PIPE,  # the lifeline
                stdout=log,
                stderr=log,
                bufsize=0,
                start_new_session=True,  # a ^C is the application's, which then ends us in its own order
            )
        finally:
            os.close(log)
        _started[process] = place.path
        return process


def _ours(path: Path) -> list[subprocess.Popen[bytes]]:
    """The servers of a sandbox that we have started and not yet collected."""
    # A copy at once: providers may be in several threads.
    return [process for process, place in list(_started.items()) if place == path]


def _collect(process: subprocess.Popen[bytes]) -> None:
    """Forget one that has ended, and was taken from the kernel."""
    if _started.pop(process, None) is not None:
        assert process.stdin is not None
        process.stdin.close()


def _data_home() -> Path:
    try:
        return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    except RuntimeError:
        raise ProviderError("there is no home directory: set HOME, or give a directory for the sandboxes") from None
