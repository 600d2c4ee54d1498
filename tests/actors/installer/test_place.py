from __future__ import annotations

import os
import resource
import subprocess
from typing import TYPE_CHECKING

import msgspec
import pytest

from sandbox_actors.installer.place import Installed, Place, to_disk

if TYPE_CHECKING:
    from pathlib import Path


def settled(place: Place) -> Path:
    """A generation that says its arguments and variables, made the one that counts."""
    place.home.mkdir(parents=True, exist_ok=True)
    generation = place.begin()
    program = generation / "it's a program"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$VALUE" "$PATH" "$@"\n')
    program.chmod(0o755)
    command, path = [str(program), "a b", "$HOME", "it's"], [generation / "a 'bin'"]
    place.write_launcher(generation, command, {"VALUE": "$(id)\n`'\""}, path, [generation / "last"])
    installed = Installed(
        agent=place.id,
        version="1",
        process_version="1",
        source="fallback",
        packages=[],
        program=str(program),
        native=None,
        native_version=None,
        relies_on=[],
        generation=str(generation),
        previous=place.current(),
        installed_at_ms=1,
        greeting=msgspec.Raw(b"{}"),
    )
    place.settle(installed)
    assert place.installed() == installed
    return generation


def test_a_launcher_hands_on_every_character(tmp_path: Path) -> None:
    place = Place(tmp_path, "fox")
    generation = settled(place)
    said = subprocess.check_output([place.launcher, "--mode x", "*"], env={"PATH": "/bin"}, text=True)
    path = f"{generation}/a 'bin':/bin:{generation}/last"
    assert said == f"$(id)\n`'\"\n{path}\na b\n$HOME\nit's\n--mode x\n*\n"


def test_the_last_two_generations_are_kept_and_what_broken_installs_left_is_removed(tmp_path: Path) -> None:
    place = Place(tmp_path, "fox")
    first, second = settled(place), settled(place)
    broken = place.begin()
    (tmp_path / "fox" / "notes-of-the-user").mkdir()
    third = settled(place)
    assert {path.name for path in place.home.iterdir()} == {second.name, third.name, "notes-of-the-user"}
    assert not first.exists()
    assert not broken.exists()
    assert place.current() == third.name


def test_what_is_damaged_is_not_installed(tmp_path: Path) -> None:
    place = Place(tmp_path, "fox")
    assert place.installed() is None
    generation = settled(place)
    manifest = generation / "installed.json"
    whole = manifest.read_bytes()
    for content in (b"", b"{}", whole[:-10], b"\xff", whole.replace(b"fallback", b"\xff")):
        manifest.write_bytes(content)
        assert place.installed() is None
    manifest.write_bytes(whole)
    place.launcher.chmod(0o644)
    assert place.installed() is None
    assert not place.is_users_own


def test_what_is_no_file_holds_up_nobody(tmp_path: Path) -> None:
    place = Place(tmp_path, "fox")
    generation = settled(place)
    (generation / "installed.json").unlink()
    os.mkfifo(generation / "installed.json")
    assert place.installed() is None
    place.launcher.unlink()
    os.mkfifo(place.launcher)
    assert place.current() is None
    assert place.is_users_own
    place.launcher.unlink()
    place.launcher.mkdir()
    assert place.current() is None


def test_to_have_a_directory_on_the_disk_is_to_have_it_there(tmp_path: Path) -> None:
    to_disk(tmp_path)
    with pytest.raises(FileNotFoundError):
        to_disk(tmp_path / "none")


def test_a_launcher_that_cannot_be_read_now_is_not_taken_for_none(tmp_path: Path) -> None:
    place = Place(tmp_path, "fox")
    generation = settled(place)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            place.begin()
        assert place.installed() is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert generation.is_dir()
