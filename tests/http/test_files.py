"""`/v1/fs` on the wire: statuses and bodies as the public server has them, and what is beyond."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from sandbox_http.config import BadConfig
from support.file_client import JSON, FileClient
from support.serving import serving
from support.wire import exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.(\d{3}|\d{6}|\d{9}))?\+00:00")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
async def api(tmp_path: Path, home: Path) -> AsyncIterator[FileClient]:
    async with serving(tmp_path, environment={"HOME": str(home)}) as daemon:
        yield FileClient(daemon, home)


async def test_a_file_is_written_read_listed_moved_and_deleted(api: FileClient, home: Path) -> None:
    answer = await api.put("a/b.txt", b"hello", {"Content-Type": "text/plain"})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.body == f'{{"path":"{home}/a/b.txt","bytesWritten":5}}'.encode()
    answer = await api.get(f"{home}/a/b.txt")
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-length"] == "5"
    answer = await api("GET", "stat", path="a/b.txt")
    members = answer.json
    assert TIME.fullmatch(members.pop("modified"))
    assert members == {"path": f"{home}/a/b.txt", "entryType": "file", "size": 5, "mode": "0644"}
    assert list(answer.json) == ["path", "entryType", "size", "modified", "mode"]
    (entry,) = (await api("GET", "entries", path="a")).json
    assert list(entry) == ["name", "path", "entryType", "size", "modified", "mode"]
    assert (entry["name"], entry["path"], entry["entryType"], entry["size"]) == ("b.txt", f"{home}/a/b.txt", "file", 5)
    answer = await api("POST", "move", {"from": "a/b.txt", "to": "c/d", "overwrite": None, "more": 1})
    assert answer.body == f'{{"from":"{home}/a/b.txt","to":"{home}/c/d"}}'.encode()
    answer = await api("DELETE", "entry", path="c/d")
    assert answer.body == f'{{"path":"{home}/c/d"}}'.encode()
    answer = await api("POST", "mkdir", path="x/y")
    assert answer.body == f'{{"path":"{home}/x/y"}}'.encode()
    answer = await api("POST", "mkdir", path="x/y")
    assert answer.status == 200
    assert (await api("DELETE", "entry", path="x", recursive="true")).status == 200
    assert sorted(os.listdir(home)) == ["a", "c"]


async def test_entries_are_of_home_unless_told_otherwise(api: FileClient, home: Path) -> None:
    (home / "file").write_text("")
    for path in (None, "", ".", f"{home}/"):
        answer = await api("GET", "entries", **({} if path is None else {"path": path}))
        assert [entry["path"] for entry in answer.json] == [f"{home}/file"]
    assert (await api("GET", "stat", path="")).json["path"] == f"{home}/"


@pytest.mark.parametrize(
    ("method", "route", "query", "body", "status", "problem", "message"),
    [
        ("GET", "entries", {"path": "missing"}, b"", 400, "invalid_request", "path not found: {home}/missing"),
        ("GET", "entries", {"path": "file"}, b"", 400, "invalid_request", "path is not a directory: {home}/file"),
        ("GET", "file", {"path": "missing"}, b"", 400, "invalid_request", "path not found: {home}/missing"),
        ("GET", "file", {"path": "dir"}, b"", 400, "invalid_request", "path is not a file: {home}/dir"),
        ("GET", "file", {"path": "/dev/zero"}, b"", 400, "invalid_request", "path is not a file: /dev/zero"),
        ("GET", "file", {"path": "../x"}, b"", 400, "invalid_request", "invalid relative path: ../x"),
        ("GET", "file", {"path": "file/x"}, b"", 502, "stream_error", "Not a directory (os error 20)"),
        ("GET", "stat", {"path": "missing"}, b"", 400, "invalid_request", "path not found: {home}/missing"),
        ("GET", "stat", {"path": "x\0y"}, b"", 400, "invalid_request", "invalid path: it has a NUL character"),
        ("GET", "stat", {"path": "/" + "x/" * 3000}, b"", 400, "invalid_request", "invalid path: it is longer than"),
        ("GET", "stat", {"path": "x" * 300}, b"", 400, "invalid_request", "the path is too long: "),
        ("PUT", "file", {"path": "dir"}, b"x", 502, "stream_error", "Is a directory (os error 21)"),
        ("PUT", "file", {"path": "file/x"}, b"x", 502, "stream_error", "Not a directory (os error 20)"),
        ("PUT", "file", {"path": "fifo"}, b"x", 400, "invalid_request", "path is not a file: {home}/fifo"),
        ("DELETE", "entry", {"path": "missing"}, b"", 400, "invalid_request", "path not found: {home}/missing"),
        ("DELETE", "entry", {"path": "dir"}, b"", 502, "stream_error", "Directory not empty (os error 39)"),
        ("DELETE", "entry", {"path": "/"}, b"", 400, "invalid_request", "the path does not end in a name: /"),
        ("POST", "mkdir", {"path": "file"}, b"", 502, "stream_error", "File exists (os error 17)"),
        ("POST", "move", {}, {"from": "no", "to": "x"}, 400, "invalid_request", "path not found: {home}/no"),
        (
            "POST", "move", {}, {"from": "file", "to": "dir"},
            400, "invalid_request", "destination already exists: {home}/dir",
        ),
        ("POST", "chmod", {"path": "no", "mode": "600"}, b"", 400, "invalid_request", "path not found: {home}/no"),
    ],
)  # fmt: skip
async def test_what_cannot_be_done_is_told_as_on_the_public_wire(
    api: FileClient,
    home: Path,
    method: str,
    route: str,
    query: dict[str, str],
    body: object,
    status: int,
    problem: str,
    message: str,
) -> None:
    (home / "dir").mkdir()
    (home / "dir/inner").write_text("")
    (home / "file").write_text("old")
    os.mkfifo(home / "fifo")
    answer = await api(method, route, body, **query)
    assert (answer.status, answer.problem) == (status, problem)
    kind = {"invalid_request": "invalid request", "stream_error": "stream error"}[problem]
    assert answer.detail.startswith(f"{kind}: {message.format(home=home)}")
    if problem == "stream_error":
        assert answer.json["details"] == {"message": message}
    assert sorted(os.listdir(home)) == ["dir", "fifo", "file"]
    assert (home / "file").read_text() == "old"


@pytest.mark.parametrize(
    ("method", "route", "query"),
    [
        ("GET", "file", {}),
        ("GET", "stat", {}),
        ("PUT", "file", {}),
        ("DELETE", "entry", {}),
        ("POST", "mkdir", {}),
        ("POST", "chmod", {}),
        ("POST", "chmod", {"path": "file"}),
        ("POST", "chmod", {"path": "file", "mode": "rw"}),
        ("POST", "chmod", {"path": "file", "mode": "0o644"}),
        ("DELETE", "entry", {"path": "file", "recursive": "1"}),
        ("PUT", "file", {"path": "file", "append": "yes"}),
        ("PUT", "file", {"path": "file", "mode": "99999"}),
        ("GET", "file", {"path": "file", "guess": "True"}),
        ("GET", "entries", {"limit": "0"}),
        ("GET", "entries", {"limit": "-1"}),
        ("GET", "entries", {"limit": "\u0661"}),
    ],
)
async def test_queries_that_do_not_fit_are_refused(
    api: FileClient, home: Path, method: str, route: str, query: dict[str, str]
) -> None:
    (home / "file").write_text("old")
    answer = await api(method, route, b"x" if method == "PUT" else b"", **query)
    assert (answer.status, answer.problem) == (400, "invalid_request")
    assert (home / "file").read_text() == "old"


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{}", {}, 415),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b"", JSON, 400),
        (b"{", JSON, 400),
        (b"\xff", JSON, 400),
        (b'{"from":' + b"[" * 5000, JSON, 422),
        (b"{}", JSON, 422),
        (b"[]", JSON, 422),
        (b'{"from":"a"}', JSON, 422),
        (b'{"from":"a","to":7}', JSON, 422),
        (b'{"from":"a","to":"b","overwrite":"true"}', JSON, 422),
    ],
)
async def test_a_move_without_a_proper_body_is_refused(
    api: FileClient, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await api("POST", "move", body, headers)
    assert answer.status == status
    assert answer.problem


async def test_other_methods_are_told_which_there_are(api: FileClient) -> None:
    answer = await api("POST", "file", b"")
    assert (answer.status, answer.headers["allow"]) == (405, "GET,HEAD,PUT")
    assert (await api("GET", "nothing")).status == 404
    assert (await exchange(api.daemon.port, "GET", "/v1/fs/entries/")).status == 404


async def test_a_large_directory_comes_in_pages(api: FileClient, home: Path) -> None:
    for number in range(7):
        (home / f"{number}").write_text("")
    names: list[str] = []
    while page := (await api("GET", "entries", limit="3", after=names[-1] if names else "")).json:
        names += [entry["name"] for entry in page]
    assert names == list("0123456")


async def test_links_are_shown_as_links(api: FileClient, home: Path) -> None:
    (home / "dir").mkdir()
    (home / "link").symlink_to("dir")
    (home / "gone").symlink_to("nowhere")
    entries: dict[str, Any] = {entry["name"]: entry for entry in (await api("GET", "entries")).json}
    assert "symlink" not in entries["dir"]
    assert (entries["link"]["entryType"], entries["link"]["symlink"], entries["link"]["target"]) == (
        "file",
        True,
        "dir",
    )
    stat = (await api("GET", "stat", path="link")).json
    assert (stat["entryType"], stat["symlink"], stat["target"]) == ("directory", True, "dir")
    assert (await api("GET", "stat", path="gone")).json["dangling"] is True
    assert (await api("DELETE", "entry", path="gone")).status == 200
    assert (await api("DELETE", "entry", path="link")).status == 200
    assert os.listdir(home) == ["dir"]


async def test_permissions_are_kept_asked_for_and_set(api: FileClient, home: Path) -> None:
    assert (await api.put("script", b"#!/bin/sh", mode="755")).status == 200
    assert (await api.put("script", b"#!/bin/bash")).status == 200
    assert (await api("GET", "stat", path="script")).json["mode"] == "0755"
    answer = await api("POST", "chmod", path="script", mode="0600")
    assert answer.body == f'{{"path":"{home}/script","mode":"0600"}}'.encode()
    assert (await api("GET", "entries")).json[0]["mode"] == "0600"


async def test_a_files_type_is_guessed_if_so_asked_and_never_acts_as_our_page(api: FileClient, home: Path) -> None:
    (home / "page.html").write_text("<script>")
    (home / "naïve file.bin").write_text("")
    plain = await api.get("page.html")
    assert plain.headers["content-type"] == "application/octet-stream"
    guessed = await api.get("page.html", guess="true")
    assert guessed.headers["content-type"] == "text/html"
    for answer in (plain, guessed):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"] == "sandbox"
    assert "content-disposition" not in plain.headers
    answer = await api.get("naïve file.bin", guess="true", download="true")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''na%C3%AFve%20file.bin"


async def test_head_tells_what_get_would_and_reads_nothing(api: FileClient, home: Path) -> None:
    (home / "small").write_text("x")
    with (home / "huge").open("wb") as file:
        file.truncate(1 << 40)
    for name in ("small", "huge"):
        answer = await api("HEAD", "file", path=name)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["content-length"] == str((home / name).stat().st_size)
    answer = await api("HEAD", "file", b"", {"Range": "bytes=1000-"}, path="huge")
    assert (answer.status, answer.headers["content-length"]) == (206, str((1 << 40) - 1000))


async def test_files_of_the_kernels_own_are_read_to_their_end(api: FileClient) -> None:
    answer = await api.get("/proc/self/status")
    assert b"VmRSS" in answer.body
    assert "etag" not in answer.headers
    for method in ("GET", "HEAD"):
        answer = await api(method, "file", path="/proc/version")
        assert answer.status == 200


async def test_names_with_anything_in_them_go_both_ways(api: FileClient, home: Path) -> None:
    for name in ("a b", "ä\u202e", "100%", "a+b&c=d?e#f", 'quote"\\', "new\nline", "x" * 255):
        assert (await api.put(name, name.encode())).json["path"] == f"{home}/{name}"
        assert (await api.get(name)).body == name.encode()
        assert name in [entry["name"] for entry in (await api("GET", "entries")).json]
        assert (await api("POST", "move", {"from": name, "to": "moved", "overwrite": True})).status == 200


async def test_within_a_root_nothing_else_is_reached(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (root / "out").symlink_to("..")
    (tmp_path / "secret").write_text("secret")
    async with serving(tmp_path, environment={"HOME": str(root / "dir")}, fs_root=root) as daemon:
        api = FileClient(daemon, root)
        assert (await api.put("file", b"x")).json["path"] == f"{root}/dir/file"
        assert (await api.get(f"{root}/dir/../dir/file")).body == b"x"
        for path in ("/etc/passwd", f"{tmp_path}/secret", f"{root}/../secret", f"{root}/out/secret"):
            requests: list[tuple[str, str, object, dict[str, str]]] = [
                ("GET", "file", b"", {"path": path}),
                ("GET", "stat", b"", {"path": path}),
                ("GET", "entries", b"", {"path": path + "/.."}),
                ("PUT", "file", b"x", {"path": path}),
                ("DELETE", "entry", b"", {"path": path}),
                ("POST", "mkdir", b"", {"path": path + "/x"}),
                ("POST", "chmod", b"", {"path": path, "mode": "777"}),
                ("POST", "move", {"from": path, "to": "x"}, {}),
                ("POST", "move", {"from": "file", "to": path}, {}),
            ]
            for method, route, body, query in requests:
                answer = await api(method, route, body, **query)
                assert (answer.status, answer.problem) == (403, "permission_denied"), (method, route, path)
                assert "outside of the root" in answer.json["details"]["message"]
    assert (tmp_path / "secret").read_text() == "secret"


async def test_a_root_that_is_not_there_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"cannot use --fs-root .*: No such file or directory"):
        async with serving(tmp_path, fs_root=tmp_path / "missing"):
            pass
