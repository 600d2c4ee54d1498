"""How far installs are, shown on stderr: a bar for each on a terminal, else a line for each step."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import click

from .options import plain

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.progress import Progress, TaskID

__all__ = ["InstallDisplay", "showing_installs"]


class InstallDisplay(Protocol):
    """What shows installs."""

    def show(self, agent: str, step: str, message: str, bytes: int, total: int | None) -> None:
        """An install is here now."""
        ...

    def end(self, agent: str) -> None:
        """An install has ended, one way or the other."""
        ...


class _Lines:
    """A line for each step, for logs and pipes. Bytes are left out: they change all the time."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def show(self, agent: str, step: str, message: str, bytes: int, total: int | None) -> None:
        line = f"{agent}: {step} {message}".rstrip()
        if self._last.get(agent) != line:
            self._last[agent] = line
            click.echo(plain(line), err=True)

    def end(self, agent: str) -> None:
        self._last.pop(agent, None)


class _Bars:
    """A bar for each agent that is at work."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, agent: str, step: str, message: str, bytes: int, total: int | None) -> None:
        if agent not in self._tasks:
            self._tasks[agent] = self._progress.add_task("", total=None, agent=agent, message="")
        text = plain(f"{step} {message}")
        self._progress.update(self._tasks[agent], completed=bytes, total=total, message=text)

    def end(self, agent: str) -> None:
        if (task := self._tasks.pop(agent, None)) is not None:
            self._progress.remove_task(task)


@contextmanager
def showing_installs() -> Generator[InstallDisplay]:
    """A display for as long as the block runs; bars are gone at its end."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.table import Column

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.fields[agent]}", style="bold", markup=False),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[message]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        yield _Bars(progress)
