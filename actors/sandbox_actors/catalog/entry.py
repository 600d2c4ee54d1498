"""One agent of the catalog, in the shape of the ACP registry and with what the registry does not say.

`id`, `name`, `version`, `description` and `distribution` are the registry's own (ACP registry, format of 2026). The
rest is what it takes to install that agent without running other people's install scripts, and to tell of it.
"""

from __future__ import annotations

import re

import msgspec

__all__ = ["AGENT_ID", "Agent", "BadCatalog", "Binary", "Distribution", "Native", "Npx", "Uvx"]

AGENT_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class BadCatalog(Exception):
    """A file, document or variable that defines agents cannot be used. The message says what to mend."""


class Npx(msgspec.Struct, forbid_unknown_fields=True):
    """An npm package. `package` is `name@version`; the version may be missing in what users and registries give."""

    package: str
    args: list[str] = []
    env: dict[str, str] = {}


class Uvx(msgspec.Struct, forbid_unknown_fields=True):
    """A PyPI package. `package` is a requirement such as `name==version` or `name[extra]==version`."""

    package: str
    args: list[str] = []
    env: dict[str, str] = {}


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


class Distribution(msgspec.Struct, forbid_unknown_fields=True):
    """How an agent is had. Where there are several ways, npx is taken before uvx, and uvx before binary.

    Attributes:
      binary: by platform: `{darwin,linux,windows}-{aarch64,x86_64}`.
    """

    npx: Npx | None = None
    uvx: Uvx | None = None
    binary: dict[str, Binary] = {}


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
      after_install: a command run once in the npm prefix, since install scripts are off.
      on_path: a command that is as good as an install where its program is on PATH.
      node: the lowest major version of Node.js that runs it.
      python: which Python runs it, as a version specifier (PEP 440).
      needs: programs that must be on PATH and that nothing here can install, each with a sentence where to get it.
      native: see `Native`.
      credentials: names of the providers whose credentials let it work; empty: it needs none. One is enough.
      environment: patterns (`*` at the end) of variables of its own that it inherits from the daemon.
      lacks: members of the public wire's capabilities that are false for it.
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
    after_install: list[str] | None = None
    on_path: list[str] | None = None
    node: int | None = None
    python: str | None = None
    needs: dict[str, str] = {}
    native: Native | None = None
    credentials: list[str] = []
    environment: list[str] = []
    lacks: list[str] = []
