"""What several commands share: options, and how they are told."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["data_dir_option", "env", "flags", "json_option", "program_path", "tell_json"]


def env(name: str) -> dict[str, Any]:
    """The keywords of an option that has the variable `SANDBOX_AGENT_<name>`."""
    return {"envvar": f"SANDBOX_AGENT_{name}", "show_envvar": True}


def flags(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Many options in one decorator, in the order of the help page."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _data_dir(_context: click.Context, _parameter: click.Parameter, given: Path | None) -> Path:
    if given is None:
        given = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "sandbox-agent"
    return given.absolute()


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    callback=_data_dir,
    **env("DATA_DIR"),
    help="Where agents are.  [default: ~/.local/share/sandbox-agent]",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text for people.")


def tell_json(document: object) -> None:
    """Print a document as JSON, for programs: indented, and nothing else on stdout."""
    import msgspec

    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2))


def program_path() -> str | None:
    """The path of the `sandbox-agent` command."""
    beside = Path(sys.executable).with_name("sandbox-agent")
    return str(beside) if beside.exists() else shutil.which("sandbox-agent")
