"""The agents: whether their definitions are valid, what is installed of them runs, and has credentials."""

from __future__ import annotations

import os
import shutil
import tempfile
from typing import TYPE_CHECKING

import trio

from sandbox_actors.catalog import BadCatalog, Catalog
from sandbox_actors.catalog.catalog import MOCK
from sandbox_actors.catalog.sources import read_agents, registry_cache
from sandbox_actors.credentials import discover, home_of
from sandbox_actors.installer.place import Place
from sandbox_actors.probe import ProbeFailed, probe

from .finding import Finding
from .options import program_path

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sandbox_actors.catalog import Agent
    from sandbox_actors.credentials import Credentials
    from sandbox_actors.installer.site import Site

__all__ = ["check_agents"]

PROVIDERS_SHOWN = 3
"""Some agents work with a dozen."""

PROBES_AT_ONCE = 2
"""Agents that are started at the same time: each is a process of some hundred megabytes."""


async def check_agents(
    data_dir: Path, agents_file: Path | None, environment: Mapping[str, str], site: Site, *, start: bool
) -> list[Finding]:
    """Definitions first, then each agent that is installed.

    Args:
      start: whether each is started, and asked what it is.
    """
    agents, findings = _definitions(data_dir, agents_file, environment)
    launchers = data_dir / "bin" / "agent_processes"
    catalog = Catalog(agents, launchers, environment, program=program_path())
    credentials = discover(home_of(environment), environment)
    try:
        known = catalog.known()
    except OSError as error:
        message = f"{error.filename} cannot be looked at: {error.strerror}"
        return [*findings, Finding("agents", "failed", message, "run the server and this command as the same user")]
    about: dict[str, Finding] = {}
    for id in known:
        if (command := catalog.command(id)) is not None:
            about[id] = _agent(catalog, id, command, credentials)
        elif (launcher := catalog.launcher(id)) is not None:
            message = f"its launcher {launcher} is not executable"
            about[id] = Finding(f"agent {id}", "failed", message, f"chmod +x {launcher}")
    if start:
        await _start(catalog, site, about)
    findings += about.values()
    missing = [id for id in known if id not in about]
    if missing:
        shown = f"{', '.join(missing)}: installed at their first use, or by 'sandbox-agent install-agent'"
        findings.append(Finding("other agents", "ok", shown))
    for problem in credentials.problems:
        findings.append(Finding("credentials", "warning", problem, "log in again with that agent, or remove the file"))
    return findings


def _definitions(
    data_dir: Path, agents_file: Path | None, environment: Mapping[str, str]
) -> tuple[dict[str, Agent], list[Finding]]:
    """All agents that can be read, and how each layer stands."""
    findings: list[Finding] = []
    registry: Path | None = registry_cache(data_dir)
    try:
        read_agents(None, registry)
    except BadCatalog as error:
        findings.append(Finding("registry document", "failed", str(error), "sandbox-agent agents refresh --clear"))
        registry = None
    try:
        read_agents(agents_file)
    except BadCatalog as error:
        findings.append(Finding("agents file", "failed", str(error), "mend it: the server does not start with it"))
        agents_file = None
    try:
        return read_agents(agents_file, registry, environment), findings
    except BadCatalog as error:
        hint = "mend the variable: the server does not start with it"
        findings.append(Finding("agents by environment", "failed", str(error), hint))
        return read_agents(agents_file, registry), findings


def _agent(catalog: Catalog, id: str, command: tuple[str, ...], credentials: Credentials) -> Finding:
    """How it stands with one that has a command."""
    agent, name, place = catalog.agent(id), f"agent {id}", Place(catalog.launchers, id)
    program, *arguments = command
    message = program
    if not arguments and program == str(place.launcher):
        manifest = place.installed()
        if manifest is None and not place.is_users_own:
            hint = f"sandbox-agent install-agent {id} --reinstall"
            return Finding(name, "failed", "its install is damaged: the launcher is there, its program is not", hint)
        if manifest is not None:
            message = f"{manifest.version or 'installed'} at {manifest.program}"
        elif (trouble := _trouble_of(program, catalog.environment)) is not None:
            return Finding(name, "failed", trouble, f"mend the script {place.launcher}, or remove it")
    elif id == MOCK and agent.command is None:
        message = "built in"
    elif (trouble := _trouble_of(program, catalog.environment)) is not None:
        return Finding(name, "failed", trouble, "mend its definition, or install the program")
    for needed, where in agent.needs.items():
        if _found(needed, catalog.environment) is None:
            return Finding(name, "failed", f"{message}; it needs {needed!r}, which is not on PATH", where)
    if not credentials.available(agent.credentials):
        some, more = agent.credentials[:PROVIDERS_SHOWN], len(agent.credentials) > PROVIDERS_SHOWN
        wanted = " or ".join([*some, *(["another provider"] if more else [])])
        hint = f"log in with {id}, or set an API key for {wanted} in the server's environment"
        return Finding(name, "warning", f"{message}; no credentials for {wanted}", hint)
    usable = [credentials.find(provider) for provider in agent.credentials]
    told = ", ".join(f"{each.provider} ({each.source})" for each in usable if each is not None)
    return Finding(name, "ok", f"{message}; credentials: {told}" if told else message)


def _trouble_of(program: str, environment: Mapping[str, str]) -> str | None:
    """Why a program cannot be run, as far as can be seen without running it."""
    if (found := _found(program, environment)) is None:
        return f"{program} is not there, or may not be run"
    try:
        with open(found, "rb") as file:
            line = file.readline(256)
    except OSError:
        return None  # it may be run and not be read
    interpreter = line[2:].split()[:1] if line.startswith(b"#!") else []
    if interpreter and not os.access(interpreter[0], os.X_OK):
        return f"{program} needs {os.fsdecode(interpreter[0])}, which is not there"
    return None


def _found(program: str, environment: Mapping[str, str]) -> str | None:
    return shutil.which(program, path=environment.get("PATH"))


async def _start(catalog: Catalog, site: Site, about: dict[str, Finding]) -> None:
    """Start each agent that seems to be in order, and put down what does not answer."""
    limit = trio.CapacityLimiter(PROBES_AT_ONCE)

    async def start(id: str) -> None:
        async with limit:
            try:
                with tempfile.TemporaryDirectory(prefix="sandbox-agent-doctor-") as scratch:
                    await probe(catalog.launch(id), cookie=site.cookie(), reaper=site.reaper, cwd=scratch)
            except ProbeFailed as failure:
                last = f"; its last words: {failure.stderr[-1]}" if failure.stderr else ""
                message = catalog.redactor().redact(f"it does not work: {failure}{last}", cut=True)
                hint = f"sandbox-agent install-agent {id} --reinstall"
                about[id] = Finding(f"agent {id}", "failed", message, hint)

    async with trio.open_nursery() as nursery:
        for id, finding in about.items():
            if finding.status != "failed":
                nursery.start_soon(start, id)
