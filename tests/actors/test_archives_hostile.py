from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from typing import TYPE_CHECKING

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from actors.packing import Item, compressed, listing, tar, unpacked, zip_archive
from sandbox_actors.archives import (
    ArchiveFormat,
    ArchiveTooLarge,
    BadEntryPath,
    DamagedArchive,
    Limits,
    UnsafeArchive,
)
from sandbox_actors.archives.entry import link_target, path_parts
from sandbox_actors.archives.tar import read_tar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FOLDER, LINK, HARD_LINK = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
ZIP = ArchiveFormat.ZIP


def header(name: str, type: bytes, size: int = 0) -> bytes:
    """One header of a tar, whatever it says."""
    info = tarfile.TarInfo(name)
    info.type, info.size = type, size
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(records: bytes, type: bytes = tarfile.XHDTYPE) -> bytes:
    return header("pax", type, len(records)) + records + bytes(-len(records) % 512)


def record(name: str, value: bytes) -> bytes:
    text = b" %b=%b\n" % (name.encode(), value)
    length = len(text) + 1
    while len(str(length)) + len(text) != length:
        length = len(str(length)) + len(text)
    return b"%d%b" % (length, text)


UNSAFE: dict[str, Sequence[Item]] = {
    "up": [Item("../outside")],
    "up in the middle": [Item("a/../../outside")],
    "up and back": [Item("a/../b")],
    "absolute": [Item("/outside")],
    "a link out": [Item("link", type=LINK, target="../outside")],
    "a link to anywhere": [Item("link", type=LINK, target="/etc/passwd")],
    "a link to a folder out, and a file through it": [
        Item("link", type=LINK, target="/tmp"),
        Item("link/pwn.txt", b"!"),
    ],
    "a file through a link that stays": [Item("a", type=FOLDER), Item("l", type=LINK, target="a"), Item("l/b", b"!")],
    "a folder in the place of a link": [Item("l", type=LINK, target="a"), Item("l", type=FOLDER)],
    "a link through a link": [Item("a/b/l", type=LINK, target="../.."), Item("m", type=LINK, target="a/b/l/..")],
    "a link out of a deep folder": [Item("a/b/link", type=LINK, target="../../../outside")],
    "an empty link": [Item("link", type=LINK, target="")],
    "a file in the place of a folder": [Item("a/b"), Item("a", b"x")],
    "a folder in the place of a file": [Item("a", b"x"), Item("a/b")],
    "a folder that is very deep": [Item("a/" * 101 + "b")],
    "a name that is too long": [Item("n" * 256)],
}

TAR_ONLY: dict[str, bytes] = {
    "a hard link out": tar([Item("link", type=HARD_LINK, target="../outside")]),
    "a hard link to anywhere": tar([Item("link", type=HARD_LINK, target="/etc/hostname")]),
    "a hard link to nothing": tar([Item("link", type=HARD_LINK, target="none/there")]),
    "a hard link to the folder": tar([Item("link", type=HARD_LINK, target=".")]),
    "a hard link to a folder": tar([Item("a", type=FOLDER), Item("link", type=HARD_LINK, target="a")]),
    "a hard link to a link": tar(
        [Item("a", b"x"), Item("l", type=LINK, target="a"), Item("link", type=HARD_LINK, target="l")]
    ),
    "a hard link through a link": tar(
        [Item("a/f", b"x"), Item("l", type=LINK, target="a"), Item("link", type=HARD_LINK, target="l/f")]
    ),
    "a pipe": tar([Item("pipe", type=tarfile.FIFOTYPE)]),
    "a device": tar([Item("device", type=tarfile.CHRTYPE)]),
    "a disk": tar([Item("device", type=tarfile.BLKTYPE)]),
    "an old sparse file": header("sparse", tarfile.GNUTYPE_SPARSE),
    "a sparse file": pax(record("GNU.sparse.major", b"1") + record("GNU.sparse.minor", b"0")) + header("a", b"0"),
    "a kind that nobody knows": header("a", b"Z"),
    "a name with a NUL": pax(record("path", b"a\0b")) + header("a", b"0"),
    "a name that is made up later": pax(record("path", b"../outside")) + header("a", b"0"),
    "a name for all": pax(record("path", b"/outside"), tarfile.XGLTYPE) + header("a", b"0"),
    "a header that is huge": header("pax", tarfile.XHDTYPE, 1 << 30),
    "a name that is huge": header("name", tarfile.GNUTYPE_LONGNAME, 1 << 30),
}

ZIP_ONLY: dict[str, bytes] = {
    "a letter that is a folder elsewhere": zip_archive([Item("..\\outside")]),
    "a pipe": zip_archive([Item("pipe", type=tarfile.FIFOTYPE)]),
    "a method that wants much memory": zip_archive([Item("a", b"x")], zipfile.ZIP_LZMA),
    "a secret": zip_archive([Item("a", b"x")]).replace(b"PK\1\2\x14\3\x14\0\0\0", b"PK\1\2\x14\3\x14\0\1\0"),
    "a later version": zip_archive([Item("a", b"x")]).replace(b"PK\1\2\x14\3\x14\0", b"PK\1\2\x14\3\xff\0"),
}


async def refused(tmp_path: Path, content: bytes, format: ArchiveFormat) -> None:
    """Refused whole, into a new folder and into one that is there; nothing is left, nothing outside was touched."""
    outside, there = tmp_path / "outside", tmp_path / "there"
    outside.write_text("untouched")
    there.mkdir()
    (there / "kept").write_text("kept")
    before = listing(tmp_path)
    for folder in (tmp_path / "new" / "er", there):
        with pytest.raises(UnsafeArchive):
            await unpacked(content, folder, format)
    assert listing(tmp_path) == before
    assert outside.stat().st_nlink == 1


@pytest.mark.parametrize("format", ArchiveFormat)
@pytest.mark.parametrize("name", UNSAFE)
async def test_an_archive_that_leads_out_is_refused_whole(tmp_path: Path, name: str, format: ArchiveFormat) -> None:
    items = [Item("before", b"x"), *UNSAFE[name], Item("behind", b"x")]
    await refused(tmp_path, zip_archive(items) if format is ZIP else compressed(tar(items), format), format)


@pytest.mark.parametrize("name", TAR_ONLY)
async def test_a_tar_of_what_is_no_file_is_refused_whole(tmp_path: Path, name: str) -> None:
    await refused(tmp_path, tar([Item("before", b"x")])[:1024] + TAR_ONLY[name] + bytes(1024), ArchiveFormat.TAR)


@pytest.mark.parametrize("name", ZIP_ONLY)
async def test_a_zip_of_what_is_no_file_is_refused_whole(tmp_path: Path, name: str) -> None:
    await refused(tmp_path, ZIP_ONLY[name], ZIP)


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
async def test_a_path_that_leads_out_is_told_as_on_the_public_wire(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadEntryPath) as refusal:
        await unpacked(tar([Item(name)]), tmp_path / "x")
    assert str(refusal.value) == f"invalid relative path: {name}"


BOMB = bytes(8 << 20)


@pytest.mark.parametrize("format", ArchiveFormat)
@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(bytes=1 << 20), "unpacks to more than 1 MB"),
        (Limits(entries=2), "more than 2 entries"),
    ],
    ids=["bytes", "entries"],
)
async def test_what_is_more_than_it_may_be_is_given_up(
    tmp_path: Path, format: ArchiveFormat, limits: Limits, why: str
) -> None:
    items = [Item("a"), Item("b"), Item("c", BOMB)]
    content = zip_archive(items) if format is ZIP else compressed(tar(items), format)
    with pytest.raises(ArchiveTooLarge, match=why):
        await unpacked(content, tmp_path / "x", format, limits)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("format", [ArchiveFormat.TAR_GZ, ArchiveFormat.TAR_ZST])
async def test_what_becomes_far_larger_than_it_is_is_a_bomb(tmp_path: Path, format: ArchiveFormat) -> None:
    padding = bytes(300 << 20)  # what is between and behind the entries counts, too
    content = compressed(tar([Item("a")]) + padding, format)
    with pytest.raises(ArchiveTooLarge, match="more than 200 times its size"):
        await unpacked(content, tmp_path / "x", format)
    assert os.listdir(tmp_path) == []


async def test_a_file_in_a_zip_that_becomes_far_larger_than_it_is_is_a_bomb(tmp_path: Path) -> None:
    content = zip_archive([Item("before", b"x"), Item("bomb", bytes(300 << 20))])
    with pytest.raises(ArchiveTooLarge, match="more than 200 times its size"):
        await unpacked(content, tmp_path / "x", ZIP)
    assert os.listdir(tmp_path) == []


async def test_files_of_a_zip_that_lie_in_each_other_are_refused(tmp_path: Path) -> None:
    content = zip_archive([Item("a", BOMB)])
    start, end = content.rindex(b"PK\1\2"), content.rindex(b"PK\5\6")
    many = content[start:end] * 100
    trailer = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 100, 100, len(many), start, 0)
    with pytest.raises((DamagedArchive, ArchiveTooLarge)):
        await unpacked(content[:start] + many + trailer, tmp_path / "x", ZIP)
    assert os.listdir(tmp_path) == []


async def test_the_list_of_a_zip_is_not_read_where_it_is_too_large(tmp_path: Path) -> None:
    content = zip_archive([Item("a")])
    at = content.rindex(b"PK\5\6")
    hostile = content[: at + 12] + struct.pack("<L", 1 << 30) + content[at + 16 :]
    with pytest.raises(ArchiveTooLarge, match="list of entries"):
        await unpacked(hostile, tmp_path / "x", ZIP)
    larger = struct.pack("<4sQHHLLQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, 1 << 30, 0)
    larger += struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
    with pytest.raises(ArchiveTooLarge, match="list of entries"):
        await unpacked(content[:at] + larger + content[at:], tmp_path / "x", ZIP)


SOUND = [Item("a", os.urandom(3000)), Item("folder/b", b"x" * 5000)]
LONG = tar([Item("n" * 200, b"x")])
DAMAGED: dict[str, tuple[bytes, ArchiveFormat]] = {
    "text": (b"this is no archive at all" * 100, ArchiveFormat.TAR),
    "short text": (b"x", ArchiveFormat.TAR),
    "cut in a file": (tar(SOUND)[:2000], ArchiveFormat.TAR),
    "cut in the padding of a file": (tar(SOUND)[: 512 + 3010], ArchiveFormat.TAR),
    "cut in a header": (tar(SOUND)[: 512 + 3072 + 100], ArchiveFormat.TAR),
    "cut in a long name": (LONG[:600], ArchiveFormat.TAR),
    "cut behind a long name": (LONG[:1024], ArchiveFormat.TAR),
    "a broken header in the middle": (tar(SOUND)[:3584] + b"x" * 512 + tar(SOUND), ArchiveFormat.TAR),
    "a size that is none": (pax(record("size", b"-5")) + header("a", b"0"), ArchiveFormat.TAR),
    "a time that is none": (pax(record("mtime", b"nan")) + header("a", b"0"), ArchiveFormat.TAR),
    "a record without an end": (pax(b"30 path=a"), ArchiveFormat.TAR),
    "a record of no length": (pax(b"0 path=a\n"), ArchiveFormat.TAR),
    "a record of nonsense": (pax(b"nonsense"), ArchiveFormat.TAR),
    "gzip: a tar": (tar(SOUND), ArchiveFormat.TAR_GZ),
    "gzip: cut": (gzip.compress(tar(SOUND))[:1000], ArchiveFormat.TAR_GZ),
    "gzip: another checksum": (gzip.compress(tar(SOUND))[:-8] + bytes(8), ArchiveFormat.TAR_GZ),
    "zstd: a tar": (tar(SOUND), ArchiveFormat.TAR_ZST),
    "zstd: cut": (zstd.compress(tar(SOUND))[:1000], ArchiveFormat.TAR_ZST),
    "zstd: a window that is too large": (
        zstd.compress(os.urandom(1 << 20), options={int(zstd.CompressionParameter.window_log): 27}),
        ArchiveFormat.TAR_ZST,
    ),
    "zip: nothing": (b"", ZIP),
    "zip: a tar": (tar(SOUND), ZIP),
    "zip: cut": (zip_archive(SOUND)[:-30], ZIP),
    "zip: another content": (zip_archive(SOUND, zipfile.ZIP_STORED).replace(b"x" * 5000, b"y" * 5000), ZIP),
}


@pytest.mark.parametrize("name", DAMAGED)
async def test_a_damaged_archive_is_refused_whole(tmp_path: Path, name: str) -> None:
    content, format = DAMAGED[name]
    with pytest.raises(DamagedArchive):
        await unpacked(content, tmp_path / "new", format)
    (tmp_path / "there").mkdir()
    with pytest.raises(DamagedArchive):
        await unpacked(content, tmp_path / "there", format)
    assert listing(tmp_path) == {"there": "/"}


# What a sound tar is, the standard library and we see alike.
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60).filter(
    lambda name: name not in (".", "..") and len(name.encode()) < 200
)
items = st.builds(
    Item,
    st.lists(names, min_size=1, max_size=4).map("/".join),
    st.binary(max_size=1500),
    mode=st.integers(0, 0o777),
    mtime=st.integers(0, 1 << 33),
)


@given(st.lists(items, max_size=6), st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.integers(1, 700))
def test_a_sound_tar_is_read_as_the_standard_library_reads_it(items: list[Item], format: int, buffer: int) -> None:
    content = tar(items, format)
    entries = read_tar(io.BufferedReader(io.BytesIO(content), buffer))
    seen = [(entry.name, entry.mode, entry.mtime_ns, entry.whole) for entry in entries]
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        expected = []
        for info in archive:
            file = archive.extractfile(info)
            assert file is not None
            expected.append((info.name, info.mode, int(info.mtime) * 10**9, file.read()))
    assert seen == expected


@given(st.binary(max_size=3000), st.integers(0, 5000), st.binary(max_size=30))
def test_whatever_is_sent_as_a_tar_is_read_or_refused(noise: bytes, at: int, patch: bytes) -> None:
    sound = tar([Item("a", b"x" * 700), Item("n" * 150, b"y"), Item("l", type=LINK, target="a")])
    for content in (noise, sound[: at % len(sound)], sound[:at] + patch + sound[at + len(patch) :]):
        try:
            for entry in read_tar(io.BytesIO(content)):
                path_parts(entry.name)
        except (DamagedArchive, UnsafeArchive):
            pass


@given(st.lists(st.sampled_from(["..", ".", "", "a", "b"]), max_size=6), st.lists(st.just("f"), min_size=1, max_size=4))
def test_a_link_that_is_taken_stays_inside(steps: list[str], parts: list[str]) -> None:
    target = "/".join(steps)
    try:
        link_target(tuple(parts), target)
    except UnsafeArchive:
        return
    inside = os.path.normpath("/".join(["top", *parts[:-1], target]))
    assert inside == "top" or inside.startswith("top/")


async def test_a_file_is_not_written_through_a_link_that_somebody_slips_in(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a").symlink_to(elsewhere)
    await unpacked(tar([Item("a", b"new")]), tmp_path / "x")  # a file takes the place of the link itself
    assert listing(tmp_path) == {"elsewhere": "/", "x": "/", "x/a": "new"}
    assert stat.S_ISREG((tmp_path / "x/a").lstat().st_mode)
