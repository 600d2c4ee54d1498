"""Files are found over HTTP: by their names and by what stands in them, at once or as they are found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from urllib.parse import urlencode

import pytest
import trio

from support.processes import children_of, eventually
from support.serving import Resources, serving
from support.wire import Answer, Json, Stream, exchange

NDJSON = {"Accept": "application/x-ndjson"}
CATASTROPHE = "(a+)+b"
"""An expression that Python's engine never finishes with; ripgrep's has no such."""


def target(route: str, path: Path | str, *globs: str, **query: str) -> str:
    return f"/v1/fs/{route}?" + urlencode([("path", str(path)), *[("glob", glob) for glob in globs], *query.items()])


def lines(answer: Answer) -> list[Json]:
    return [json.loads(line) for line in answer.body.splitlines()]


def searching_in(folder: Path) -> list[int]:
    """Processes that this one has started and that work in a folder."""
    found: list[int] = []
    for pid in children_of(os.getpid()):
        try:
            if os.readlink(f"/proc/{pid}/cwd") == str(folder):
                found.append(pid)
        except OSError:
            continue
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    for path, text in {"a.py": "import os\nneedle = 1\n", "b/c.py": "# Needle\n", "b/d.txt": "needle needle\n"}.items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_text(text)
    os.utime(top / "b" / "d.txt", (1_500_000_000, 1_500_000_000))
    (top / "b" / "d.txt").chmod(0o640)
    (top / "link").symlink_to("a.py")
    return top


async def test_names_are_found_as_entries(tree: Path, tmp_path: Path) -> None:
    async with serving(tmp_path / "home") as daemon:
        answer = await exchange(daemon.port, "GET", target("find", tree, "*.txt", "link"))
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        link, text = sorted(answer.json["entries"], key=lambda entry: entry["path"], reverse=True)
        assert text == {
            "type": "entry",
            "name": "d.txt",
            "path": f"{tree}/b/d.txt",
            "entryType": "file",
            "size": 14,
            "modified": "2017-07-14T02:40:00+00:00",
            "mode": "0640",
        }
        assert (link["path"], link["symlink"], link["target"]) == (f"{tree}/link", True, "a.py")
        rest = {name: value for name, value in answer.json.items() if name != "entries"}
        assert rest == {
            "path": str(tree), "engine": "python", "truncated": False, "reason": None, "passedOver": 0,
        }  # fmt: skip
        folders = await exchange(daemon.port, "GET", target("find", tree, type="directory"))
        assert [entry["name"] for entry in folders.json["entries"]] == ["b"]


async def test_lines_are_found_as_they_come(tree: Path, tmp_path: Path) -> None:
    async with serving(tmp_path / "home") as daemon:
        answer = await exchange(daemon.port, "GET", target("grep", tree, "*.txt", pattern="ne+dle"), NDJSON)
        assert answer.headers["content-type"] == "application/x-ndjson"
        begin, match, end = lines(answer)
        assert (begin["type"], begin["path"]) == ("begin", str(tree))
        assert match == {
            "type": "match",
            "path": f"{tree}/b/d.txt",
            "line": 1,
            "column": 1,
            "text": "needle needle",
            "matches": [{"start": 0, "end": 6}, {"start": 7, "end": 13}],
        }
        assert (end["type"], end["count"], end["truncated"], end["passedOver"]) == ("end", 1, False, 0)
        answer = await exchange(
            daemon.port, "GET", target("grep", f"{tree}/b/c.py", pattern="NEEDLE", ignoreCase="true", fixed="true")
        )
        assert [match["path"] for match in answer.json["matches"]] == [f"{tree}/b/c.py"]


async def test_no_more_is_told_than_was_asked_for(tree: Path, tmp_path: Path) -> None:
    (tree / "many").write_text("needle\n" * 5000)
    async with serving(tmp_path / "home") as daemon:
        for headers in ({}, NDJSON):
            answer = await exchange(daemon.port, "GET", target("grep", tree, "many", pattern="n", limit="3"), headers)
            found = lines(answer)[1:-1] if headers else answer.json["matches"]
            end = lines(answer)[-1] if headers else answer.json
            assert [match["line"] for match in found] == [1, 2, 3]
            assert (end["truncated"], end["reason"]) == (True, "limit")
        default = await exchange(daemon.port, "GET", target("grep", tree, "many", pattern="n"))
        assert len(default.json["matches"]) == 1000
        exact = await exchange(daemon.port, "GET", target("grep", tree, "many", pattern="n", limit="5000"))
        assert (len(exact.json["matches"]), exact.json["truncated"]) == (5000, False)
        await eventually(lambda: not searching_in(tree))


async def test_what_makes_no_sense_is_told_before_anything_is_searched(tree: Path, tmp_path: Path) -> None:
    async with serving(tmp_path / "home", fs_root=tree) as daemon:
        outcomes = {
            "/v1/fs/find": (400, "missing required 'path'"),
            target("grep", tree): (400, "missing required 'pattern'"),
            target("grep", tree, pattern="("): (400, "no regular expression"),
            target("grep", tree, pattern=""): (400, "is empty"),
            target("grep", tree, "[", pattern="x"): (400, "bracket"),
            target("grep", tree, pattern="x", fixed="1"): (400, "must be 'true' or 'false'"),
            target("find", tree, limit="0"): (400, "must be a positive number"),
            target("find", tree, timeout="-1"): (400, "must be a positive number"),
            target("find", tree, type="link"): (400, "expected one of"),
            target("find", tree / "none"): (400, "path not found"),
            target("find", tree / "a.py"): (400, "path is not a directory"),
            target("find", tmp_path): (403, "permission denied"),
        }
        for headers in ({}, NDJSON):
            for path, (status, said) in outcomes.items():
                answer = await exchange(daemon.port, "GET", path, headers)
                assert (answer.status, said in answer.detail) == (status, True), answer
        head = await exchange(daemon.port, "HEAD", target("grep", tree, pattern="x"))
        assert (head.status, head.body) == (200, b"")


async def endless(tree: Path) -> str:
    """A search that does not end by itself, whoever searches: Python is caught in it, ripgrep in a large file."""
    (tree / "endless").write_text("needle\n" + "a" * 60 + "\n")
    return target("grep", tree, "endless", pattern=f"needle|{CATASTROPHE}", timeout="600")


async def test_a_search_ends_with_its_client_with_all_its_processes(tree: Path, tmp_path: Path) -> None:
    # Within a root our own program searches, which can be caught.
    async with serving(tmp_path / "home", fs_root=tree) as daemon:
        await exchange(daemon.port, "GET", "/v1/health")
        before = Resources.now()
        async with Stream.open(daemon.port, await endless(tree), NDJSON) as stream:
            await stream.until(b'"type":"match"')
            assert searching_in(tree)
            answer = await exchange(daemon.port, "GET", "/v1/health", within=2)  # nobody else is held up
            assert answer.status == 200
        with trio.fail_after(10):
            await eventually(lambda: not searching_in(tree))
        await before.back()


async def test_a_search_ends_at_its_deadline_with_what_it_has(tree: Path, tmp_path: Path) -> None:
    async with serving(tmp_path / "home", fs_root=tree) as daemon:
        slow = (await endless(tree)).replace("timeout=600", "timeout=1")
        answer = await exchange(daemon.port, "GET", slow)
        assert [match["text"] for match in answer.json["matches"]] == ["needle"]
        assert (answer.json["truncated"], answer.json["reason"]) == (True, "deadline")
        assert not searching_in(tree)


async def test_a_client_that_reads_slowly_holds_up_its_search_and_nobody_else(tree: Path, tmp_path: Path) -> None:
    (tree / "large").write_text(("needle " * 140 + "\n") * 30_000)
    async with serving(tmp_path / "home", fs_root=tree) as daemon:
        path = target("grep", tree, "large", pattern="^needle", limit="1000000")
        async with Stream.open(daemon.port, path, NDJSON) as stream:
            await stream.until(b'"type":"match"')
            (pid,) = searching_in(tree)
            with trio.fail_after(20):
                await eventually(lambda: sleeps(pid))  # in a write to a full pipe: there is nothing else to wait for
            assert (await exchange(daemon.port, "GET", "/v1/health")).status == 200
            read, last = 0, b""
            while more := await stream.more():
                read, last = read + len(more), last[-1000:] + more
                stream.body = b""
            end = json.loads(last.splitlines()[-1])
        assert (end["count"], end["truncated"]) == (30_000, False)
        assert read > 30 << 20


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"
