"""All processes of a daemon: created, found and deleted by id, each a task of its own in one nursery; and calls of run.

Their numbers count from 1 in every life of the daemon, and no process outlives it. A crash of our own code in one of
them ends that process, is logged, and takes nobody else along.
"""

from __future__ import annotations

import signal
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog
import trio

from sandbox_supervisor import Cookie, Node

from ..errors import ShuttingDown
from .cgroups import Cgroups
from .config import ProcessConfig
from .errors import ProcessNotFound, ProcessTrouble
from .process import Place, Process
from .run import run_command

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from sandbox_supervisor import Reaper

    from .child import Launch
    from .run import RunResult
    from .spec import Spec

__all__ = ["Processes", "open_processes"]

log = structlog.get_logger()

STOPPED_WITHIN = 1.0
"""Seconds from SIGTERM to SIGKILL when the daemon ends."""


class Processes:
    """See the module. Made by `open_processes` only.

    Attributes:
      config: what holds for all of them; may be replaced at any time, by what `ProcessConfig.checked` gives.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        cookie: Cookie,
        reaper: Reaper | None,
        cgroups: Cgroups,
        node: Node,
        nursery: trio.Nursery,
    ) -> None:
        self._config = ProcessConfig()
        self._environment = environment
        self._cookie = cookie
        self._reaper = reaper
        self._cgroups = cgroups
        self._node = node
        self._nursery = nursery
        self._processes: dict[str, Process] = {}
        self._starting: set[Process] = set()
        self._listed = 0
        self._serial = 0
        self._turns = trio.CapacityLimiter(self._config.max_concurrent_processes)
        self._calls: set[trio.CancelScope] = set()
        self.closed = False

    @property
    def config(self) -> ProcessConfig:
        return self._config

    @config.setter
    def config(self, config: ProcessConfig) -> None:
        self._config = config
        self._turns.total_tokens = config.max_concurrent_processes
        self._forget()

    def all(self) -> list[Process]:
        """Every process, in the order they were created in."""
        return list(self._processes.values())

    def get(self, id: str) -> Process:
        """Raises `ProcessNotFound` if there is none."""
        try:
            return self._processes[id]
        except KeyError:
            raise ProcessNotFound(id) from None

    async def create(self, spec: Spec) -> Process:
        """Start a process that stays until it is deleted.

        Raises:
          ProcessTrouble: there are too many.
          StartFailed: there is no such program or directory, or no room.
          InvalidRequest, UserDenied, ShuttingDown.
        """
        launch = await self._launch(spec, stdin=True, term=spec.tty is not None)
        if self.closed:
            raise ShuttingDown
        self._check_room(spec)
        idle = self._config.terminal_idle_ms / 1000 or None
        name = self._name("process")
        process = Process(
            spec,
            launch,
            Place(
                cookie=replace(self._cookie, name=name),
                reaper=self._reaper,
                cgroups=self._cgroups,
                node=Node(name, "process"),
                log_bytes=self._config.max_log_bytes_per_process,
                idle=idle,
            ),
        )
        self._starting.add(process)
        self._nursery.start_soon(self._keep, process)
        try:
            # Once begun it gets its number: one that nobody could name would run for ever. A start takes milliseconds.
            with trio.CancelScope(shield=True):
                await process.started.wait()
        finally:
            self._starting.discard(process)
        self._listed += 1
        process.id = f"proc_{self._listed}"
        process.node.details["id"] = process.id
        self._processes[process.id] = process
        self._forget()
        return process

    async def run(self, spec: Spec, *, timeout: float, limit: int) -> RunResult:
        """Run a command to its end. Too many at once wait for their turn, within their time.

        Args:
          timeout: seconds.
          limit: bytes of each stream that are given back.

        Raises:
          ProcessTrouble: its turn did not come in time.
          StartFailed, InvalidRequest, UserDenied, ShuttingDown.
        """
        launch = await self._launch(spec, stdin=spec.stdin is not None, term=True)
        deadline = trio.current_time() + timeout
        with trio.CancelScope() as call:
            self._calls.add(call)
            try:
                if self.closed:
                    raise ShuttingDown
                with trio.move_on_at(deadline) as waiting:
                    await self._turns.acquire_on_behalf_of(call)
                if waiting.cancelled_caught:
                    raise ProcessTrouble(f"{self._turns.total_tokens} commands ran all the time; try again")
                try:
                    return await run_command(
                        launch,
                        cookie=replace(self._cookie, name=self._name("run")),
                        reaper=self._reaper,
                        cgroups=self._cgroups,
                        stdin=spec.stdin,
                        timeout=deadline - trio.current_time(),
                        limit=limit,
                    )
                finally:
                    self._turns.release_on_behalf_of(call)
            finally:
                self._calls.discard(call)
        raise ShuttingDown

    def delete(self, id: str) -> None:
        """Forget one that has exited.

        Raises:
          ProcessNotFound, ProcessTrouble: there is none; it runs.
        """
        process = self.get(id)
        if not process.exited.is_set():
            raise ProcessTrouble("process is still running; stop or kill it before delete")
        del self._processes[id]

    async def close(self) -> None:
        """End every process and every call, whole trees; take no new ones."""
        self.closed = True
        for call in self._calls:
            call.cancel()
        async with trio.open_nursery() as nursery:
            for process in [*self._starting, *self._processes.values()]:
                nursery.start_soon(process.stop, signal.SIGTERM, float("inf"), STOPPED_WITHIN)

    async def _keep(self, process: Process) -> None:
        try:
            with self._node.attached(process.node):
                await process.run()
        except Exception as crash:
            log.error("process crashed", process=process.id, exc_info=crash)
        finally:
            self._forget()

    async def _launch(self, spec: Spec, *, stdin: bool, term: bool) -> Launch:
        spec.checked()
        if spec.user is None:
            return spec.launch(self._environment, stdin=stdin, term=term)
        # Users may be looked up over the network.
        return await trio.to_thread.run_sync(lambda: spec.launch(self._environment, stdin=stdin, term=term))

    def _check_room(self, spec: Spec) -> None:
        running = [process for process in self._processes.values() if not process.exited.is_set()]
        running += self._starting
        if len(running) >= self._config.max_concurrent_processes:
            raise ProcessTrouble(f"max concurrent process limit reached ({self._config.max_concurrent_processes})")
        terminals = sum(process.spec.tty is not None for process in running)
        if spec.tty is not None and terminals >= self._config.max_terminals:
            raise ProcessTrouble(f"max terminal limit reached ({self._config.max_terminals})")

    def _forget(self) -> None:
        """Of those that have exited keep the latest, within the limits."""
        exited = [process for process in self._processes.values() if process.exited.is_set()]
        exited.sort(key=lambda process: process.exited_ms, reverse=True)
        size = 0
        for kept, process in enumerate(exited):
            size += process.log.size
            if kept >= max(1, self._config.max_exited_processes) or (kept and size > self._config.max_exited_log_bytes):
                del self._processes[process.id]

    def _name(self, kind: str) -> str:
        self._serial += 1
        return f"{kind}.{self._serial}"


@asynccontextmanager
async def open_processes(
    environment: Mapping[str, str],
    *,
    owner: str,
    run: str,
    reaper: Reaper | None,
    node: Node,
    cgroups: Cgroups | None = None,
) -> AsyncGenerator[Processes]:
    """All processes, for as long as the block runs; every tree is ended before it ends.

    Args:
      environment: the daemon's own.
      owner, run: of the cookie that every process carries.
      cgroups: where groups may be made; None: where the kernel lets us.
    """
    if cgroups is None:
        cgroups = await trio.to_thread.run_sync(Cgroups.detect)
    async with trio.open_nursery() as nursery:
        processes = Processes(environment, Cookie(owner, run, ""), reaper, cgroups, node, nursery)
        try:
            yield processes
        finally:
            with trio.CancelScope(shield=True):
                await processes.close()
            nursery.cancel_scope.cancel()
