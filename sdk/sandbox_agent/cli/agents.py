"""`sandbox-agent agents`: which agents there are, how each is had, and a registry that moves them to other versions."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import click
from click.core import ParameterSource

from .options import Failure, agents_option, data_dir_option, flags, json_option, plain, tell_json, tell_table

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_actors.catalog import Agent, Catalog, Distribution
    from sandbox_actors.catalog.changes import Change
    from sandbox_actors.catalog.registry import Skipped

__all__ = ["agents"]

SHOWN = 3
"""Providers that the list of agents names: some agents work with a dozen."""

WIDEST = 13
"""Letters of the longest member that is shown."""

REGISTRY_URL = "SANDBOX_AGENT_ACP_REGISTRY_URL"

KINDS = {"repinned": "re-pinned", "same": "as it was", "added": "added", "passed over": "passed over"}


@click.group()
def agents() -> None:
    """Show the agents that can be run, and refresh their versions from a registry document.

    Needs no server. Agents come from this release, a registry document, a file of your own and variables, each over the
    one before.
    """


@agents.command("list")
@flags(agents_option, data_dir_option, json_option)
def list_agents(agents: Path | None, data_dir: Path, as_json: bool) -> None:
    """List all agents: whether each is installed, in which version it is had, and what it needs."""
    catalog = _catalog(agents, data_dir)
    known = [catalog.agent(id) for id in catalog.known()]
    if as_json:
        tell_json({"agents": [_summary(catalog, agent) for agent in known]})
        return
    tell_table(
        ("ID", "NAME", "INSTALLED", "VERSION", "FROM", "CREDENTIALS"),
        (
            (
                agent.id,
                agent.name,
                "no" if catalog.command(agent.id) is None else "yes",
                agent.version or "",
                _how(agent),
                _few(agent.credentials),
            )
            for agent in known
        ),
    )


@agents.command()
@click.argument("agent", metavar="ID")
@flags(agents_option, data_dir_option, json_option)
def show(agent: str, agents: Path | None, data_dir: Path, as_json: bool) -> None:
    """Show one agent, by its id or one of its other names.

    Of the variables that it is given only the names are shown: a file of your own may have secrets in them.
    """
    from sandbox_actors.errors import UnsupportedAgent

    catalog = _catalog(agents, data_dir)
    try:
        known = catalog.agent(agent)
    except UnsupportedAgent as refusal:
        raise Failure(str(refusal)) from None
    if as_json:
        tell_json(_definition(catalog, known))
        return
    for name, value in _definition(catalog, known).items():
        if text := plain(_text(value)):
            click.echo(f"{name:{WIDEST}} {text}")


@agents.command()
@click.argument("source", required=False, envvar=REGISTRY_URL)
@click.option("--clear", is_flag=True, help="Forget the document that was fetched last.")
@flags(data_dir_option, json_option)
@click.pass_context
def refresh(context: click.Context, source: str | None, clear: bool, data_dir: Path, as_json: bool) -> None:
    """Take versions and further agents from a registry document.

    SOURCE is a file or a URL; without it, what SANDBOX_AGENT_ACP_REGISTRY_URL says. The document is kept in the data
    directory. Nothing is installed by this, and without it everything works with the versions of this release.
    """
    import trio

    from sandbox_actors.catalog import BadCatalog
    from sandbox_actors.catalog.refresh import clear_registry, refresh_registry
    from sandbox_actors.catalog.sources import registry_cache

    cache = registry_cache(data_dir)
    try:
        if clear:
            if context.get_parameter_source("source") is ParameterSource.COMMANDLINE:
                raise click.UsageError("give either SOURCE or --clear")
            there = clear_registry(cache)
            if as_json:
                tell_json({"cleared": there})
            else:
                click.echo("the registry document is forgotten" if there else "there was no registry document")
            return
        if not source:
            raise Failure(f"no registry document is named: give its URL or a file, or set {REGISTRY_URL}")
        changes, skipped = trio.run(refresh_registry, source, cache)
    except BadCatalog as error:
        raise Failure(str(error)) from None
    if as_json:
        tell_json({"path": str(cache), "agents": changes, "skipped": skipped})
    else:
        _tell_refreshed(changes, skipped)


def _catalog(agents_file: Path | None, data_dir: Path) -> Catalog:
    from sandbox_actors.catalog import BadCatalog, Catalog
    from sandbox_actors.catalog.sources import read_agents, registry_cache

    try:
        known = read_agents(agents_file, registry_cache(data_dir), os.environ)
    except BadCatalog as error:
        raise Failure(str(error)) from None
    return Catalog(known, data_dir / "bin" / "agent_processes")


def _summary(catalog: Catalog, agent: Agent) -> dict[str, object]:
    return {
        "id": agent.id,
        "name": agent.name,
        "installed": catalog.command(agent.id) is not None,
        "version": agent.version,
        "from": _how(agent),
        "credentials": agent.credentials,
    }


def _definition(catalog: Catalog, agent: Agent) -> dict[str, object]:
    command = catalog.command(agent.id)
    return {
        **_summary(catalog, agent),
        "description": agent.description,
        "aliases": agent.aliases,
        "origin": agent.origin,
        "distribution": None if agent.distribution is None else _shown_distribution(agent.distribution),
        "packages": agent.packages,
        "builds": agent.builds,
        "after_install": agent.after_install,
        "node": agent.node,
        "python": agent.python,
        "needs": agent.needs,
        "command": None if command is None else list(command),
        "cwd": agent.cwd,
        "env": sorted(agent.env),
        "environment": agent.environment,
        "lacks": agent.lacks,
    }


def _shown_distribution(distribution: Distribution) -> dict[str, object]:
    """A distribution, with the names of its variables in the place of what is in them."""
    shown: dict[str, object] = {
        name: {"package": package.package, "args": package.args, "env": sorted(package.env)}
        for name, package in (("npx", distribution.npx), ("uvx", distribution.uvx))
        if package is not None
    }
    if distribution.binary:
        shown["binary"] = {
            platform: {
                "archive": build.archive,
                "cmd": build.cmd,
                "args": build.args,
                "env": sorted(build.env),
                "sha256": build.sha256,
            }
            for platform, build in distribution.binary.items()
        }
    return shown


def _how(agent: Agent) -> str:
    from sandbox_actors.catalog import MOCK

    if agent.command is not None:
        return "command"
    if agent.distribution is None:
        return "built in" if agent.id == MOCK else "launcher"
    distribution = agent.distribution
    if distribution.npx is not None:
        return "npm"
    way = "download" if distribution.uvx is None else "PyPI"
    return f"{way} and npm" if agent.packages else way


def _few(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" or {more} more" if more > 0 else "")


def _text(value: object) -> str:
    import msgspec

    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, Sequence):
        return shlex.join(cast("Sequence[str]", value))
    return msgspec.json.encode(value).decode() if value else ""


def _tell_refreshed(changes: list[Change], skipped: list[Skipped]) -> None:
    rows = [(change.agent, KINDS[change.kind], _of_change(change)) for change in changes]
    rows += [(entry.entry, "cannot be used", entry.reason) for entry in skipped]
    if rows:
        tell_table(("AGENT", "WHAT", ""), rows)
    else:
        click.echo("the registry document has no agents")


def _of_change(change: Change) -> str:
    if change.reason is not None:
        return change.reason
    return " → ".join(dict.fromkeys(filter(None, (change.before, change.after))))
