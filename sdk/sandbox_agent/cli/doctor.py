"""`sandbox-agent doctor`: what is wrong on this machine, and how to mend it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from .options import (
    agents_option,
    data_dir_option,
    env,
    flags,
    json_option,
    own_token,
    plain,
    tell_json,
    token_options,
)

if TYPE_CHECKING:
    from pathlib import Path

    from .finding import Finding

__all__ = ["doctor"]

COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command()
@flags(
    click.option("-H", "--host", default="127.0.0.1", show_default=True, **env("HOST"), help="Address of the server."),
    click.option("-p", "--port", default=2468, type=click.IntRange(1, 65535), show_default=True, **env("PORT")),
    token_options,
    data_dir_option,
    agents_option,
    click.option("--probe", is_flag=True, help="Start each installed agent as well, and ask what it is."),
    json_option,
)
@click.pass_context
def doctor(
    context: click.Context,
    *,
    host: str,
    port: int,
    data_dir: Path,
    agents: Path | None,
    probe: bool,
    as_json: bool,
) -> None:
    """Look for what is wrong here, and tell how to mend it.

    Looks at the tools that installs need, the data directory, the address, and the agents that are installed. Agents
    are started with --probe alone. Exit code 1: something has failed; warnings are no failure.
    """
    import trio

    findings = trio.run(_examine, data_dir, host, port, own_token(context), agents, probe)
    failed = any(finding.status == "failed" for finding in findings)
    if as_json:
        tell_json({"ok": not failed, "checks": findings})
    else:
        _tell(findings)
    sys.exit(int(failed))


async def _examine(
    data_dir: Path, host: str, port: int, token: str | None, agents_file: Path | None, start: bool
) -> list[Finding]:
    import itertools
    import secrets

    from sandbox_actors.installer.site import Site
    from sandbox_supervisor import open_reaper, open_sentinel

    from .agent_check import check_agents
    from .machine_check import check_kernel, check_tools
    from .place_check import check_address, check_directory, check_journals

    owner, run, environment = f"doctor-{secrets.token_hex(8)}", secrets.token_hex(4), dict(os.environ)
    async with open_reaper() as reaper, open_sentinel(owner, run, reaper=reaper):
        site = Site("doctor", environment, owner, run, reaper, lambda progress: None, itertools.count(1))
        return [
            *await check_tools(site),
            *check_kernel(reaper, environment),
            *await check_directory(data_dir, site),
            *check_journals(data_dir),
            *check_address(data_dir, host, port, token),
            *await check_agents(data_dir, agents_file, environment, site, start=start),
        ]


def _tell(findings: list[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        status = click.style(f"{finding.status:<7}", fg=COLOURS[finding.status])
        click.echo(f"{status}  {plain(finding.name):<{width}}  {plain(finding.message)}")
        if finding.hint is not None:
            click.echo(f"{'':7}  {'':{width}}  → {plain(finding.hint)}")
    counts = {status: sum(finding.status == status for finding in findings) for status in ("failed", "warning")}
    if any(counts.values()):
        click.echo(f"\n{counts['failed']} failed, {counts['warning']} to look at")
    else:
        click.echo("\nall is well")
