"""A Docker engine of the test run's own: Debian's `dockerd`, with its own socket, data, bridge and processes.

It needs root, and no engine that is there already is touched. The bridge is made by us, since `docker0` may be
somebody else's; without iptables a published port is served by the engine's proxy, which is all that loopback needs.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from interop.cache import may_install

from .processes import alive

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__ = ["PATH", "Engine", "running_engine"]

docker: Any = import_module("docker")  # it has no types

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"
"""Where the programs are found that only root needs."""

NEEDED = ("dockerd", "containerd", "runc", "ip", "debootstrap", "setpriv")
"""Programs of docker.io, iproute2, debootstrap and util-linux."""

START_WITHIN = 30.0
STOP_WITHIN = 30.0
"""Seconds: each takes two or three."""

POLL_EVERY = 0.05
"""Seconds between two looks at an engine, which announces nothing."""


class Engine:
    """An engine that answers.

    Attributes:
      url: of its socket.
      client: the official one, of low level where that is shorter.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = f"unix://{root}/docker.sock"
        self.client: Any = docker.DockerClient(base_url=self.url, timeout=120)

    def containers(self) -> list[str]:
        """The names of all, those that have ended included."""
        return [container["Names"][0].lstrip("/") for container in self.client.api.containers(all=True)]

    def remove_all(self) -> None:
        for container in self.client.api.containers(all=True):
            with suppress(docker.errors.NotFound):
                self.client.api.remove_container(container["Id"], force=True, v=True)


@contextmanager
def running_engine() -> Generator[Engine]:
    """An engine for as long as the block runs; nothing of it is left.

    The test is skipped where there cannot be one, and fails where CI is to have one.
    """
    missing = [program for program in NEEDED if shutil.which(program, path=PATH) is None]
    if not may_install():
        pytest.skip("the engine's image is not to be fetched: SANDBOX_AGENT_TEST_INSTALL=0")
    if os.geteuid() != 0:
        _cannot("a Docker engine needs root")
    if missing:
        _cannot(f"a Docker engine needs {', '.join(missing)}: scripts/system-packages installs them")
    with ExitStack() as stack:
        root = Path(tempfile.mkdtemp(prefix="engine-"))
        stack.callback(shutil.rmtree, root)
        stack.callback(_unmount, root)
        bridge = stack.enter_context(_bridge())
        stack.enter_context(_dockerd(root, bridge))
        engine = Engine(root)
        stack.callback(engine.client.close)
        stack.callback(engine.remove_all)
        yield engine


@contextmanager
def _dockerd(root: Path, bridge: str) -> Generator[None]:
    log = root / "log"
    command = ["dockerd", "--host", f"unix://{root}/docker.sock", "--data-root", str(root / "data")]
    command += ["--exec-root", str(root / "exec"), "--pidfile", str(root / "pid"), "--shutdown-timeout", "5"]
    command += ["--bridge", bridge, "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    # Reserved for measurements: no network that the machine is in has such an address.
    command += ["--default-address-pool", f"base=198.19.{secrets.randbelow(16) * 16}.0/20,size=24"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            # It ends with us, however we end.
            ["setpriv", "--pdeathsig", "TERM", *command],
            env={**os.environ, "PATH": PATH},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _until(lambda: process.poll() is not None or _answers(root), START_WITHIN, log)
        if process.poll() is not None:
            _cannot(f"dockerd does not start: {_end_of(log)}")
        yield
        process.terminate()
        process.wait(STOP_WITHIN)
        # Its containerd, and what stands beside each container, have to end as well.
        _until(lambda: not _processes(root), STOP_WITHIN, log)
    finally:
        for pid in [process.pid, *_processes(root)]:
            if pid != process.pid or process.poll() is None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        process.wait()


@contextmanager
def _bridge() -> Generator[str]:
    name, address = f"sa-{secrets.token_hex(4)}", f"198.18.{secrets.randbelow(256)}.1/24"
    _ip("link", "add", name, "type", "bridge")
    try:
        _ip("address", "add", address, "dev", name)
        _ip("link", "set", name, "up")
        yield name
    finally:
        _ip("link", "delete", name)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        _cannot(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _answers(root: Path) -> bool:
    # Not by the client: that leaves an open socket behind where nobody listens.
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(f"{root}/docker.sock")
        except OSError:
            return False
    with closing(Engine(root).client) as client:
        return bool(client.ping())


def _processes(root: Path) -> list[int]:
    """Whatever names our directory in its command line: containerd, shims, proxies' parents."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if str(root).encode() in (entry / "cmdline").read_bytes() and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def _unmount(root: Path) -> None:
    """What a killed engine has left mounted below its directory, the innermost first."""
    points = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for point in sorted((point for point in points if point.startswith(f"{root}/")), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=True)


def _until(condition: Callable[[], object], within: float, log: Path) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"the engine takes more than {within:g} seconds: {_end_of(log)}"
        time.sleep(POLL_EVERY)


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def _cannot(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
