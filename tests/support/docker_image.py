"""The image of this tree, made by the engine of the test run on a base that needs no registry of images."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from interop.cache import CACHE

from .docker_engine import PATH

if TYPE_CHECKING:
    from collections.abc import Generator

    from .docker_engine import Engine

__all__ = ["BASE", "IMAGE", "build"]

ROOT = Path(__file__).parents[2]

BASE = "base:test"
IMAGE = "sandbox-agent:test"

RELEASE = "trixie"
"""Of Debian: the first whose Python is new enough."""

PACKAGES = "python3,python3-venv,ca-certificates"

CERTIFICATES = "usr/local/share/ca-certificates"
"""Where a machine's own certificates are, which may be needed to reach anything."""

USELESS = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")

FETCH_WITHIN = 600
BUILD_WITHIN = 600
"""Seconds, with a slow network."""

PIP = ("index-url", "extra-index-url", "trusted-host")
"""What pip is told on this machine of where packages are, and has to be told in the build."""


def build(engine: Engine) -> None:
    """Make the base and, by the Dockerfile, the image of target `slim`."""
    with base_archive() as archive:
        engine.client.api.import_image_from_file(str(archive), repository="base", tag="test")
    engine.client.images.build(
        path=str(ROOT),
        target="slim",
        tag=IMAGE,
        buildargs={"BASE": BASE, **_pip()},
        network_mode="host",
        rm=True,
        forcerm=True,
        timeout=BUILD_WITHIN,
    )


@contextmanager
def base_archive() -> Generator[Path]:
    """A small Debian as a tar archive, from the cache; it is made once, by whoever is first."""
    CACHE.mkdir(parents=True, exist_ok=True)
    archive = CACHE / f"debian-{RELEASE}.tar"
    with (CACHE / f"debian-{RELEASE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            _bootstrap(archive)
        yield archive


def _bootstrap(archive: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="debian-") as folder:
        root = Path(folder, "root")
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(root), *_mirror()]
        env = {**os.environ, "PATH": PATH}
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_WITHIN, check=False, env=env)
        assert done.returncode == 0, f"debootstrap ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr}"
        own = Path("/", CERTIFICATES)
        if own.is_dir():
            shutil.copytree(own, root / CERTIFICATES, dirs_exist_ok=True)
        subprocess.run(["chroot", str(root), "update-ca-certificates"], capture_output=True, check=True, env=env)
        for useless in USELESS:
            shutil.rmtree(root / useless, ignore_errors=True)
        new = archive.with_suffix(".new")
        subprocess.run(["tar", "--create", "--file", str(new), "--directory", str(root), "."], check=True)
        new.replace(archive)


def _mirror() -> list[str]:
    """Where this machine gets its packages, if it is a Debian; else where debootstrap gets them by itself."""
    for path in ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"):
        with_uri = re.search(r"^(?:URIs:|deb)\s+(?:\[.*?\]\s*)?(\S+)", _text(path), re.MULTILINE)
        if with_uri:
            return [with_uri[1]]
    return []


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def _pip() -> dict[str, str]:
    """Build arguments; folders of this machine are none of the build's."""
    told: dict[str, str] = {}
    for name in PIP:
        command = [sys.executable, "-m", "pip", "config", "get", f"global.{name}"]
        given = os.environ.get(variable := f"PIP_{name.replace('-', '_').upper()}")
        if given is None:
            given = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        places = [place for place in given.split() if not place.startswith("file:")]
        if places:
            told[variable] = " ".join(places)
    return told
