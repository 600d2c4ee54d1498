"""Where one install is at work: its children, and what it tells of itself.

A tool gets what it needs to run and what is its own, and nothing else of our environment: what it installs is other
people's code, and API keys are none of its business. Its standard input is closed, its output is kept in part, and it
dies with its whole tree.
"""

from __future__ import annotations

import os
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import trio

from sandbox_supervisor import Cookie, SpawnFailed, open_process

from ..framing import LineSplitter
from ..redaction import Redactor, secrets_in
from .progress import Progress
from .trouble import Trouble, without_users

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from trio.abc import ReceiveStream

    from sandbox_supervisor import Reaper

    from .progress import Step

__all__ = ["NPM", "PYPI", "Finished", "Site", "size_of"]

NPM = re.compile(r"npm_config_.*|NPM_CONFIG_.*|NODE_EXTRA_CA_CERTS|NODE_USE_SYSTEM_CA", re.ASCII)
"""The variables that are npm's own."""

PYPI = re.compile(r"UV_.*|PIP_.*|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE", re.ASCII)
"""The variables that are uv's and pip's own."""

_COMMON = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|LANG|LANGUAGE|LC_.*|TZ|XDG_(CONFIG|DATA|STATE|CACHE)_HOME"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|(?i:https?_proxy|all_proxy|no_proxy)",
    re.ASCII,
)

LINES = 40
LINE_LENGTH = 500
LONGEST_LINE = 1 << 20

READ_SIZE = 64 << 10

LAST_WORDS_WITHIN = 2.0
"""Seconds to read what is left in the pipes of a tree that is dead."""

MEASURE_EVERY = 0.5
"""Seconds between two looks at the size of what is installed; more where one look takes long."""


@dataclass(frozen=True, slots=True)
class Finished:
    """How a tool ended: its code, None where a signal ended it, and the last lines of its output."""

    code: int | None
    lines: tuple[str, ...]


@dataclass(slots=True, eq=False)
class Site:
    """See the module.

    Attributes:
      agent: the id.
      environment: the daemon's own.
      tell: takes what a watcher may see.
    """

    agent: str
    environment: Mapping[str, str]
    owner: str
    run: str
    reaper: Reaper | None
    tell: Callable[[Progress], None]
    _names: Iterator[int]
    _last: Progress | None = None

    def step(self, step: Step, message: str = "", bytes: int = 0, total_bytes: int | None = None) -> None:
        """The install has come to this."""
        self._last = Progress(self.agent, step, message, bytes, total_bytes)
        self.tell(self._last)

    def grown(self, bytes: int, total_bytes: int | None = None) -> None:
        """The step goes on."""
        assert self._last is not None
        if bytes != self._last.bytes:
            self.step(self._last.step, self._last.message, bytes, total_bytes)

    def cookie(self) -> Cookie:
        """For one more child."""
        return Cookie(self.owner, self.run, f"install:{self.agent}:{next(self._names)}")

    def tool_environment(self, own: re.Pattern[str] | None = None, path: Sequence[Path] = ()) -> dict[str, str]:
        """What a tool gets of the environment.

        Args:
          own: the names of the variables that are its own.
          path: directories that are put before those on PATH.
        """
        taken = {
            name: value
            for name, value in self.environment.items()
            if _COMMON.fullmatch(name) or (own is not None and own.fullmatch(name))
        }
        folders = [*map(str, path), *filter(None, [taken.get("PATH")])]
        return {**taken, "PATH": os.pathsep.join(folders)} if folders else taken

    async def tool(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        grows: Path | None = None,
        silence: float | None = None,
    ) -> Finished:
        """Run a tool to its end.

        Args:
          grows: the directory that it fills, told as progress.
          silence: after so many seconds without a word and without growth there is no hope: the network is gone.

        Raises:
          Trouble: it cannot be started, or has been silent too long.
        """
        heard = _Heard(Redactor(secrets_in(env)))
        hopeless = False

        async def watch() -> None:
            nonlocal hopeless
            assert grows is not None
            size, since = -1, trio.current_time()
            while True:
                began = trio.current_time()
                now = await trio.to_thread.run_sync(size_of, grows, abandon_on_cancel=True)
                if now != size:
                    size, since = now, trio.current_time()
                    self.grown(size)
                if silence is not None and trio.current_time() - max(since, heard.at) > silence:
                    hopeless = True
                    running.cancel_scope.cancel()
                await trio.sleep(max(MEASURE_EVERY, 10 * (trio.current_time() - began)))

        try:
            async with open_process(
                argv, cookie=self.cookie(), env=env, cwd=None if cwd is None else str(cwd), reaper=self.reaper
            ) as child:
                await child.stdin.aclose()
                async with trio.open_nursery() as running:
                    running.start_soon(heard.listen, child.stdout)
                    running.start_soon(heard.listen, child.stderr)
                    if grows is not None:
                        running.start_soon(watch)
                    await child.wait()
                    # What it left behind would hold the pipes open.
                    status = await child.stop()
                    with trio.move_on_after(LAST_WORDS_WITHIN):
                        await heard.all.wait()
                    running.cancel_scope.cancel()
        except SpawnFailed as error:
            raise Trouble("failed", str(error)) from None
        if hopeless:
            message = f"nothing has come over the network for {silence:g} s; check it, and try again"
            raise Trouble("network", message, heard.lines)
        return Finished(status.code, tuple(heard.lines))


@dataclass(slots=True, eq=False)
class _Heard:
    """What a tool has said on both of its outputs.

    Attributes:
      at: when it last said something.
      all: set at the end of both.
    """

    redactor: Redactor
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))
    at: float = field(default_factory=trio.current_time)
    all: trio.Event = field(default_factory=trio.Event)
    _open: int = 2

    async def listen(self, stream: ReceiveStream) -> None:
        splitter = LineSplitter(limit=LONGEST_LINE)
        while chunk := await stream.receive_some(READ_SIZE):
            self.at = trio.current_time()
            self._keep(splitter.feed(chunk))
        self._keep(splitter.end())
        self._open -= 1
        if not self._open:
            self.all.set()

    def _keep(self, lines: Sequence[object]) -> None:
        for line in lines:
            # What npm fetches is a sign of life, and would push out of sight why it failed.
            if isinstance(line, bytes) and line and not line.startswith(b"npm http "):
                text = self.redactor.redact(line.decode(errors="replace"))
                self.lines.append(without_users(text)[:LINE_LENGTH])


def size_of(directory: Path) -> int:
    """The bytes of all files in a directory; what comes and goes meanwhile may be missed."""
    total = 0
    for folder, _, files in os.walk(directory):
        for file in files:
            try:
                total += os.lstat(os.path.join(folder, file)).st_size
            except OSError:
                continue
    return total
