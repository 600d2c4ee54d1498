"""How the server gets into a sandbox that commands can be run in, and is started there.

    ~/.sandbox-agent/       mode 0700: the server's user alone looks in
        token               of the server
        env                 its environment, as assignments of a shell
        venv/               the server, where it was installed by us

Secrets travel as files; no command line has one. Started by `sandbox-agent daemon start`, the server outlives the call
that starts it, and starting it again is harmless.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, assert_never

import anyio

from ..errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .machine import Machine

__all__ = ["Install", "Pip", "Preinstalled", "Server", "Wheel", "boot", "ensure", "environment_file", "token_of"]

QUICKLY = 30.0
"""Seconds for what takes a moment, over a network."""

INSTALL_WITHIN = 600.0
"""Seconds to fetch and install a few dozen packages on a small machine."""

START_WITHIN = 90.0
"""Seconds: the command itself gives a server 30, and as long to end one that does not answer."""

LARGEST_COMPLAINT = 2000
"""Characters of what a command said that failed; the end of it, where the reason stands."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

OURS = frozenset({"SANDBOX_AGENT_TOKEN", "SANDBOX_AGENT_TOKEN_FILE"})
"""Variables that would be a second token."""


@dataclass(frozen=True, slots=True)
class Pip:
    """Installed by pip, from where the sandbox's pip gets its packages.

    Attributes:
      requirement: as pip takes it.
      python: the interpreter in the sandbox, 3.11.4 or newer.
    """

    requirement: str = "trio-sandbox-agent"
    python: str = "python3"


@dataclass(frozen=True, slots=True)
class Wheel:
    """Installed from a wheel of this machine, which is uploaded; what it depends on comes by pip."""

    path: Path
    python: str = "python3"


@dataclass(frozen=True, slots=True)
class Preinstalled:
    """The image has it."""

    command: str = "sandbox-agent"


Install: TypeAlias = Pip | Wheel | Preinstalled


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server of a sandbox.

    Attributes:
      install: how it gets there.
      port: that it listens on, inside.
      env: variables of its environment: keys for agents, and its own options (`SANDBOX_AGENT_…`, see docs/server.md).
      agents: installed while the sandbox is made; others are installed on first use.
    """

    install: Install = field(default_factory=Pip)
    port: int = 2468
    env: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    agents: tuple[str, ...] = ()


async def boot(machine: Machine, server: Server, token: str) -> None:
    """Install the server and start it.

    Raises:
      ProviderError: what the sandbox said to that.
    """
    environment = environment_file(server.env)
    place = await _place(machine)
    await machine.write(f"{place}/token", token.encode())
    await machine.write(f"{place}/env", environment)
    await _install(machine, server.install, place)
    for agent in server.agents:
        await _do(machine, _script(place, server, f"install-agent {shlex.quote(agent)}"), INSTALL_WITHIN)
    await ensure(machine, server)


async def ensure(machine: Machine, server: Server) -> None:
    """Start the server unless it runs and answers; one that does not answer is ended first.

    Raises:
      ProviderError: it does not start; with its own words.
    """
    place = await _place(machine)
    start = f"daemon start --replace --host 0.0.0.0 --port {server.port}"
    await _do(machine, _script(place, server, start), START_WITHIN)


async def token_of(machine: Machine) -> str | None:
    """The token that the server of this sandbox was booted with, for an application that comes back.

    Raises:
      ProviderError: the sandbox cannot be asked.
    """
    ran = await machine.run('cat "$HOME/.sandbox-agent/token"', within=QUICKLY)
    return ran.output.strip() or None if ran.code == 0 else None


async def _place(machine: Machine) -> str:
    """The absolute path of our directory, which is there."""
    script = 'umask 077; mkdir -p "$HOME/.sandbox-agent" && cd "$HOME/.sandbox-agent" && chmod 700 . && pwd'
    return (await _do(machine, script, QUICKLY)).removesuffix("\n")


async def _install(machine: Machine, install: Install, place: str) -> None:
    match install:
        case Preinstalled():
            return
        case Pip(requirement, python):
            what = requirement
        case Wheel(path, python):
            what = f"{place}/{path.name}"
            try:
                wheel = await anyio.Path(path).read_bytes()
            except OSError as error:
                raise ProviderError(f"cannot read the wheel {path}: {error.strerror}") from None
            await machine.write(what, wheel)
        case _:
            assert_never(install)
    await _do(
        machine,
        f"cd {shlex.quote(place)} && {shlex.quote(python)} -m venv venv && venv/bin/python -m pip install --quiet "
        f"--no-input --disable-pip-version-check {shlex.quote(what)}",
        INSTALL_WITHIN,
    )


def _script(place: str, server: Server, arguments: str) -> str:
    """Runs our command with the server's environment and token."""
    install, quoted = server.install, shlex.quote(place)
    command = shlex.quote(install.command) if isinstance(install, Preinstalled) else f"{quoted}/venv/bin/sandbox-agent"
    # What the image or the provider sets goes for the server, but for a token: there is one already.
    token = f"unset SANDBOX_AGENT_TOKEN; SANDBOX_AGENT_TOKEN_FILE={quoted}/token"
    return f"set -a; . {quoted}/env; {token}; set +a; exec {command} {arguments}"


def environment_file(variables: Mapping[str, str]) -> bytes:
    """A file that sets the server's variables, for a shell.

    Raises:
      ProviderError: there is one that cannot be set, or that is ours to set.
    """
    for name, value in sorted(variables.items()):
        if not NAME.fullmatch(name):
            raise ProviderError(f"{name!r} is no name of an environment variable")
        if name in OURS:
            raise ProviderError(f"{name} is chosen when the sandbox is made: leave it out of the server's environment")
        if "\0" in value:
            raise ProviderError(f"the value of {name} has a NUL character")
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(variables.items())).encode()


async def _do(machine: Machine, script: str, within: float) -> str:
    ran = await machine.run(script, within=within)
    if ran.code:
        said = "\n".join(filter(None, [ran.output.strip(), ran.errors.strip()]))[-LARGEST_COMPLAINT:]
        raise ProviderError(f"the sandbox's shell ended with {ran.code}: {said or 'it said nothing'}")
    return ran.output
