"""What several commands share: options, and how they are told."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "Failure",
    "agents_option",
    "data_dir_option",
    "env",
    "flags",
    "given_token",
    "json_option",
    "own_token",
    "plain",
    "program_path",
    "read_secret",
    "tell_json",
    "tell_table",
    "token_options",
]

WIDTH = 1000
"""Columns of a table that nobody looks at: what is piped into a program must not be cut."""


class Failure(click.ClickException):
    """The command could not do what it was asked: one line on stderr, and exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"sandbox-agent: {plain(self.message)}", file=file, err=file is None)


def plain(text: str) -> str:
    """A text from elsewhere, on one line and without what a terminal would obey."""
    words = " ".join(text.split())
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in words)


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
    try:
        if given is None:
            given = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "sandbox-agent"
        return given.absolute()
    except RuntimeError:
        raise Failure("there is no home directory: set HOME, or give --data-dir") from None
    except FileNotFoundError:
        raise Failure("the current directory has been removed: give --data-dir as an absolute path") from None


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    callback=_data_dir,
    **env("DATA_DIR"),
    help="Where agents are.  [default: ~/.local/share/sandbox-agent]",
)

agents_option = click.option(
    "--agents",
    type=click.Path(path_type=Path, dir_okay=False),
    **env("AGENTS"),
    help="TOML or JSON file that defines agents of your own.",
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text for people.")


def _keep(context: click.Context, parameter: click.Parameter, given: str | Path | bool | None) -> None:
    if given is not None and given is not False:
        context.obj[str(parameter.name)] = given


token_options = flags(
    click.option(
        "-t", "--token", expose_value=False, callback=_keep,
        help="As the option of the whole command.  [env: SANDBOX_AGENT_TOKEN]",
    ),
    click.option(
        "--token-file", type=click.Path(path_type=Path), expose_value=False, callback=_keep,
        help="As the option of the whole command.  [env: SANDBOX_AGENT_TOKEN_FILE]",
    ),
    click.option(
        "-n", "--no-token", is_flag=True, expose_value=False, callback=_keep,
        help="As the option of the whole command.",
    ),
)  # fmt: skip
"""The whole command's options for the token, taken behind a command's name as well."""


def given_token(context: click.Context) -> str | None:
    """The token that was given in front of the command's name or behind it, by the environment, or in a file.

    Raises:
      Failure: there are two of them, or the file has none.
    """
    token: str | None = context.obj["token"]
    file: Path | None = context.obj["token_file"]
    if file is None:
        return token
    if token is not None:
        raise Failure(f"there is a token, and a --token-file {file} as well: give one of them")
    if not (token := read_secret("--token-file", file)):
        raise Failure(f"the --token-file {file} is empty: write a token into it")
    return token


def own_token(context: click.Context) -> str | None:
    """The token of a server that runs here; empty where it was set to nothing, say by a secret that was not found.

    Click takes that for unset, and it must not be.
    """
    token = given_token(context)
    variables = ("SANDBOX_AGENT_TOKEN", "SANDBOX_AGENT_TOKEN_FILE")
    if token is None and not context.obj["no_token"] and any(name in os.environ for name in variables):
        return ""
    return token


def read_secret(option: str, file: Path) -> str:
    """What a file holds that an option names, without the blanks around it.

    Raises:
      Failure: it cannot be read.
    """
    try:
        return file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Failure(f"cannot read {option} {file}: {reason}") from None


def tell_json(document: object) -> None:
    """Print a document as JSON, for programs: indented, and nothing else on stdout."""
    import json

    import msgspec

    try:
        told = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    except UnicodeEncodeError:  # bytes that are no UTF-8, in a path or a key: they are escaped
        told = json.dumps(msgspec.to_builtins(document), indent=2)
    click.echo(told)


def tell_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table for people on stdout; a pipe gets the same, never cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))  # Text: what is in brackets is no markup
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    with console.capture() as shown:
        console.print(table)
    for line in shown.get().splitlines():
        click.echo(line.rstrip())  # the last column is padded, too


def program_path() -> str | None:
    """The path of the `sandbox-agent` command."""
    beside = Path(sys.executable).with_name("sandbox-agent")
    return str(beside) if beside.exists() else shutil.which("sandbox-agent")
