"""What this machine is called: by the ACP registry, and by Node.js and the names of npm packages."""

from __future__ import annotations

import platform
import sys

__all__ = ["node_platform", "registry_platform"]

X64 = frozenset({"x86_64", "amd64"})
ARM64 = frozenset({"aarch64", "arm64"})


def registry_platform() -> str:
    """As the members of `Distribution.binary`: `linux-x86_64`."""
    machine = platform.machine().lower()
    name = "x86_64" if machine in X64 else "aarch64" if machine in ARM64 else machine
    return f"{sys.platform}-{name}"


def node_platform() -> str:
    """As `process.platform` and `process.arch` say it: `linux-x64`."""
    machine = platform.machine().lower()
    name = "x64" if machine in X64 else "arm64" if machine in ARM64 else machine
    return f"{sys.platform}-{name}"
