"""`sandbox-agent install-agent`: agents, brought into the data directory."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import click

from .options import Failure, agents_option, data_dir_option, env, flags, json_option, plain, tell_json, tell_table

if TYPE_CHECKING:
    from pathlib import Path

    from sandbox_actors.catalog import Catalog
    from sandbox_actors.installer import Outcome
    from sandbox_supervisor import ActorError

    from .local_install import Ended

__all__ = ["install_agent"]

LINES_SHOWN = 15
"""Of the output of a tool that failed."""


@click.command("install-agent")
@flags(
    click.argument("agent", required=False),
    click.option("--all", "everything", is_flag=True, help="Install every agent that can be installed here."),
    click.option("-r", "--reinstall", is_flag=True, help="Install it again where it is installed already."),
    click.option("--agent-version", metavar="VERSION", help="Of the agent's own command line tool."),
    click.option("--agent-process-version", metavar="VERSION", help="Of the program that speaks ACP."),
    click.option("--offline", is_flag=True, **env("OFFLINE"), help="Install nothing: only tell what is there."),
    data_dir_option,
    agents_option,
    json_option,
)
def install_agent(
    *,
    agent: str | None,
    everything: bool,
    reinstall: bool,
    agent_version: str | None,
    agent_process_version: str | None,
    offline: bool,
    data_dir: Path,
    agents: Path | None,
    as_json: bool,
) -> None:
    """Install AGENT, or all agents, without a server.

    What was installed before works until the new install does, whatever happens in between. With --all a failure ends
    no other install, and the exit code is 1 only if an agent of npm or PyPI could not be installed though all that it
    needs was there.
    """
    from sandbox_http.logs import set_up_logs

    from .local_install import Wanted, catalog_of, install_here

    if agent is None and not everything:
        raise click.UsageError("give an AGENT, or --all")
    if agent is not None and everything:
        raise click.UsageError("give an AGENT or --all, not both")
    if everything and (agent_version is not None or agent_process_version is not None):
        raise click.UsageError("versions are of one agent: they do not go with --all")
    set_up_logs("error", as_json=False)
    catalog = catalog_of(data_dir, agents)
    ids = catalog.known() if agent is None else [_known(catalog, agent)]
    ended = install_here(catalog, Wanted(ids, reinstall, agent_version, agent_process_version, offline))
    if agent is None:
        _tell_all(catalog, ended, as_json=as_json)
    else:
        _tell_one(ids[0], ended[ids[0]], as_json=as_json)


def _known(catalog: Catalog, agent: str) -> str:
    """The id of an agent that goes by this id or alias."""
    from sandbox_actors.errors import UnsupportedAgent

    try:
        return catalog.resolve(agent)
    except UnsupportedAgent as error:
        raise Failure(str(error)) from None


def _tell_one(id: str, ended: Ended, *, as_json: bool) -> None:
    from sandbox_actors.installer import Outcome

    if not isinstance(ended, Outcome):
        for line in _stderr(ended):
            click.echo(f"  {plain(line)}", err=True)
        raise Failure(str(ended))
    if as_json:
        tell_json(_document(ended))
    elif ended.already_installed:
        click.echo(f"{id} is already installed")
    else:
        rows = [(each.kind, each.version or "-", each.source, each.path) for each in ended.artifacts]
        tell_table(("INSTALLED", "VERSION", "SOURCE", "PATH"), rows)


def _tell_all(catalog: Catalog, ended: dict[str, Ended], *, as_json: bool) -> None:
    """Tell how each has ended, and end with code 1 where one failed that should not have."""
    from sandbox_actors.installer import Outcome

    if as_json:
        tell_json(
            {
                "agents": {
                    id: _document(one) if isinstance(one, Outcome) else _error(id, one) for id, one in ended.items()
                }
            }
        )
    else:
        tell_table(
            ("AGENT", "RESULT", "VERSION OR REASON"), [(id, *_row(catalog, id, one)) for id, one in ended.items()]
        )
    if any(not isinstance(one, Outcome) and _should_work(catalog, id) for id, one in ended.items()):
        sys.exit(1)


def _row(catalog: Catalog, id: str, ended: Ended) -> tuple[str, str]:
    from sandbox_actors.installer import Outcome
    from sandbox_actors.installer.place import Place

    if isinstance(ended, Outcome):
        manifest = Place(catalog.launchers, id).installed()
        version = manifest.version if manifest is not None else None
        return "already there" if ended.already_installed else "installed", version or ""
    return "failed" if _should_work(catalog, id) else "not installed", _message(id, ended)


def _should_work(catalog: Catalog, id: str) -> bool:
    """Whether an agent is one of npm or PyPI, and nothing is missing here that cannot be installed."""
    agent = catalog.agent(id)
    if agent.distribution is None or (agent.distribution.npx is None and agent.distribution.uvx is None):
        return False
    path = catalog.environment.get("PATH")
    return all(shutil.which(program, path=path) is not None for program in agent.needs)


def _document(outcome: Outcome) -> dict[str, object]:
    """As the public command prints it: the words of the HTTP API, in CamelCase."""
    return {
        "alreadyInstalled": outcome.already_installed,
        "artifacts": [
            {
                "kind": _camel(artifact.kind),
                "path": artifact.path,
                "source": _camel(artifact.source),
                "version": artifact.version,
            }
            for artifact in outcome.artifacts
        ],
    }


def _camel(word: str) -> str:
    return "".join(part.capitalize() for part in word.split("_"))


def _error(id: str, error: ActorError) -> dict[str, object]:
    from sandbox_actors.errors import InstallFailed, as_refusal

    reason = error.reason if isinstance(error, InstallFailed) else as_refusal(error).name
    told: dict[str, object] = {"reason": reason, "message": _message(id, error)}
    if stderr := _stderr(error):
        told["stderr"] = stderr
    return {"error": told}


def _message(id: str, error: ActorError) -> str:
    return str(error).removeprefix(f"install failed: {id}: ")


def _stderr(error: ActorError) -> list[str]:
    from sandbox_actors.errors import InstallFailed

    return error.stderr[-LINES_SHOWN:] if isinstance(error, InstallFailed) else []
