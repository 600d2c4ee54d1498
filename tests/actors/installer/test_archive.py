from __future__ import annotations

import gzip
import hashlib
import io
import os
import stat
import struct
import tarfile
import zipfile
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio

from actors.installer.yard import failing
from sandbox_actors.catalog.platforms import registry_platform as platform_name
from sandbox_actors.installer.archive import INDEX_LIMIT, Limits, find_program, unpack
from sandbox_actors.installer.download import download
from sandbox_actors.installer.trouble import Trouble
from support.registries import SHELL_AGENT, tar_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from actors.installer.yard import Definition, Yard
    from support.registries import Registries


def binary(url: str, cmd: str = "./dist/fox", **more: object) -> Definition:
    build = {"archive": url, "cmd": cmd, **more}
    return {"version": "1.0.0", "distribution": {"binary": {platform_name(): build}}}


def zip_of(files: dict[str, str], mode: int = 0o755) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path, text in files.items():
            entry = zipfile.ZipInfo(path)
            entry.external_attr = mode << 16
            file.writestr(entry, text)
    return buffer.getvalue()


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "fox.tar.gz": partial(tar_of, {"dist/fox": SHELL_AGENT, "dist/data": "x"}),
    "fox.tgz": partial(tar_of, {"./dist/fox": SHELL_AGENT}),
    "fox.tar.bz2": partial(tar_of, {"dist/fox": SHELL_AGENT}, "w:bz2"),
    "fox.tbz2": partial(tar_of, {"fox-1.0/bin/fox": SHELL_AGENT}, "w:bz2"),
    "fox.tar.xz": partial(tar_of, {"dist/fox": SHELL_AGENT}, "w:xz"),
    "fox.zip": partial(zip_of, {"dist/fox": SHELL_AGENT, "dist/data": "x"}),
    "plain.zip": partial(zip_of, {"dist/fox": SHELL_AGENT}, 0o644),
    "fox-linux": SHELL_AGENT.encode,
}


@pytest.mark.parametrize("name", ARCHIVES)
async def test_an_archive_of_any_kind_is_downloaded_and_unpacked(yard: Yard, registries: Registries, name: str) -> None:
    content = ARCHIVES[name]()
    url = registries.file(name, content)
    agents = {"fox": binary(url, args=["acp"], sha256=hashlib.sha256(content).hexdigest().upper())}
    async with yard.installer(agents) as installer:
        outcome = await installer.install("fox")
    assert [(artifact.kind, artifact.version) for artifact in outcome.artifacts] == [("agent_process", "1.0.0")]
    assert (await yard.answer("fox", **agents))["name"] == "shell"


async def test_an_archive_may_lie_on_this_machine_and_behind_redirects(
    yard: Yard, registries: Registries, tmp_path: Path
) -> None:
    mirror = tmp_path / "a mirror" / "fox.tgz"
    mirror.parent.mkdir()
    mirror.write_bytes(tar_of({"dist/fox": SHELL_AGENT}))
    there = registries.file("fox.tgz", mirror.read_bytes())
    agents = {"fox": binary(mirror.as_uri()), "hen": binary(registries.redirect("latest.tgz", there))}
    async with yard.installer(agents) as installer:
        await installer.install("fox")
        await installer.install("hen")
    assert registries.asked == ["/latest.tgz", "/fox.tgz"]


async def test_an_archive_with_another_checksum_is_not_even_unpacked(yard: Yard, registries: Registries) -> None:
    url = registries.file("fox.tgz", tar_of({"dist/fox": SHELL_AGENT}))
    async with yard.installer({"fox": binary(url, sha256="ab" * 32)}) as installer:
        failure = await failing(installer, "fox")
    assert failure.reason == "checksum"
    assert "the definition says abababababab…; nothing was unpacked" in str(failure)
    assert yard.generations("fox") == []
    assert not (yard.launchers / "fox-acp").exists()


async def test_what_cannot_be_downloaded_is_told_by_its_reason(registries: Registries, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    urls = {
        "missing": registries.url + "/none.tgz",
        "away": "http://127.0.0.1:9/fox.tgz",
        "plain": "http://user:hunter2@packages.invalid/fox.tgz?sig=hunter2",
        "turned": registries.redirect("turn.tgz", "http://packages.invalid/fox.tgz"),
        "local": registries.redirect("local.tgz", "file:///etc/passwd"),
        "round": registries.redirect("round.tgz", registries.url + "/round.tgz"),
        "file": (tmp_path / "none.tgz").as_uri(),
        "fifo": (tmp_path / "pipe").as_uri(),
    }
    troubles: dict[str, Trouble] = {}
    for name, url in urls.items():
        with pytest.raises(Trouble) as trouble:
            await download(url, tmp_path / name, sha256=None, told=lambda done, total: None, pauses=())
        troubles[name] = trouble.value
    assert {name: trouble.reason for name, trouble in troubles.items()} == {
        "missing": "not_found",
        "away": "network",
        "plain": "failed",
        "turned": "failed",
        "local": "failed",
        "round": "failed",
        "file": "not_found",
        "fifo": "not_found",
    }
    assert "must be https" in str(troubles["plain"])
    assert "hunter2" not in str(troubles["plain"])
    assert "must be https" in str(troubles["turned"])


async def test_a_download_is_tried_again_where_the_host_may_come_back(registries: Registries, tmp_path: Path) -> None:
    url, digest = registries.file("fox", b"whole"), hashlib.sha256(b"whole").hexdigest()
    registries.refused["/fox"] = [503, 429]
    await download(url, tmp_path / "fox", sha256=digest, told=lambda done, total: None, pauses=(0, 0))
    assert (tmp_path / "fox").read_bytes() == b"whole"
    registries.refused["/fox"] = [503, 503]
    with pytest.raises(Trouble, match="status 503") as trouble:
        await download(url, tmp_path / "fox", sha256=digest, told=lambda done, total: None, pauses=(0,))
    assert trouble.value.reason == "network"
    assert len(registries.asked) == 5


async def test_a_download_from_this_machine_goes_through_no_proxy_and_one_of_no_use_is_told(
    registries: Registries, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "foo://user:hunter2@127.0.0.1:9")
    await download(registries.file("fox", b""), tmp_path / "fox", sha256=None, told=lambda done, total: None)
    with pytest.raises(Trouble, match="such as ALL_PROXY") as trouble:
        await download("https://h.invalid/", tmp_path / "hen", sha256=None, told=lambda done, total: None)
    assert "hunter2" not in str(trouble.value)


async def test_another_version_or_platform_than_the_archives_is_refused(yard: Yard) -> None:
    build = {"archive": "https://packages.invalid/fox.zip", "cmd": "fox"}
    agents: dict[str, Definition] = {"fox": {"distribution": {"binary": {"windows-x86_64": build}}}}
    async with yard.installer(agents) as installer:
        failure = await failing(installer, "fox")
    assert failure.reason == "unsupported_platform"
    assert str(failure).endswith("only for windows-x86_64")


def unpacked(content: bytes, name: str, folder: Path, limits: Limits | None = None) -> Path:
    """Unpack in a thread of Trio's, as the installer does; gives the directory."""
    archive = folder / "archive"
    archive.write_bytes(content)
    directory = folder / "unpacked"

    async def main() -> None:
        await trio.to_thread.run_sync(unpack, archive, name, "fox", directory, limits or Limits())

    trio.run(main)
    return directory


def hostile_tar(name: str, type: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for path, kind, target in ((name, type, link), ("dist/fox", tarfile.REGTYPE, "")):
            entry = tarfile.TarInfo(path)
            entry.type, entry.linkname = kind, target
            tar.addfile(entry)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        hostile_tar("../outside"),
        hostile_tar("dist/../../outside"),
        hostile_tar("link", tarfile.SYMTYPE, "../outside"),
        hostile_tar("link", tarfile.SYMTYPE, "/etc"),
        hostile_tar("dist/link", tarfile.SYMTYPE, "x/../../outside"),
        hostile_tar("link", tarfile.LNKTYPE, "../outside"),
        hostile_tar("link", tarfile.LNKTYPE, "/etc/passwd"),
        hostile_tar("pipe", tarfile.FIFOTYPE),
        hostile_tar("device", tarfile.CHRTYPE),
    ],
)
def test_a_tar_that_leads_out_is_refused_and_touches_nothing(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "outside").write_text("untouched")
    with pytest.raises(Trouble, match="the archive is not safe") as trouble:
        unpacked(content, "fox.tgz", folder)
    assert trouble.value.reason == "unsafe_archive"
    assert (folder / "outside").read_text() == "untouched"
    assert sorted(os.listdir(tmp_path)) == ["folder"]
    assert sorted(os.listdir(folder)) == ["archive", "outside", "unpacked"]
    assert os.stat(folder / "outside").st_nlink == 1


def test_links_upon_links_do_not_lead_out_either(tmp_path: Path) -> None:
    """Together they are longer than any path may be, so that the system gives up to follow them."""
    (tmp_path / "outside").mkdir()
    long, steps = "d" * 247, "abcdefghijklmnop"
    far = "/".join([*steps, "l" * 254])
    links = [("/".join([long] * depth + [step]), long) for depth, step in enumerate(steps)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for depth in range(1, len(steps) + 1):
            folder = tarfile.TarInfo("/".join([long] * depth))
            folder.type = tarfile.DIRTYPE
            tar.addfile(folder)
        for path, target in [*links, (far, "../" * len(steps)), ("escape", f"{far}/../outside")]:
            link = tarfile.TarInfo(path)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        tar.addfile(tarfile.TarInfo("escape/escaped"))
    with pytest.raises(Trouble, match="the archive is not safe"):
        unpacked(buffer.getvalue(), "fox.tgz", tmp_path)
    assert os.listdir(tmp_path / "outside") == []


def test_an_absolute_path_in_a_tar_stays_inside(tmp_path: Path) -> None:
    where = tmp_path / "absolute"
    directory = unpacked(hostile_tar(str(where)), "fox.tgz", tmp_path)
    assert not where.exists()
    assert (directory / str(where).lstrip("/")).exists()


@pytest.mark.parametrize("name", ["../outside", "/absolute", "dist/../../outside", "dist\\..\\..\\outside"])
def test_a_zip_that_leads_out_is_refused_and_touches_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(Trouble, match="would be written outside of it"):
        unpacked(zip_of({name: "x"}), "fox.zip", tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["archive", "unpacked"]
    assert os.listdir(tmp_path / "unpacked") == []


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match="is a link"):
        unpacked(zip_of({"link": "/etc/passwd"}, stat.S_IFLNK | 0o777), "fox.zip", tmp_path)


def test_links_within_a_tar_are_fine(tmp_path: Path) -> None:
    content = hostile_tar("bin/fox", tarfile.SYMTYPE, "../dist/fox")
    directory = unpacked(content, "fox.tgz", tmp_path)
    assert find_program(directory, "bin/fox").resolve() == directory / "dist" / "fox"


@pytest.mark.parametrize("name", ["bomb.tgz", "bomb.zip"])
@pytest.mark.parametrize("limits", [Limits(bytes=1 << 20), Limits(entries=10)], ids=["bytes", "entries"])
def test_a_bomb_is_given_up_at_the_limit(tmp_path: Path, name: str, limits: Limits) -> None:
    if limits.entries == 10:
        files = {f"dist/{number}": "" for number in range(100)}
    else:
        files = {"dist/fox": "\0" * (64 << 20)}
    content = tar_of(files) if name == "bomb.tgz" else zip_of(files)
    with pytest.raises(
        Trouble, match=r"the archive is not safe: it (unpacks to more than 1 MB|has more than 10 entries)"
    ):
        unpacked(content, name, tmp_path, limits)
    assert sum(path.stat().st_size for path in (tmp_path / "unpacked").rglob("*") if path.is_file()) <= 1 << 20


def test_a_bomb_in_a_header_is_given_up(tmp_path: Path) -> None:
    header = tarfile.TarInfo("PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    with pytest.raises(Trouble, match="a header of 1073741824 bytes"):
        unpacked(gzip.compress(header.tobuf()), "bomb.tgz", tmp_path)


@pytest.mark.parametrize("name", ["fox.tgz", "fox.tar.bz2", "fox.tar.xz", "fox.zip", "fox.tar"])
@pytest.mark.parametrize("content", [b"", b"no archive", tar_of({"a": "x" * 9000})[:60]], ids=["empty", "text", "cut"])
def test_a_damaged_archive_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(Trouble, match="the archive is damaged") as trouble:
        unpacked(content, name, tmp_path)
    assert trouble.value.reason == "failed"


def pax_tar(**headers: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("dist/fox")
        entry.pax_headers = headers
        tar.addfile(entry)
    return buffer.getvalue()


def bent_zip(*changes: tuple[int, int, int]) -> bytes:
    """A zip of one file with other bytes: (place in its header, place in its index, byte)."""
    content = bytearray(zip_of({"fox": "x"}))
    index = content.find(b"PK\1\2")
    for in_header, in_index, byte in changes:
        content[in_header] = content[index + in_index] = byte
    return bytes(content)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("fox.tar", pax_tar(mtime="1e300")),
        ("fox.tar", pax_tar(mtime="nan")),
        ("fox.tar", pax_tar(path="dist\0fox")),
        ("encrypted.zip", bent_zip((6, 8, 1))),
        ("method.zip", bent_zip((8, 10, 9))),
        ("name.zip", bent_zip((7, 9, 8), (30, 46, 0xFF))),
    ],
)
def test_what_the_standard_library_stumbles_over_is_a_damaged_archive(
    tmp_path: Path, name: str, content: bytes
) -> None:
    with pytest.raises(Trouble, match="the archive is damaged"):
        unpacked(content, name, tmp_path)


def test_a_bomb_in_the_index_of_a_zip_is_given_up(tmp_path: Path) -> None:
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 9, 9, INDEX_LIMIT + 1, 0, 0)
    with pytest.raises(Trouble, match="its index has"):
        unpacked(bytes(INDEX_LIMIT + 1) + end, "bomb.zip", tmp_path)


def test_a_program_outside_of_the_archive_is_refused(tmp_path: Path) -> None:
    directory = unpacked(tar_of({"dist/fox": SHELL_AGENT}), "fox.tgz", tmp_path)
    for command in ("/bin/sh", "../archive"):
        with pytest.raises(Trouble, match="is outside of it"):
            find_program(directory, command)
    with pytest.raises(Trouble, match="no program 'dist/hen'"):
        find_program(directory, "dist/hen")


async def test_a_download_stops_at_its_limit_and_tells_how_far_it_is(registries: Registries, tmp_path: Path) -> None:
    url = registries.file("fox", bytes(3 << 20))
    seen: list[tuple[int, int | None]] = []

    def told(done: int, total: int | None) -> None:
        seen.append((done, total))

    async def fetch(limit: int) -> None:
        await download(url, tmp_path / str(limit), sha256=None, told=told, limit=limit)

    await fetch(3 << 20)
    assert seen[0] == (0, 3 << 20)
    assert seen[-1] == (3 << 20, 3 << 20)
    with pytest.raises(Trouble, match="larger than 2 MB"):
        await fetch(2 << 20)
