"""The daemon: everything nested in the order of its start, left in reverse.

    state directory (locked) → reaper → leftovers swept → sentinel → journal → installer → git → processes → sessions
        → HTTP

With `--await-init` HTTP is there before all of it, see `init`; then everything begins on the same socket.

At the end: new work is refused and streams are told, HTTP ends, agents are stopped, the journal is flushed. Every step
is bounded; a second signal, or a step that hangs all the same, ends the process at once, with its agents killed.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import sqlite3
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

import structlog
import trio

from sandbox_actors.berths import Berths
from sandbox_actors.catalog import BadCatalog, Catalog
from sandbox_actors.catalog.sources import read_agents
from sandbox_actors.credentials import PROVIDERS
from sandbox_actors.directory_config import DirectoryConfig
from sandbox_actors.errors import UnsupportedAgent
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

from .address_file import announced
from .app import create_app
from .config import BadConfig
from .init import open_door
from .logs import finish_logs
from .orders import name_of, open_orders
from .remote import open_connections
from .serving import listen, serving
from .sessions import open_errands
from .state_dir import locked, owner_of
from .streams import Streams
from .token_file import read_tokens
from .token_store import TokenStore
from .tokens import Token, Tokens
from .tuning import tune_memory

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping
    from pathlib import Path
    from socket import socket

    from sandbox_actors.catalog.entry import Agent
    from sandbox_actors.installer import Installer
    from sandbox_actors.journal import Journal
    from sandbox_actors.processes import Processes
    from sandbox_supervisor import Reaper

    from .config import Config
    from .init import Door
    from .orders import Order

__all__ = ["Daemon", "open_daemon", "run_daemon"]

log = structlog.get_logger()

STREAMS_END_WITHIN = 1.0
"""Seconds for streams to tell their clients and end before HTTP is closed."""


CREDENTIALS = frozenset(
    variable for provider in PROVIDERS.values() for variable in (*provider.secrets, *provider.settings)
)
"""Variables that only those agents get that work with their provider, however they came to us."""


class Daemon:
    """A running daemon.

    Attributes:
      url: where it listens.
      root: the supervision tree.
      tokens: who may come in.
    """

    def __init__(self, url: str, root: Node, streams: Streams, tokens: Tokens) -> None:
        self.url = url
        self.root = root
        self.streams = streams
        self.tokens = tokens


@asynccontextmanager
async def open_daemon(config: Config, door: Door | None = None) -> AsyncGenerator[Daemon]:
    """A daemon, for as long as the block runs.

    Args:
      door: where it was waited for, and this configuration came from.

    Raises:
      BadConfig: it would not be safe, or cannot work.
    """
    config.check()
    if config.await_init:
        with listen(config.host, config.port) as listener:
            async with (
                open_door(config, listener, grace=STREAMS_END_WITHIN) as door,
                open_daemon(await door.initialized(), door) as daemon,
            ):
                yield daemon
        return
    own = {**os.environ, **config.variables}
    environment = {**own, **config.environment}
    agents = _agents(config, environment)
    filed = () if config.tokens_file is None else await trio.to_thread.run_sync(read_tokens, config.tokens_file)
    with listen(config.host, config.port) if door is None else nullcontext(door.listener) as listener:
        port = listener.getsockname()[1]
        state_dir = (
            config.state_dir or config.data_dir / "daemons" / f"{re.sub('[^A-Za-z0-9]', '-', config.host)}-{port}"
        )
        with locked(state_dir):
            owner, run = owner_of(state_dir), secrets.token_hex(4)
            files = _files(config, environment, state_dir)
            tokens = _tokens(config, filed, TokenStore(state_dir / "tokens.json"))
            root = Node("daemon", "daemon")
            catalog = Catalog(
                agents,
                config.data_dir / "bin" / "agent_processes",
                environment,
                # What we were told to give to agents passes the list of what they may inherit.
                inherited=(*config.inherited, *config.environment, *(config.variables.keys() - CREDENTIALS)),
                program=config.program,
            )
            _check_default_agent(config, catalog)
            streams = Streams()
            async with (
                open_reaper() as reaper,
                _swept(owner),
                _cleared(files),
                open_sentinel(owner, run, reaper=reaper),
                _journal(state_dir / "journal.db", config) as journal,
                _installer(config, catalog, owner, run, reaper, root) as installer,
                open_git(own, files, owner=owner, run=run, reaper=reaper) as git,
                _processes(own, owner, run, reaper, root) as processes,
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
                        redactor=catalog.redactor(*filter(None, [config.token]), *config.secrets),
                        files=files,
                        processes=processes,
                        queue_limit=config.queue_limit,
                        turn_deadline=config.turn_deadline,
                        transcript_limit=config.transcript_limit,
                        idle_limit=config.idle_limit,
                        berths=Berths(config.max_agents),
                    ),
                    root,
                    installer.ensure,
                ) as sessions,
                open_connections(sessions) as connections,
                open_errands() as errands,
            ):
                survey = Survey(catalog, installer, owner, run, reaper)
                searches = Searches(files, own, owner, run, reaper)
                app = create_app(
                    config,
                    sessions,
                    installer,
                    survey,
                    journal,
                    streams,
                    root,
                    files,
                    processes,
                    git,
                    searches,
                    tokens,
                    connections,
                    errands,
                )
                async with (
                    serving(app, listener, largest_frame=config.max_body, grace=STREAMS_END_WITHIN)
                    if door is None
                    else door.through(app)
                ):
                    try:
                        yield Daemon(_url(listener), root, streams, tokens)
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
    """Run a daemon until SIGTERM or SIGINT, or the end of stdin where that counts.

    A second signal, or a shutdown longer than `config.grace`, is the end at once.

    At SIGHUP a tokens file is read again.
    """
    tune_memory()
    config.check()
    heeded = [signal.SIGTERM, signal.SIGINT]
    if config.tokens_file is not None:
        heeded.append(signal.SIGHUP)  # without such a file it ends us, as it ends any program whose terminal goes
    async with AsyncExitStack() as held:
        orders = await held.enter_async_context(open_orders(*heeded, lifeline=config.exit_with_stdin))
        door: Door | None = None
        if config.await_init:
            listener = held.enter_context(listen(config.host, config.port))
            door = await held.enter_async_context(open_door(config, listener, grace=STREAMS_END_WITHIN))
            held.enter_context(announced(config.address_file, _url(listener)))
            told = await _told(config, door, orders)
            if told is None:
                log.info("stopped")
                return
            config = told
        async with trio.open_nursery() as nursery:
            async with open_daemon(config, door) as daemon:
                held.enter_context(announced(config.address_file, daemon.url))
                log.info("listening", url=daemon.url, pid=os.getpid(), token=config.guarded)
                async for order in orders:
                    if order is signal.SIGHUP:
                        await _reread(config, daemon.tokens)
                        continue
                    log.info("shutting down", by=name_of(order))
                    nursery.start_soon(_give_up, orders, order, config.grace)
                    break
            nursery.cancel_scope.cancel()
    log.info("stopped")


async def _told(config: Config, door: Door, orders: AsyncIterator[Order]) -> Config | None:
    """The configuration with what `POST /v1/init` tells; None: the order to stop came first."""
    _agents(config, {**os.environ, **config.environment})  # better now than when somebody wants to begin
    told: Config | None = None
    log.info("awaiting init", url=_url(door.listener), pid=os.getpid(), secret=config.init_secret is not None)
    async with trio.open_nursery() as nursery:

        async def until_stopped() -> None:
            async for order in orders:
                if order is not signal.SIGHUP:
                    log.info("shutting down", by=name_of(order))
                    break
            nursery.cancel_scope.cancel()

        nursery.start_soon(until_stopped)
        told = await door.initialized()
        nursery.cancel_scope.cancel()
    return told


async def _reread(config: Config, tokens: Tokens) -> None:
    if config.tokens_file is None:
        return
    try:
        tokens.refile(await trio.to_thread.run_sync(read_tokens, config.tokens_file))
    except BadConfig as error:
        log.error("the tokens file was not taken in: those of before hold on", error=str(error))
    else:
        log.info("tokens read again")


def _tokens(config: Config, filed: tuple[Token, ...], store: TokenStore) -> Tokens:
    started = (*([] if config.token is None else [Token.of(config.token)]), *config.tokens)
    tokens = Tokens(started, filed, store, guarded=config.guarded)
    if config.guarded and not any("admin" in token.scopes for token, _ in tokens.listed()):
        log.warning("no token of scope 'admin' holds: give another one at the start")
    return tokens


def _url(listener: socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _agents(config: Config, environment: Mapping[str, str]) -> dict[str, Agent]:
    try:
        return read_agents(config.agents_file, config.data_dir / "registry.json", environment)
    except BadCatalog as error:
        raise BadConfig(str(error)) from None


async def _give_up(orders: AsyncIterator[Order], first: Order, grace: float) -> None:
    # Hypercorn's sends are shielded, and a disk may hang: the last resort is not to wait for them.
    # The end of stdin is none of the two signals: whoever ends us by one may be about to end themselves.
    signals = int(first != "stdin")
    with trio.move_on_after(grace):
        async for order in orders:
            signals += int(order != "stdin")
            if signals > 1:
                break
    log.error("shutdown takes too long: leaving at once")
    finish_logs()
    os._exit(1)


def _check_default_agent(config: Config, catalog: Catalog) -> None:
    try:
        if config.default_agent is not None:
            catalog.resolve(config.default_agent)
    except UnsupportedAgent as error:
        raise BadConfig(f"--default-agent: {error}") from None


def _files(config: Config, environment: Mapping[str, str], state_dir: Path) -> FileSystem:
    try:
        return FileSystem(environment.get("HOME") or "/", config.fs_root, records=state_dir / "on-their-way")
    except OSError as error:
        raise BadConfig(f"cannot use --fs-root {config.fs_root}: {error.strerror}") from None


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
async def _processes(
    environment: Mapping[str, str], owner: str, run: str, reaper: Reaper, root: Node
) -> AsyncGenerator[Processes]:
    with root.child("processes", "processes") as node:
        # What the daemon tells agents beside is theirs alone.
        async with open_processes(environment, owner=owner, run=run, reaper=reaper, node=node) as processes:
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
