"""The daemon: everything nested in the order of its start, left in reverse.

    state directory (locked) → reaper → leftovers swept → sentinel → journal → installer → git → processes → sessions
        → HTTP

At the end: new work is refused and streams are told, HTTP ends, agents are stopped, the journal is flushed. Every step
is bounded; a second signal, or a step that hangs all the same, ends the process at once, with its agents killed.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import signal
import sqlite3
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import structlog
import trio

from sandbox_actors.catalog import BadCatalog, Catalog
from sandbox_actors.catalog.sources import read_agents
from sandbox_actors.directory_config import DirectoryConfig
from sandbox_actors.files import FileSystem
from sandbox_actors.git import open_git
from sandbox_actors.installer import open_installer
from sandbox_actors.journal import UnknownVersion, open_journal
from sandbox_actors.processes import open_processes
from sandbox_actors.searching.search import Searches
from sandbox_actors.sessions import open_sessions
from sandbox_actors.setting import Setting
from sandbox_actors.survey import Survey
from sandbox_supervisor import Node, open_reaper, open_sentinel, sweep_in_thread

from .app import create_app
from .config import BadConfig
from .logs import finish_logs
from .serving import listen, serving
from .streams import Streams
from .tuning import tune_memory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
    from pathlib import Path

    from sandbox_actors.installer import Installer
    from sandbox_actors.journal import Journal
    from sandbox_actors.processes import Processes
    from sandbox_supervisor import Reaper

    from .config import Config

__all__ = ["Daemon", "open_daemon", "run_daemon"]

log = structlog.get_logger()

STREAMS_END_WITHIN = 1.0
"""Seconds for streams to tell their clients and end before HTTP is closed."""


class Daemon:
    """A running daemon.

    Attributes:
      url: where it listens.
      root: the supervision tree.
    """

    def __init__(self, url: str, root: Node, streams: Streams) -> None:
        self.url = url
        self.root = root
        self.streams = streams


@asynccontextmanager
async def open_daemon(config: Config) -> AsyncGenerator[Daemon]:
    """A daemon, for as long as the block runs.

    Raises:
      BadConfig: it would not be safe, or cannot work.
    """
    config.check()
    environment = {**os.environ, **config.environment}
    try:
        agents = read_agents(config.agents_file, config.data_dir / "registry.json", environment)
    except BadCatalog as error:
        raise BadConfig(str(error)) from None
    with listen(config.host, config.port) as listener:
        host, port = listener.getsockname()[:2]
        state_dir = (
            config.state_dir or config.data_dir / "daemons" / f"{re.sub('[^A-Za-z0-9]', '-', config.host)}-{port}"
        )
        with _locked(state_dir):
            owner, run = _owner(state_dir), secrets.token_hex(4)
            files = _files(config, environment, state_dir)
            root = Node("daemon", "daemon")
            catalog = Catalog(
                agents,
                config.data_dir / "bin" / "agent_processes",
                environment,
                # What we were told to give to agents passes the list of what they may inherit.
                inherited=(*config.inherited, *config.environment),
                program=config.program,
            )
            streams = Streams()
            async with (
                open_reaper() as reaper,
                _swept(owner),
                _cleared(files),
                open_sentinel(owner, run, reaper=reaper),
                _journal(state_dir / "journal.db", config) as journal,
                _installer(config, catalog, owner, run, reaper, root) as installer,
                open_git(os.environ, files, owner=owner, run=run, reaper=reaper) as git,
                _processes(owner, run, reaper, root) as processes,
                open_sessions(
                    catalog,
                    Setting(
                        journal,
                        owner,
                        run,
                        reaper,
                        policy=config.restart,
                        directory_config=DirectoryConfig(
                            environment,
                            config.data_dir / "directory-config.key",
                            trusting=config.trust_directory_config,
                        ),
                        redactor=catalog.redactor(*filter(None, [config.token])),
                    ),
                    root,
                    installer.ensure,
                ) as sessions,
            ):
                survey = Survey(catalog, installer, owner, run, reaper)
                searches = Searches(files, os.environ, owner, run, reaper)
                app = create_app(
                    config, sessions, installer, survey, journal, streams, root, files, processes, git, searches
                )
                async with serving(app, listener, largest_frame=config.max_body, grace=STREAMS_END_WITHIN):
                    shown = f"[{host}]" if ":" in host else host
                    try:
                        yield Daemon(f"http://{shown}:{port}", root, streams)
                    finally:
                        # Streams are told, then agents stopped: whoever waits for one is answered while HTTP is there.
                        streams.drain()
                        installer.close()
                        survey.close()
                        with trio.CancelScope(shield=True):
                            async with trio.open_nursery() as closing:
                                closing.start_soon(sessions.close)
                                closing.start_soon(processes.close)


async def run_daemon(config: Config) -> None:
    """Run a daemon until SIGTERM or SIGINT. A second one, or a shutdown longer than `config.grace`, is the end."""
    tune_memory()
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            async with open_daemon(config) as daemon:
                log.info("listening", url=daemon.url, pid=os.getpid(), token=config.token is not None)
                async for number in signals:
                    log.info("shutting down", signal=signal.Signals(number).name)
                    break
                nursery.start_soon(_give_up, signals, config.grace)
            nursery.cancel_scope.cancel()
    log.info("stopped")


async def _give_up(signals: AsyncIterator[int], grace: float) -> None:
    # Hypercorn's sends are shielded, and a disk may hang: the last resort is not to wait for them.
    with trio.move_on_after(grace):
        async for _ in signals:
            break
    log.error("shutdown takes too long: leaving at once")
    finish_logs()
    os._exit(1)


def _files(config: Config, environment: Mapping[str, str], state_dir: Path) -> FileSystem:
    try:
        return FileSystem(environment.get("HOME") or "/", config.fs_root, records=state_dir / "on-their-way")
    except OSError as error:
        raise BadConfig(f"cannot use --fs-root {config.fs_root}: {error.strerror}") from None


@contextmanager
def _locked(state_dir: Path) -> Generator[None]:
    """The state directory is ours alone. Raises `BadConfig` if another daemon has it."""
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        state_dir.chmod(0o700)  # also one that was there: prompts are private
        descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadConfig(f"cannot use the state directory {state_dir}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadConfig(
            f"another daemon uses the state directory {state_dir}; stop it, or give this one its own --state-dir"
        ) from None
    else:
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def _installer(
    config: Config, catalog: Catalog, owner: str, run: str, reaper: Reaper, root: Node
) -> AsyncGenerator[Installer]:
    with root.child("installer", "installer") as node:
        async with open_installer(
            catalog,
            catalog.launchers,
            owner=owner,
            run=run,
            reaper=reaper,
            node=node,
            offline=config.offline,
            preinstalled_only=config.preinstalled_only,
        ) as installer:
            yield installer


@asynccontextmanager
async def _processes(owner: str, run: str, reaper: Reaper, root: Node) -> AsyncGenerator[Processes]:
    with root.child("processes", "processes") as node:
        # What the daemon tells agents beside is theirs alone.
        async with open_processes(dict(os.environ), owner=owner, run=run, reaper=reaper, node=node) as processes:
            yield processes


@asynccontextmanager
async def _journal(path: Path, config: Config) -> AsyncGenerator[Journal]:
    opening = True
    try:
        async with open_journal(path, retention=config.retention, synchronous=config.synchronous) as journal:
            opening = False
            yield journal
    except (UnknownVersion, OSError, sqlite3.OperationalError) as error:
        if not opening:
            raise
        raise BadConfig(f"cannot open the journal: {error}; mend that, or give another --state-dir") from None


@asynccontextmanager
async def _swept(owner: str) -> AsyncGenerator[None]:
    """What earlier daemons of this state directory left behind is ended."""
    if left := await sweep_in_thread(lambda cookie: cookie.owner == owner):
        log.warning("ended processes that an earlier daemon left behind", processes=left)
    yield


@asynccontextmanager
async def _cleared(files: FileSystem) -> AsyncGenerator[None]:
    """Files that an earlier daemon was killed over are deleted, meanwhile: there may be many."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(files.delete_leftovers)
        yield
        nursery.cancel_scope.cancel()


def _owner(state_dir: Path) -> str:
    """The stable id of this state directory, by which processes of earlier daemons are known."""
    path = state_dir / "owner"
    try:
        return path.read_text().strip() or _new_owner(path)
    except FileNotFoundError:
        return _new_owner(path)


def _new_owner(path: Path) -> str:
    owner = secrets.token_hex(8)
    path.write_text(owner)
    return owner
