"""`sandbox-agent daemon`: a server in the background, started once, stopped and looked after by its address."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from .options import Failure, data_dir_option, env, flags, given_token, json_option, tell_json, token_options

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["daemon"]

NOT_RUNNING = 3
"""The exit code of `status --exit-code`, as init scripts have it (LSB, "program is not running")."""

BY_OTHERS = "it was not started by 'sandbox-agent daemon start' with this data directory, so its PID is unknown"

PATIENCE = 5.0
"""Seconds for a server to answer that is ended otherwise: one that is only busy had better go on."""

address_options = flags(
    click.option("-H", "--host", default="127.0.0.1", show_default=True, **env("HOST"), help="Where it listens."),
    click.option(
        "-p", "--port", default=2468, type=click.IntRange(1, 65535), show_default=True, **env("PORT"),
        help="Its port.",
    ),
    data_dir_option,
    token_options,
)  # fmt: skip

grace_option = click.option(
    "--grace", default=8.0, type=click.FloatRange(min=0.1), show_default=True, **env("GRACE"),
    help="Seconds that its shutdown may take.",
)  # fmt: skip


@click.group()
def daemon() -> None:
    """Run a server in the background."""


@daemon.command()
@flags(
    address_options,
    click.option("--upgrade", is_flag=True, help="Restart one that runs with another build of this program."),
    click.option("--replace", is_flag=True, help="End one that runs and does not answer, and start it again."),
    grace_option,
)
@click.pass_context
def start(
    context: click.Context, *, host: str, port: int, data_dir: Path, upgrade: bool, replace: bool, grace: float
) -> None:
    """Start a server in the background, unless it runs already.

    It is configured by the environment as `sandbox-agent server` is. Give the token by SANDBOX_AGENT_TOKEN or
    --token-file: other users of the machine can see command lines.
    """
    from .background import Background
    from .build import build_id
    from .health import ANSWER_WITHIN, look

    token, build = given_token(context), build_id()
    background = Background(data_dir, host, port)
    with background.locked():
        pid, health = background.pid, look(background.url, token, PATIENCE if replace else ANSWER_WITHIN)
        if health == "other token":
            raise Failure(f"a server that takes another token runs at {background.url}")
        if health == "healthy" and pid is None:
            if upgrade:
                raise Failure(f"a server runs at {background.url} and cannot be restarted: {BY_OTHERS}")
            _say(f"daemon already running at {background.url}")
            return
        if pid is not None:
            if upgrade and background.build != build:
                _say(f"daemon outdated (build {background.build or 'unknown'} -> {build}), restarting...")
                background.stop(pid, grace)
            elif health == "healthy":
                _say(f"daemon already running at {background.url}{_outdated(background.build, build)}")
                return
            elif replace:
                _say(f"the daemon (PID {pid}) does not answer, restarting...")
                background.stop(pid, grace)
            else:
                raise Failure(
                    f"the daemon (PID {pid}) does not answer at {background.url};"
                    f" 'sandbox-agent daemon stop' ends it, --replace also starts it again; its log: {background.log}"
                )
        _say(f"starting daemon at {background.url}")
        options = ["--grace", str(grace), *(["--no-token"] if context.obj["no_token"] else [])]
        pid = background.start(token, options, build, told=_say)
        _say(f"daemon started (PID {pid}, logs: {background.log})")


@daemon.command()
@flags(address_options, grace_option)
@click.pass_context
def stop(context: click.Context, *, host: str, port: int, data_dir: Path, grace: float) -> None:
    """Stop the server in the background, with all its agents."""
    from .background import Background
    from .health import look

    background = Background(data_dir, host, port)
    with background.locked():
        if (pid := background.pid) is None:
            if look(background.url, given_token(context)) in ("healthy", "other token"):
                raise Failure(f"a server runs at {background.url} and cannot be stopped from here: {BY_OTHERS}")
            _say("daemon is not running (no PID file)")
            return
        _say(f"stopping daemon (PID {pid})...")
        background.stop(pid, grace)
        _say("daemon stopped")


@daemon.command()
@flags(
    address_options,
    json_option,
    click.option("--exit-code", is_flag=True, help=f"End with code {NOT_RUNNING} where it does not run."),
)
@click.pass_context
def status(context: click.Context, *, host: str, port: int, data_dir: Path, as_json: bool, exit_code: bool) -> None:
    """Tell whether the server in the background runs. For people on stderr, with --json on stdout."""
    from .background import Background
    from .build import build_id
    from .health import look

    background = Background(data_dir, host, port)
    pid, health, current = background.pid, look(background.url, given_token(context)), build_id()
    build = background.build if pid is not None else None
    running = pid is not None or health in ("healthy", "other token")
    if as_json:
        tell_json(
            {
                "running": running,
                "healthy": health == "healthy",
                "pid": pid,
                "build": build,
                "outdated": None if pid is None else build != current,
                "url": background.url,
                "log": None if pid is None else str(background.log),
            }
        )
    elif pid is not None:
        trouble = "" if health == "healthy" else f", but it does not answer at {background.url}"
        trouble = ", but it takes another token" if health == "other token" else trouble
        told = f"Daemon running (PID {pid}, build {build or 'unknown'}, logs: {background.log})"
        _say(f"{told}{trouble}{_outdated(build, current)}")
    elif running:
        _say(f"Daemon running at {background.url}; {BY_OTHERS}")
    else:
        _say("Daemon not running")
    if exit_code and not running:
        sys.exit(NOT_RUNNING)


def _outdated(build: str | None, current: str) -> str:
    return "" if build == current else " [outdated, restart recommended]"


def _say(text: str) -> None:
    # Everything on stderr, as on the public command.
    click.echo(text, err=True)
