"""What a person sees who sits at a terminal of a sandbox, read off an emulated screen (pyte) behind the WebSocket.

The programs are those that a terminal is for: they read keys as they are typed, draw where they like, ask for the size.
"""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from support.processes import command_of, eventually, processes_with
from support.screen import viewing
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.daemon import Daemon

WITHIN = 20.0
CTRL_C = "\x03"
ESCAPE = "\x1b"
ENTER = "\r"
SHELL = ("sh", "-i")


class Desk:
    """A daemon, and terminals on it."""

    def __init__(self, daemon: Daemon, http: httpx.AsyncClient, home: Path) -> None:
        self.daemon = daemon
        self.http = http
        self.home = home
        home.mkdir()

    @property
    def mark(self) -> str:
        """In the environment of everything that runs in a terminal of this desk."""
        return f"HOME={self.home}"

    async def start(self, *command: str, **environment: str) -> str:
        """The id of a new terminal with this program in it."""
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        settings = {"HOME": str(self.home), "PS1": "$ ", "ENV": "", "LC_ALL": "C.UTF-8", **environment}
        body = {
            "command": command[0],
            "args": command[1:],
            "tty": True,
            "interactive": True,
            "cwd": str(self.home),
            "env": settings,
        }
        answer = await self.http.post("/v1/processes", json=body)
        assert answer.status_code == 200, answer.text
        id: str = answer.json()["id"]
        return id

    async def types(self, terminal: str, keys: str) -> None:
        """By a request, with nobody looking on."""
        answer = await self.http.post(f"/v1/processes/{terminal}/input", json={"data": keys, "encoding": "text"})
        assert answer.status_code == 200, answer.text

    def runs(self, program: str) -> bool:
        return any(command_of(pid).startswith(program) for pid in processes_with(self.mark))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with (
        serving(tmp_path / "daemon") as daemon,
        httpx.AsyncClient(base_url=daemon.url, headers=daemon.headers, timeout=None, trust_env=False) as http,
    ):
        yield Desk(daemon, http, tmp_path / "home")


async def test_a_repl_answers_line_by_line_is_interrupted_and_left(desk: Desk) -> None:
    with trio.fail_after(WITHIN):
        python = await desk.start(sys.executable, "-q", PYTHON_BASIC_REPL="1")
        async with viewing(desk.daemon, python) as viewer:
            await viewer.until_line(">>>")
            await viewer.type(f"6 * 7{ENTER}")
            await viewer.until_line("42")
            await viewer.type(f"for word in 'grün', '日本':{ENTER}    print(word * 2){ENTER}{ENTER}")
            await viewer.until(lambda lines: "grüngrün" in lines and lines[-1] == ">>>")
            await viewer.type(f"while True: pass{ENTER}{ENTER}")
            await viewer.until(lambda lines: lines[-1] == "...")
            await viewer.type(CTRL_C)
            await viewer.until(lambda lines: lines[-2:] == ["KeyboardInterrupt", ">>>"])
            await viewer.type(f"exit(4){ENTER}")
            await viewer.closed.wait()
            assert viewer.exit_code == 4


async def test_a_pager_fills_the_screen_and_fills_it_again_at_another_size(desk: Desk) -> None:
    text = desk.home / "numbers"
    text.write_text("".join(f"line {number}\n" for number in range(1, 101)))
    with trio.fail_after(WITHIN):
        less = await desk.start("less", "numbers", LESS="", LESSHISTFILE="-")
        async with viewing(desk.daemon, less) as viewer:
            await viewer.until_line("line 23", at=22)
            assert viewer.lines[:22] == [f"line {number}" for number in range(1, 23)]
            await viewer.type(" ")
            await viewer.until_line("line 46", at=22)
            await viewer.resize(80, 10)
            await viewer.until_line("line 32", at=8)
            assert viewer.lines[0] == "line 24"
            await viewer.type("G")
            await viewer.until_line("line 100", at=8)
            assert viewer.lines[0] == "line 92"
            await viewer.type("/line 5")
            await viewer.until_line("/line 5", at=9)
            await viewer.type(ENTER + "gq")
            await viewer.closed.wait()
            assert viewer.exit_code == 0


@pytest.mark.parametrize("editor", ["vim", "vi"])
async def test_an_editor_writes_what_was_typed(desk: Desk, editor: str) -> None:
    with trio.fail_after(WITHIN):
        vim = await desk.start(editor, "-u", "NONE", "-i", "NONE", "-n", "notes.txt")
        async with viewing(desk.daemon, vim) as viewer:
            await viewer.until_line("~", at=22)
            await viewer.type("ihello")
            await viewer.until_line("hello", at=0)
            await viewer.type(f"{ENTER}wörld{ESCAPE}")
            await viewer.until(lambda lines: lines[:2] == ["hello", "wörld"])
            await viewer.type("ggg~$")
            await viewer.until_line("HELLO", at=0)
            await viewer.type(f":wq{ENTER}")
            await viewer.closed.wait()
            assert viewer.exit_code == 0
    assert (desk.home / "notes.txt").read_text() == "HELLO\nwörld\n"


async def test_ctrl_c_reaches_the_job_in_the_foreground_and_not_the_shell(desk: Desk) -> None:
    with trio.fail_after(WITHIN):
        async with viewing(desk.daemon, await desk.start(*SHELL)) as viewer:
            await viewer.until_line("$")
            await viewer.type(f"sleep 1000{ENTER}")
            await eventually(lambda: desk.runs("sleep"))
            await viewer.type(CTRL_C)
            await viewer.until(lambda lines: lines[-1] == "$" and len(lines) > 2)
            assert not desk.runs("sleep")
            await viewer.type(f"echo code $?{ENTER}")
            await viewer.until_line("code 130")
            await viewer.type(f"exit 3{ENTER}")
            await viewer.closed.wait()
            assert viewer.exit_code == 3


async def test_a_program_sees_the_size_and_its_change_by_socket_or_request(desk: Desk) -> None:
    with trio.fail_after(WITHIN):
        shell = await desk.start(*SHELL)
        async with viewing(desk.daemon, shell) as viewer:
            await viewer.until_line("$")
            await viewer.type(f"stty size{ENTER}")
            await viewer.until(lambda lines: lines[-2:] == ["24 80", "$"])
            await viewer.resize(120, 40)
            await viewer.type(f"stty size{ENTER}")
            await viewer.until(lambda lines: lines[-2:] == ["40 120", "$"])
            await desk.http.post(f"/v1/processes/{shell}/terminal/resize", json={"cols": 20, "rows": 5})
            viewer.screen.resize(5, 20)
            await viewer.type(f"clear; stty size{ENTER}")
            await viewer.until(lambda lines: lines == ["5 20", "$"])
            await viewer.type(f"clear; echo {'x' * 30}{ENTER}")
            await viewer.until(lambda lines: lines[:2] == ["x" * 20, "x" * 10])


async def test_who_comes_back_sees_the_screen_as_it_has_become(desk: Desk) -> None:
    with trio.fail_after(WITHIN):
        vim = await desk.start("vim", "-u", "NONE", "-i", "NONE", "-n", "notes.txt")
        async with viewing(desk.daemon, vim) as viewer:
            await viewer.until_line("~", at=22)
            await viewer.type(f"ihello{ESCAPE}:echo 'do' . 'ne'{ENTER}")
            await viewer.until(lambda lines: lines[-1] == "done" and viewer.cursor == (4, 0))
        left = viewer.screen.display

        async with viewing(desk.daemon, vim) as again:
            await again.until(lambda lines: lines[-1] == "done" and again.cursor == (4, 0))
            assert again.screen.display == left

        await desk.types(vim, f"oworld{ESCAPE}:echo 'a' . 'way'{ENTER}")
        async with viewing(desk.daemon, vim) as late:
            await late.until(lambda lines: lines[-1] == "away")
            assert late.lines[:3] == ["hello", "world", "~"]
            await late.type(f":q!{ENTER}")
            await late.closed.wait()
            assert late.exit_code == 0


async def test_two_viewers_see_the_same_whoever_types(desk: Desk) -> None:
    with trio.fail_after(WITHIN):
        shell = await desk.start(*SHELL)
        async with viewing(desk.daemon, shell) as ann:
            await ann.until_line("$")
            await ann.type(f"echo before{ENTER}")
            await ann.until(lambda lines: lines[-2:] == ["before", "$"])
            async with viewing(desk.daemon, shell) as bob:
                await bob.until(lambda lines: lines[-2:] == ["before", "$"])
                await ann.type(f"echo from ann{ENTER}")
                await bob.until(lambda lines: lines[-2:] == ["from ann", "$"])
                await bob.type(f"echo from bob{ENTER}")
                for viewer in (ann, bob):
                    await viewer.until(lambda lines: lines[-2:] == ["from bob", "$"])
                assert (ann.screen.display, ann.cursor) == (bob.screen.display, bob.cursor)
            await ann.type(f"echo alone{ENTER}")
            await ann.until_line("alone")
            await ann.type(f"exit{ENTER}")
            await ann.closed.wait()
