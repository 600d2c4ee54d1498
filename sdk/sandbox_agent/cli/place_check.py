"""The directory of the data, and the address that a server would listen on."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox_actors.installer.trouble import Trouble
from sandbox_http.config import BadConfig, Config
from sandbox_http.serving import listen

from .finding import Finding
from .health import look, url_of

if TYPE_CHECKING:
    from sandbox_actors.installer.site import Site

__all__ = ["check_address", "check_directory", "check_journals"]

LITTLE = 2 << 30
"""Bytes of free disk below which a few more agents fill it: one takes up to 400 MB."""

TOO_LITTLE = 200 << 20
"""Bytes of free disk below which hardly anything can be installed."""

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH

SHORT_TOKEN = 16
"""Characters of a token that can be guessed."""

SQLITE = b"SQLite format 3\0"
"""What a database file begins with."""


async def check_directory(data_dir: Path, site: Site) -> list[Finding]:
    """The data directory: whether it is there, ours, and lets programs run; and how much room there is."""
    name, existing = "data directory", data_dir
    hint = "give another one with --data-dir or SANDBOX_AGENT_DATA_DIR, or mend its permissions"
    try:
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        if not existing.is_dir():
            return [Finding(name, "failed", f"{existing} is no directory", hint)]
    except OSError as error:
        return [Finding(name, "failed", f"{existing} cannot be looked at: {error.strerror}", hint)]
    try:
        with tempfile.TemporaryDirectory(prefix=".sandbox-agent-doctor-", dir=existing) as scratch:
            runs = await _runs(Path(scratch), site)
    except OSError as error:
        return [Finding(name, "failed", f"nothing can be written to {existing}: {error.strerror}", hint)]
    findings = [_directory(data_dir, existing)]
    if not runs:
        message = f"programs in {existing} cannot be run: it may be mounted with noexec"
        findings.append(Finding("programs", "failed", message, "mount it without noexec, or give another --data-dir"))
    return [*findings, _disk(existing)]


def _directory(data_dir: Path, existing: Path) -> Finding:
    if existing != data_dir:
        return Finding("data directory", "ok", f"{data_dir} will be made in {existing}")
    if data_dir.stat().st_mode & OTHERS_MAY_WRITE:
        message = f"others may write to {data_dir}, and what is in it is run as you"
        return Finding("data directory", "warning", message, f"chmod go-w {data_dir}")
    return Finding("data directory", "ok", f"{data_dir}")


def _disk(existing: Path) -> Finding:
    free = shutil.disk_usage(existing).free
    shown = f"{free / 1e9:.1f} GB free" if free >= 1e9 else f"{free / 1e6:.0f} MB free"
    if free >= LITTLE:
        return Finding("disk", "ok", shown)
    hint = "free some space: one agent takes up to 400 MB, and sessions are journaled"
    return Finding("disk", "failed" if free < TOO_LITTLE else "warning", f"{shown} in {existing}", hint)


async def _runs(scratch: Path, site: Site) -> bool:
    """Whether a program that is written there can be run."""
    script = scratch / "program"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o700)
    try:
        return (await site.tool([str(script)], env=site.tool_environment())).code == 0
    except Trouble:
        return False


def check_journals(data_dir: Path) -> list[Finding]:
    """The states of the servers that have run with this data directory."""
    directory, findings = data_dir / "daemons", list[Finding]()
    try:
        states = sorted(path for path in directory.iterdir() if path.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return [Finding("journals", "ok", "no server has run with this data directory yet")]
    except OSError as error:
        hint = "run the server and this command as the same user"
        return [Finding("journals", "failed", f"{directory} cannot be read: {error.strerror}", hint)]
    for state in states:
        try:
            findings += _journal(state)
        except OSError as error:
            hint = "run the server and this command as the same user"
            findings.append(Finding("journals", "failed", f"{state} cannot be read: {error.strerror}", hint))
    return findings or [Finding("journals", "ok", f"all {len(states)} private, readable and whole")]


def _journal(state: Path) -> list[Finding]:
    findings: list[Finding] = []
    if stat.S_IMODE(state.stat().st_mode) & 0o077:
        message = f"others can look into {state}, where conversations are"
        findings.append(Finding("journals", "warning", message, f"chmod 700 {state}"))
    if not os.access(state, os.W_OK | os.X_OK):
        hint = "run the server and this command as the same user"
        findings.append(Finding("journals", "failed", f"{state} cannot be written to", hint))
    journal = state / "journal.db"
    if journal.exists():
        with journal.open("rb") as file:
            head = file.read(len(SQLITE))
        if head and head != SQLITE:
            hint = "the next start of the server puts it aside and begins a new one"
            findings.append(Finding("journals", "warning", f"{journal} is damaged", hint))
    if damaged := sorted(state.glob("journal.db.damaged-*")):
        message = f"a damaged journal was put aside: {damaged[-1]}"
        findings.append(Finding("journals", "warning", message, "look into its cause (the disk?), then remove it"))
    return findings


def check_address(data_dir: Path, host: str, port: int, token: str | None) -> list[Finding]:
    """Whether a server may and can listen there."""
    config = Config(data_dir, host, port, token)
    try:
        config.check()
    except BadConfig as error:
        findings = [Finding("token", "failed", str(error), "give a long random token by SANDBOX_AGENT_TOKEN")]
    else:
        if token is None:
            message = "none: whoever can run programs on this machine can use the server"
            findings = [Finding("token", "ok", message)]
        elif len(token) < SHORT_TOKEN:
            message = f"shorter than {SHORT_TOKEN} characters: it can be guessed"
            findings = [Finding("token", "warning", message, "take a long random one: openssl rand -hex 32")]
        else:
            findings = [Finding("token", "ok", "given")]
    return [*findings, _port(host, port, token)]


def _port(host: str, port: int, token: str | None) -> Finding:
    url = url_of(host, port)
    match look(url, token):
        case "healthy":
            return Finding("port", "ok", f"a server answers at {url}")
        case "other token":
            message = f"a server answers at {url}, and takes another token"
            return Finding("port", "warning", message, "set the SANDBOX_AGENT_TOKEN that it was started with")
        case _:
            try:
                listen(host, port).close()
            except BadConfig as error:
                return Finding("port", "failed", str(error), "give another one with --host and --port")
            return Finding("port", "ok", f"{port} on {host} is free")
