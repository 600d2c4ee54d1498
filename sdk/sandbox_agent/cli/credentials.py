"""`sandbox-agent credentials`: what was found of API keys and logins, hidden unless it is asked to be shown."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import Failure, agents_option, data_dir_option, flags, json_option, plain, tell_json

if TYPE_CHECKING:
    from sandbox_actors.credentials import Credential, Credentials

__all__ = ["credentials"]

PLACES = ("CLAUDE_CONFIG_DIR", "CODEX_HOME", "KIMI_SHARE_DIR", "VIBE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
"""Variables that say where this user's logins are; another home has its own."""

home_option = click.option(
    "-d", "--home-dir", type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="The home directory whose logins are looked for.  [default: your own]",
)  # fmt: skip
no_oauth_option = click.option("--no-oauth", is_flag=True, help="API keys only, no tokens of logins.")
reveal_option = click.option("-r", "--reveal", is_flag=True, help="Show secrets whole.")


@click.group()
def credentials() -> None:
    """Find API keys and logins of coding agents.

    They are looked for in the environment, and in the login files of the agents. Nothing is sent anywhere, and nothing
    is shown whole without --reveal.
    """


@credentials.command()
@flags(
    click.option("-a", "--agent", metavar="AGENT", help="Only what this agent would use, by id or alias."),
    click.option("-p", "--provider", metavar="PROVIDER", help="Only what is found for this provider."),
    home_option,
    no_oauth_option,
    reveal_option,
    agents_option,
    data_dir_option,
    json_option,
)
def extract(
    *,
    agent: str | None,
    provider: str | None,
    home_dir: Path | None,
    no_oauth: bool,
    reveal: bool,
    agents: Path | None,
    data_dir: Path,
    as_json: bool,
) -> None:
    """Print what was found: as JSON, or one secret on one line with --agent or --provider.

    \b
    Examples:
      sandbox-agent credentials extract
      sandbox-agent credentials extract --provider openai --reveal
      sandbox-agent credentials extract --agent claude --json

    Exit code 1: nothing was found for that agent or provider.
    """
    if agent is not None and provider is not None:
        raise click.UsageError("give --agent or --provider, not both")
    found = _discover(home_dir, oauth=not no_oauth)
    if agent is None and provider is None:
        told = {credential.provider: _told(credential, reveal) for credential in reversed(found.all)}
        named = {name: told.pop(name, None) for name in ("anthropic", "openai")}
        tell_json({**named, "other": dict(sorted(told.items()))})
        return
    if provider is not None:
        wanted, whom = [provider], f"provider {provider}"
    else:
        wanted, whom = _providers(agent or "", agents, data_dir), f"agent {agent}"
    credential = next((one for name in wanted if (one := found.find(name)) is not None), None)
    if credential is None:
        raise Failure(f"no credentials found for {whom}")
    if as_json:
        tell_json(_told(credential, reveal))
    else:
        click.echo(credential.secret.reveal() if reveal else credential.secret.redacted)


@credentials.command("extract-env")
@flags(
    click.option("-e", "--export", is_flag=True, help="Put 'export' in front of each."),
    home_option,
    no_oauth_option,
    reveal_option,
)
def extract_env(*, export: bool, home_dir: Path | None, no_oauth: bool, reveal: bool) -> None:
    """Print what was found as environment variables, quoted for a shell.

    Without --reveal every line is a comment, so that a shell which reads them sets nothing wrong. The token of a login
    goes by its own variable, never by that of an API key; a login without such a variable is told of on stderr.

    \b
    Examples:
      sandbox-agent credentials extract-env
      eval "$(sandbox-agent credentials extract-env --export --reveal)"
    """
    from datetime import UTC, datetime

    found = _discover(home_dir, oauth=not no_oauth)
    for provider in found.providers:
        credential = found.find(provider)
        assert credential is not None
        if credential.expired(datetime.now(UTC)):
            click.echo(f"# {plain(provider)}: the token of {credential.source} has to be renewed by it first", err=True)
            continue
        names = _variables(credential)
        if not names:
            click.echo(f"# {plain(provider)}: no variable takes the login of {credential.source}", err=True)
        for name in names:
            value = shlex.quote(credential.secret.reveal()) if reveal else credential.secret.redacted
            click.echo(f"{'' if reveal else '# '}{'export ' if export else ''}{name}={value}")
    if not reveal and found.all:
        click.echo("# secrets are hidden; --reveal shows them", err=True)


def _discover(home: Path | None, *, oauth: bool) -> Credentials:
    from sandbox_actors.credentials import discover

    environment = {name: value for name, value in os.environ.items() if home is None or name not in PLACES}
    try:
        found = discover(home or Path.home(), environment, oauth=oauth)
    except RuntimeError:
        raise Failure("there is no home directory: set HOME, or give --home-dir") from None
    for problem in found.problems:
        click.echo(f"sandbox-agent: passed over {plain(problem)}", err=True)
    return found


def _providers(agent: str, agents_file: Path | None, data_dir: Path) -> list[str]:
    """The providers that an agent works with."""
    from sandbox_actors.catalog import BadCatalog, Catalog
    from sandbox_actors.catalog.sources import read_agents
    from sandbox_actors.errors import UnsupportedAgent

    try:
        known = read_agents(agents_file, data_dir / "registry.json", os.environ)
        providers = Catalog(known, data_dir / "bin" / "agent_processes").agent(agent).credentials
    except (BadCatalog, UnsupportedAgent) as error:
        raise Failure(str(error)) from None
    if not providers:
        raise Failure(f"the agent {agent} names no provider whose credentials it needs")
    return providers


def _told(credential: Credential, reveal: bool) -> dict[str, str | bool]:
    return {
        "provider": credential.provider,
        "source": credential.source,
        "auth_type": credential.kind,
        "api_key": credential.secret.reveal() if reveal else credential.secret.redacted,
        "redacted": not reveal,
    }


def _variables(credential: Credential) -> tuple[str, ...]:
    """The variables by which a credential is handed on; none where no program takes such a login from a variable."""
    from sandbox_actors.credentials import PROVIDERS

    provider = PROVIDERS.get(credential.provider)
    own = (credential.where,) if credential.source == "environment" else ()
    if credential.kind == "oauth":
        handed = provider.token_exported if provider is not None else None
        return own or (() if handed is None else (handed,))
    if provider is not None:
        return provider.exported or own or provider.keys[:1]
    name = re.sub(r"[^A-Z0-9]", "_", credential.provider.upper())
    return (f"{name}_API_KEY" if name[:1].isalpha() else f"_{name}_API_KEY",)
