"""Parts and conditions: what of a file is sent, and which file is replaced (RFC 9110, sections 13 and 14)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from support.file_client import FileClient
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
async def api(tmp_path: Path, home: Path) -> AsyncIterator[FileClient]:
    async with serving(tmp_path, environment={"HOME": str(home)}) as daemon:
        yield FileClient(daemon, home)


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=2-5", 206, b"2345", "bytes 2-5/10"),
        ("bytes=8-", 206, b"89", "bytes 8-9/10"),
        ("bytes=8-1000", 206, b"89", "bytes 8-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-1000", 206, b"0123456789", "bytes 0-9/10"),
        ("BYTES = 1-1", 206, b"1", "bytes 1-1/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=99999999999999999999-", 416, b"", "bytes */10"),
        ("bytes=0-1,4-5", 200, b"0123456789", None),
        ("bytes=5-2", 200, b"0123456789", None),
        ("bytes=-0", 200, b"0123456789", None),
        ("bytes=a-b", 200, b"0123456789", None),
        ("lines=0-1", 200, b"0123456789", None),
        ("bytes", 200, b"0123456789", None),
    ],
)
async def test_a_part_of_a_file_can_be_asked_for(
    api: FileClient, home: Path, asked: str, status: int, body: bytes, content_range: str | None
) -> None:
    (home / "file").write_bytes(b"0123456789")
    answer = await api.get("file", {"Range": asked})
    assert (answer.status, answer.headers.get("content-range")) == (status, content_range)
    if status == 416:
        assert answer.problem == "range_not_satisfiable"
    else:
        assert answer.body == body
        assert answer.headers["accept-ranges"] == "bytes"


async def test_parts_of_a_large_file_come_from_the_right_place(api: FileClient, home: Path) -> None:
    data = os.urandom(3_000_000)
    (home / "file").write_bytes(data)
    for start, end in ((0, 1), (999_999, 2_100_001), (2_999_990, 3_000_000)):
        answer = await api.get("file", {"Range": f"bytes={start}-{end - 1}"})
        assert (answer.status, answer.body) == (206, data[start:end])
        assert answer.headers["content-length"] == str(end - start)
    assert (await api.get("file")).body == data


async def test_who_has_the_file_is_told_so(api: FileClient, home: Path) -> None:
    etag = (await api.put("file", b"one")).headers["etag"]
    answer = await api.get("file")
    modified = answer.headers["last-modified"]
    assert answer.headers["etag"] == etag
    for headers in (
        {"If-None-Match": etag},
        {"If-None-Match": f'"x", W/{etag}'},
        {"If-None-Match": "*"},
        {"If-Modified-Since": modified},
        {"If-None-Match": etag, "Range": "bytes=0-0"},
    ):
        answer = await api.get("file", headers)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["etag"] == etag
        assert "content-type" not in answer.headers
    for headers in (
        {"If-None-Match": '"x"'},
        {"If-None-Match": '"x"', "If-Modified-Since": modified},
        {"If-Match": etag},
        {"If-Match": "*"},
        {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"If-Unmodified-Since": modified},
        {"If-Modified-Since": "nonsense"},
    ):
        assert (await api.get("file", headers)).status == 200
    for headers in ({"If-Match": '"x"'}, {"If-Unmodified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}):
        answer = await api.get("file", headers)
        assert (answer.status, answer.problem) == (412, "precondition_failed")
    for condition, status in ((etag, 206), (modified, 206), ('"x"', 200), ("Thu, 01 Jan 1970 00:00:00 GMT", 200)):
        assert (await api.get("file", {"Range": "bytes=0-0", "If-Range": condition})).status == status
    assert (await api.put("file", b"two")).headers["etag"] != etag
    assert (await api.get("file", {"If-None-Match": etag})).body == b"two"


async def test_a_write_can_ask_for_the_state_of_the_file(api: FileClient, home: Path) -> None:
    first = await api.put("file", b"one", {"If-None-Match": "*"})
    assert first.status == 200
    etag = first.headers["etag"]
    for headers in ({"If-None-Match": "*"}, {"If-Match": '"x"'}, {"If-Match": f"W/{etag}"}, {"If-None-Match": etag}):
        answer = await api.put("file", b"two", headers)
        assert (answer.status, answer.problem) == (412, "precondition_failed")
    answer = await api.put("new/file", b"two", {"If-Match": "*"})
    assert (answer.status, answer.problem) == (412, "precondition_failed")
    assert os.listdir(home) == ["file"]
    assert (home / "file").read_bytes() == b"one"
    assert (await api.put("file", b"two", {"If-Match": etag})).status == 200
    assert (await api.put("file", b"three", {"If-Match": etag})).status == 412
    assert (await api.put("file", b"!", {"If-Match": "*"}, append="true")).json["bytesWritten"] == 1
    assert (home / "file").read_bytes() == b"two!"
