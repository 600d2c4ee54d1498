from __future__ import annotations

import os
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_actors.errors import InvalidRequest
from sandbox_actors.files import FileSystem, NotADirectory, NotAFile, OutsideRoot, PathNotFound
from sandbox_actors.searching.excerpt import excerpt
from sandbox_actors.searching.globs import BadGlob, Globs
from sandbox_actors.searching.query import BadPattern, Query
from sandbox_actors.searching.records import Line
from sandbox_actors.searching.search import MOST_AT_ONCE, Searches, SearchFailed, TooManySearches
from support.processes import eventually, processes_with

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from sandbox_actors.searching.records import Name
    from sandbox_actors.searching.search import Engine, Search

needs_ripgrep = pytest.mark.skipif(shutil.which("rg") is None, reason="needs ripgrep on PATH")
ENGINES = ["python", pytest.param("ripgrep", marks=needs_ripgrep)]

CATASTROPHE = "(a+)+b"
"""An expression that Python's engine never finishes with."""


def searches(home: Path, engine: Engine = "python", root: Path | None = None) -> Searches:
    path = os.environ["PATH"] if engine == "ripgrep" else ""
    return Searches(FileSystem(home, root), {"PATH": path}, f"owner-{home}", "run")


@asynccontextmanager
async def found(searches: Searches, search: Search) -> AsyncGenerator[list[Name | Line]]:
    """All that a search finds, by path and line."""
    records: list[Name | Line] = []
    async with searches.searching(search) as finds:
        while (more := await finds.read()) is not None:
            records += more
        yield sorted(records, key=lambda one: (one.path, one.line if isinstance(one, Line) else 0))


async def lines(home: Path, engine: Engine, query: Query, path: str = "") -> list[tuple[str, int, int, str]]:
    among = searches(home, engine)
    search = await among.prepare(path, query)
    assert search.engine == engine
    async with found(among, search) as records:
        return [(one.path, one.line, one.column, one.text) for one in records if isinstance(one, Line)]


async def names(home: Path, *globs: str, **query: str) -> list[str]:
    among = searches(home)
    async with found(among, await among.prepare("", Query(globs=globs, **query))) as records:  # type: ignore[arg-type]
        return [one.path for one in records]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for path, content in {
        "main.py": b"import os\nprint('Hello')\n",
        "src/deep/hello.py": b"# hello, hello\r\nhello = 1\r\n",
        "src/other.txt": "nothing\nsay h\u00e9llo: hello".encode(),
        ".hidden/config": b"hello\n",
        ".gitignore": b"ignored\n",
        "ignored": b"hello\n",
        "binary": b"hello\0hello\n",
        "broken": b"\xff\xf0 is hello\n",
        "node_modules/x.py": b"hello\n",
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (tmp_path / "link.py").symlink_to("main.py")
    (tmp_path / "outside").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize("engine", ENGINES)
async def test_lines_are_found_wherever_they_are_but_in_binary_files(tree: Path, engine: Engine) -> None:
    assert await lines(tree, engine, Query("hello")) == [
        (".hidden/config", 1, 1, "hello"),
        ("broken", 1, 7, "\ufffd\ufffd is hello"),
        ("ignored", 1, 1, "hello"),
        ("node_modules/x.py", 1, 1, "hello"),
        ("src/deep/hello.py", 1, 3, "# hello, hello"),
        ("src/deep/hello.py", 2, 1, "hello = 1"),
        ("src/other.txt", 2, 12, "say h\u00e9llo: hello"),
    ]


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_search_takes_an_expression_or_a_text_in_any_case(tree: Path, engine: Engine) -> None:
    globs = ("*.py", "!node_modules")
    assert await lines(tree, engine, Query(r"^h\w+ = \d$", globs=globs)) == [("src/deep/hello.py", 2, 1, "hello = 1")]
    assert await lines(tree, engine, Query("print('H", fixed=True)) == [("main.py", 2, 1, "print('Hello')")]
    found = await lines(tree, engine, Query("HELLO", ignore_case=True, globs=globs))
    assert [(path, line) for path, line, *_ in found] == [
        ("main.py", 2),
        ("src/deep/hello.py", 1),
        ("src/deep/hello.py", 2),
    ]
    assert await lines(tree, engine, Query("-e")) == []
    assert await lines(tree, engine, Query("--help")) == []


@pytest.mark.parametrize("engine", ENGINES)
async def test_all_matches_of_a_line_are_told(tree: Path, engine: Engine) -> None:
    among = searches(tree, engine)
    async with found(among, await among.prepare("src", Query("h.llo"))) as records:
        spans = {one.path: one.spans for one in records if isinstance(one, Line) and one.line != 2}
        last = [one.spans for one in records if isinstance(one, Line) and one.path == "other.txt"]
    assert spans == {"deep/hello.py": [(2, 7), (9, 14)]}
    assert last == [[(4, 9), (11, 16)]]


@pytest.mark.parametrize("engine", ENGINES)
async def test_one_file_may_be_searched(tree: Path, engine: Engine) -> None:
    assert await lines(tree, engine, Query("hello"), "src/other.txt") == [("other.txt", 2, 12, "say h\u00e9llo: hello")]
    (tree / "-e").write_text("hello\n")
    assert await lines(tree, engine, Query("hello"), "-e") == [("-e", 1, 1, "hello")]


@pytest.mark.parametrize("engine", ENGINES)
async def test_of_a_long_line_the_part_round_the_match_is_told(tmp_path: Path, engine: Engine) -> None:
    (tmp_path / "min.js").write_text("\u00fc" * 5000 + "needle" + "y" * 500_000 + "\n" + "needle\n")
    among = searches(tmp_path, engine)
    async with found(among, await among.prepare("", Query("needle"))) as records:
        first, second = records
    assert isinstance(first, Line)
    assert first.column == 5001
    assert first.cut
    assert first.text == "\u00fc" * 100 + "needle" + "y" * 894
    assert first.spans == [(100, 106)]
    assert isinstance(second, Line)
    assert (second.line, second.text, second.cut) == (2, "needle", False)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("pattern", ["(", "[z-a]", "*", "a{2,1}"])
async def test_a_pattern_that_is_none_is_refused_before_anything_is_searched(
    tree: Path, engine: Engine, pattern: str
) -> None:
    with pytest.raises(BadPattern, match="no regular expression"):
        await searches(tree, engine).prepare("", Query(pattern))
    assert await lines(tree, engine, Query(pattern + "~~", fixed=True)) == []


@pytest.mark.parametrize(
    "query",
    [Query(""), Query("a\nb"), Query("a\0"), Query("a" * 5000), Query(globs=("[",)), Query("a", globs=("{a",))],
)
async def test_a_query_that_makes_no_sense_is_refused(tree: Path, query: Query) -> None:
    with pytest.raises(InvalidRequest):
        await searches(tree).prepare("", query)


async def test_what_cannot_be_searched_is_told(tree: Path) -> None:
    among = searches(tree)
    with pytest.raises(PathNotFound):
        await among.prepare("none", Query("x"))
    with pytest.raises(NotADirectory):
        await among.prepare("main.py", Query())
    with pytest.raises(NotAFile):
        await among.prepare("pipe", Query("x"))
    with pytest.raises(NotAFile):
        await among.prepare("link.py", Query("x"))
    with pytest.raises(OutsideRoot):
        await searches(tree, root=tree / "src").prepare(str(tree), Query("x"))


async def test_names_are_found_by_globs(tree: Path) -> None:
    everything = await names(tree)
    assert everything == [
        ".gitignore", ".hidden", ".hidden/config", "binary", "broken", "ignored", "link.py", "main.py",
        "node_modules", "node_modules/x.py", "outside", "pipe", "src", "src/deep", "src/deep/hello.py",
        "src/other.txt",
    ]  # fmt: skip
    assert await names(tree, "*.py", "!node_modules") == ["link.py", "main.py", "src/deep/hello.py"]
    assert await names(tree, "src/**") == ["src/deep", "src/deep/hello.py", "src/other.txt"]
    assert await names(tree, type="directory") == [".hidden", "node_modules", "src", "src/deep"]
    assert await names(tree, "!src", "!.*", "!node_modules", type="file") == [
        "binary", "broken", "ignored", "link.py", "main.py", "outside", "pipe",
    ]  # fmt: skip


async def test_links_are_told_and_not_followed(tree: Path) -> None:
    among = searches(tree)
    async with found(among, await among.prepare("", Query(globs=("outside", "passwd")))) as records:
        assert [(one.path, one.target) for one in records if not isinstance(one, Line)] == [("outside", "/etc")]


@pytest.mark.parametrize("engine", ["python"])
async def test_within_a_root_only_our_own_program_searches(tree: Path, engine: Engine) -> None:
    confined = Searches(FileSystem(tree, tree), {"PATH": os.environ["PATH"]}, f"owner-{tree}", "run")
    search = await confined.prepare(str(tree), Query("hello"))
    assert search.engine == engine
    async with found(confined, search) as records:
        assert len(records) == 7


async def test_an_expression_that_takes_for_ever_holds_nobody_up_and_dies_with_its_search(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a" * 60 + "\n")
    among = searches(tmp_path)
    search = await among.prepare("", Query(CATASTROPHE))
    marker = "SANDBOX_AGENT"
    with trio.fail_after(20):
        async with among.searching(search) as finds:
            with trio.move_on_after(0.2) as waiting:
                await finds.read()
            assert waiting.cancelled_caught
            assert finds.passed_over == 0
            mine = [pid for pid in processes_with(marker) if _searches_in(pid, tmp_path)]
            assert mine
        await eventually(lambda: not any(_searches_in(pid, tmp_path) for pid in mine))


def _searches_in(pid: int, folder: Path) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/cwd") == str(folder)
    except OSError:
        return False


async def test_there_are_not_too_many_searches_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a" * 60 + "\n")
    among = searches(tmp_path)
    search = await among.prepare("", Query(CATASTROPHE))
    started = trio.Semaphore(0)

    async def hold() -> None:
        async with among.searching(search):
            started.release()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        for _ in range(MOST_AT_ONCE):
            nursery.start_soon(hold)
        for _ in range(MOST_AT_ONCE):
            await started.acquire()
        with pytest.raises(TooManySearches):
            async with among.searching(search):
                pass
        nursery.cancel_scope.cancel()
    async with found(among, await among.prepare("", Query("aaa"))) as records:
        assert len(records) == 1


async def test_a_program_that_cannot_be_started_or_fails_is_told(tmp_path: Path) -> None:
    among = searches(tmp_path)
    search = await among.prepare("", Query("x"))
    for argv in (["/no/such/program"], ["/bin/sh", "-c", "exit 3"]):
        search.argv[:] = argv
        with pytest.raises(SearchFailed):
            async with found(among, search):
                pass


async def test_what_cannot_be_read_is_passed_over_and_counted(tree: Path) -> None:
    (tree / "src").chmod(0)
    (tree / "ignored").chmod(0)
    if os.access(tree / "ignored", os.R_OK):
        pytest.skip("nothing is closed to us")
    among = searches(tree)
    async with among.searching(await among.prepare("", Query("hello"))) as finds:
        while await finds.read() is not None:
            pass
    assert finds.passed_over == 2
    (tree / "src").chmod(0o755)


@pytest.mark.parametrize(
    ("globs", "path", "wanted"),
    [
        ([], "a/b", True),
        (["*.py"], "a/b.py", True),
        (["*.py"], "a/b.pyc", False),
        (["/*.py"], "a/b.py", False),
        (["/*.py"], "b.py", True),
        (["a/*.py"], "a/b.py", True),
        (["a/*.py"], "a/b/c.py", False),
        (["a/**/c.py"], "a/c.py", True),
        (["a/**/c.py"], "a/b/b/c.py", True),
        (["**/c"], "c", True),
        (["**/c"], "a/b/c", True),
        (["a/**"], "a", False),
        (["a/**"], "a/b/c", True),
        (["**"], "a/b", True),
        (["a**b"], "axxb", True),
        (["?"], "ab", False),
        (["[a-c]x"], "bx", True),
        (["[!a-c]x"], "bx", False),
        (["[]]"], "]", True),
        (["[^]a]"], "]", False),
        (["*.{py,txt}"], "a.txt", True),
        (["*.{py,txt}"], "a.md", False),
        (["{src,lib}/*"], "lib/a", True),
        (["a,b}"], "a,b}", True),
        ([r"\*"], "*", True),
        ([r"\*"], "a", False),
        (["!*.py"], "a.py", False),
        (["!*.py"], "a.txt", True),
        (["*.py", "!b.py"], "b.py", False),
        (["!b.py", "*.py"], "b.py", True),
        (["a/"], "a", False),
        (["a+(b)"], "a+(b)", True),
    ],
)
def test_globs_are_those_of_ripgrep(globs: list[str], path: str, wanted: bool) -> None:
    assert Globs(globs).wants(path) is wanted


def test_folders_that_are_not_wanted_are_not_entered() -> None:
    globs = Globs(["!node_modules/", "*.py"])
    assert not globs.enters("a/node_modules")
    assert globs.enters("a")
    assert not globs.wants("node_modules", folder=True)


@pytest.mark.parametrize("glob", ["", "!", "/", "[", "[a", "{a", "a\\", "[z-a]"])
def test_a_glob_that_is_none_is_refused(glob: str) -> None:
    with pytest.raises(BadGlob):
        Globs([glob])


def test_an_excerpt_is_round_the_first_match() -> None:
    assert excerpt("short", [(0, 2)]) == ("short", [(0, 2)], False)
    text, spans, cut = excerpt("x" * 3000, [(2990, 2995)])
    assert (len(text), spans, cut) == (1000, [(990, 995)], True)
    text, spans, cut = excerpt("x" * 3000, [(0, 3000), (2999, 3000)])
    assert (len(text), spans, cut) == (1000, [(0, 1000)], True)
    assert excerpt("x" * 200, [(at, at + 1) for at in range(200)])[2]
