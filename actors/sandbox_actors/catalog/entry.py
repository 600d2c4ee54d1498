"""One agent of the catalog, in the shape of the ACP registry and with what the registry does not say.

`id`, `name`, `version`, `description` and `distribution` are the registry's own (ACP registry, format of 2026). The
rest is what it takes to install that agent without running other people's install scripts, and to tell of it. Values
that could not work, or would mean something else to a shell or to npm, are refused wherever an agent is made.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec
from packaging.specifiers import SpecifierSet

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "AGENT_ID",
    "BAD_PROXY",
    "Agent",
    "BadCatalog",
    "Binary",
    "Distribution",
    "Native",
    "Npx",
    "Origin",
    "Uvx",
    "is_loopback",
]

AGENT_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A name that a shell can export."""

PYPI_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")

SHA256 = re.compile(r"[0-9a-f]{64}")

PLATFORMS = frozenset(
    f"{system}-{machine}" for system in ("darwin", "linux", "windows") for machine in ("aarch64", "x86_64")
)

BAD_PROXY = "a variable such as ALL_PROXY names a proxy that cannot be used for downloads: use one with an http URL"

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Origin: TypeAlias = Literal["shipped", "registry", "file", "environment"]
"""Which layer has said how an agent is had: this package, a registry document, the user's file, or a variable."""


class BadCatalog(Exception):
    """A file, document or variable that defines agents cannot be used. The message says what to mend."""


class _Package(msgspec.Struct, forbid_unknown_fields=True):
    package: str
    args: list[str] = []
    env: dict[str, str] = {}

    def __post_init__(self) -> None:
        _check_package(self.package)
        _check_arguments(self.args)
        _check_variables(self.env)


class Npx(_Package):
    """An npm package. `package` is `name@version`; the version may be missing in what users and registries give."""


class Uvx(_Package):
    """A PyPI package. `package` is a requirement such as `name==version` or `name[extra]==version`."""


class Binary(msgspec.Struct, forbid_unknown_fields=True):
    """An archive (zip, tar.gz, tgz, tar.bz2, tbz2, tar.xz) or a bare program.

    Attributes:
      archive: its URL; https, or http on loopback, or file.
      cmd: the program, by its path within the archive.
      sha256: of the archive, in hexadecimal.
    """

    archive: str
    cmd: str
    args: list[str] = []
    env: dict[str, str] = {}
    sha256: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.archive)
        _ = parts.port  # which raises ValueError where it is none
        allowed = parts.scheme in ("https", "file") or (parts.scheme == "http" and is_loopback(parts.hostname))
        if not allowed or (parts.scheme == "https" and not parts.hostname) or not self.archive.isprintable():
            raise ValueError("archive must be a URL: https, file, or http on loopback")
        if not self.cmd.isprintable() or self.cmd.startswith("/") or ".." in self.cmd.replace("\\", "/").split("/"):
            raise ValueError("cmd must be a path within the archive")
        if not self.cmd.removeprefix("./"):
            raise ValueError("cmd must name a program")
        if self.sha256 is not None:
            self.sha256 = self.sha256.lower()
            if not SHA256.fullmatch(self.sha256):
                raise ValueError("sha256 must have 64 hexadecimal digits")
        _check_arguments(self.args)
        _check_variables(self.env)


class Distribution(msgspec.Struct, forbid_unknown_fields=True):
    """How an agent is had. Where there are several ways, npx is taken before uvx, and uvx before binary.

    Attributes:
      binary: by platform: `{darwin,linux,windows}-{aarch64,x86_64}`.
    """

    npx: Npx | None = None
    uvx: Uvx | None = None
    binary: dict[str, Binary] = {}

    def __post_init__(self) -> None:
        if self.npx is None and self.uvx is None and not self.binary:
            raise ValueError("distribution needs npx, uvx or binary")
        if unknown := sorted(self.binary.keys() - PLATFORMS):
            raise ValueError(f"there is no platform {unknown[0]!r}: use one of {', '.join(sorted(PLATFORMS))}")


class Native(msgspec.Struct, forbid_unknown_fields=True):
    """The command line tool behind an adapter.

    Attributes:
      program: its name on PATH and in what is installed.
      package: the npm package (without version) among `packages` that brings it, where one does: `agentVersion` of an
        install request means this one.
    """

    program: str
    package: str | None = None


class Agent(msgspec.Struct, forbid_unknown_fields=True):
    """One agent.

    Attributes:
      version: of the distribution; None: whatever its package spec says.
      distribution: None: there is nothing to install.
      command: run as it is, in the place of anything installed; the program is looked up on PATH.
      env: variables that the agent gets beside those that it may inherit; also those of `command`.
      cwd: its working directory; None is the daemon's own.
      aliases: other ids by which clients, registries and older releases know it.
      program: the executable within the install; None: the one that npx or uvx would run.
      packages: further npm packages beside the distribution's, pinned, in the same prefix.
      builds: PyPI packages that have no wheel and may therefore be built from source, which runs code of theirs.
      after_install: a command run once in the npm prefix, since install scripts are off.
      verify_env: variables under which a fresh install is asked whether it works, where it starts only with a
        configuration; never those of a session.
      on_path: a command that is as good as an install where its program is on PATH.
      node: the lowest major version of Node.js that runs it.
      python: which Python runs it, as a version specifier (PEP 440).
      needs: programs that must be on PATH and that nothing here can install, each with a sentence where to get it.
      native: see `Native`.
      credentials: names of the providers whose credentials let it work; empty: it needs none. One is enough.
      environment: patterns (`*` at the end) of variables of its own that it inherits from the daemon.
      lacks: members of the public wire's capabilities that are false for it.
      origin: the layer that has said how it is had; no file can set it.
    """

    id: str
    name: str
    version: str | None = None
    description: str = ""
    distribution: Distribution | None = None
    command: list[str] | None = None
    env: dict[str, str] = {}
    cwd: str | None = None
    aliases: list[str] = []
    program: str | None = None
    packages: list[str] = []
    builds: list[str] = []
    after_install: list[str] | None = None
    verify_env: dict[str, str] = {}
    on_path: list[str] | None = None
    node: int | None = None
    python: str | None = None
    needs: dict[str, str] = {}
    native: Native | None = None
    credentials: list[str] = []
    environment: list[str] = []
    lacks: list[str] = []
    origin: Origin = "shipped"

    def __post_init__(self) -> None:
        SpecifierSet(self.python or "")  # which raises ValueError, and says what it could not read
        for name, command in (
            ("command", self.command),
            ("on_path", self.on_path),
            ("after_install", self.after_install),
        ):
            if command is not None:
                if not command or not command[0]:
                    raise ValueError(f"{name} must name a program")
                _check_arguments(command)
        for package in self.packages:
            _check_package(package)
        for package in self.builds:
            if not PYPI_NAME.fullmatch(package):
                raise ValueError(f"builds has {package!r}, which is no name of a PyPI package")
        for alias in self.aliases:
            if not AGENT_ID.fullmatch(alias):
                raise ValueError(f"the alias {alias!r} is no id: use lower case letters, digits, '.', '_', '-'")
        if self.program is not None and (not self.program or "\0" in self.program):
            raise ValueError("program must name a program")
        if self.native is not None and (not self.native.program or "/" in self.native.program):
            raise ValueError("native must name a program, without its folder")
        if self.node is not None and self.node < 1:
            raise ValueError("node must be a major version of Node.js")
        _check_variables(self.env)
        _check_variables(self.verify_env)


def is_loopback(host: str | None) -> bool:
    """Whether a URL's host is this machine for certain."""
    return host in LOOPBACK


def _check_package(spec: str) -> None:
    # Neither npm nor uv may take it for an option, and a log must not be broken by it.
    if not spec or spec.startswith("-") or not spec.isprintable() or spec != spec.strip():
        raise ValueError(f"{spec!r} is no package")


def _check_arguments(arguments: Sequence[str]) -> None:
    if any("\0" in argument for argument in arguments):
        raise ValueError("an argument cannot have a NUL in it")


def _check_variables(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        if not VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a variable")
        if "\0" in value:
            raise ValueError(f"the variable {name} has a NUL in its value")
