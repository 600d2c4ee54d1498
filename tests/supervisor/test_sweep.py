from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from sandbox_supervisor import bearers
from sandbox_supervisor.sweep import COOKIE_VARIABLE, Cookie, pids, sweep, sweep_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., subprocess.Popen[bytes]]

# Any character at all, lone surrogates included.
ANYTHING = st.text(st.characters())


@given(ANYTHING, ANYTHING, ANYTHING)
def test_cookie_comes_back_from_its_text_whatever_its_parts_are(owner: str, run: str, name: str) -> None:
    cookie = Cookie(owner, run, name)
    text = str(cookie)
    assert Cookie.parse(text) == cookie
    assert text.startswith(cookie.prefix)
    assert text.isascii()
    assert "\0" not in text


@given(st.text(alphabet="ab/%01eEfF é\ud800"))
def test_text_is_either_no_cookie_or_one_that_renders(text: str) -> None:
    cookie = Cookie.parse(text)
    if cookie is not None:
        assert Cookie.parse(str(cookie)) == cookie


@pytest.mark.parametrize("text", ["", "a", "a/b", "a/b/c/d", "a/b/%", "a/b/%4", "a/b/%zz", "a/b/%ff", "a/b/% 1"])
def test_malformed_text_is_no_cookie(text: str) -> None:
    assert Cookie.parse(text) is None


def test_only_matching_processes_are_listed_and_killed(start: Start, cookie: Cookie) -> None:
    mine = start(cookie, "sleep", "1000")
    other = start(Cookie(cookie.owner, "other-" + cookie.run, "child"), "sleep", "1000")
    malformed = start("not a cookie", "sleep", "1000")
    assert pids(lambda found: found == cookie) == [mine.pid]
    assert sweep(lambda found: found.run == cookie.run) == 1
    assert mine.wait() == -signal.SIGKILL
    assert other.poll() is None
    assert malformed.poll() is None


def test_cookie_is_found_anywhere_in_an_environment_of_any_size(cookie: Cookie) -> None:
    # Around the size of one read, too.
    for before, after in [([], []), ([1], [1]), ([100_000] * 5, [1]), ([1], [100_000] * 5), ([32 * 1024 - 40], [10])]:
        with subprocess.Popen(
            ["/bin/cat"],
            env={f"BEFORE{number}": "x" * size for number, size in enumerate(before)}
            | {COOKIE_VARIABLE: str(cookie)}
            | {f"AFTER{number}": "x" * size for number, size in enumerate(after)},
            stdin=subprocess.PIPE,
        ) as child:
            assert pids(lambda found: found == cookie) == [child.pid]


def test_process_is_found_from_the_moment_its_start_returned(start: Start, cookie: Cookie) -> None:
    # `subprocess` returns in the middle of the exec, when the environment still reads as empty.
    for number in range(100):
        child = start(cookie, "sleep", "1000")
        # Past the listing of /proc, which takes longer than the exec on a quiet machine.
        assert bearers._carries(child.pid, str(cookie).__eq__), f"in round {number}"
        assert pids(lambda found: found == cookie) == [child.pid], f"in round {number}"
        child.kill()
        child.wait()


def test_process_without_an_environment_holds_nobody_up(cookie: Cookie) -> None:
    with subprocess.Popen(["/bin/cat"], env={}, stdin=subprocess.PIPE):
        begin = time.monotonic()
        assert pids(lambda found: found == cookie) == []
        assert time.monotonic() - begin < bearers.EXEC_SECONDS


def test_nothing_to_sweep_is_no_error() -> None:
    run = uuid.uuid4().hex
    assert sweep(lambda found: found.run == run) == 0


def test_zombies_are_not_alive(start: Start, cookie: Cookie) -> None:
    child = start(cookie, "true")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert pids(lambda found: found == cookie) == []
    assert sweep(lambda found: found == cookie) == 0


def test_sweeper_spares_itself(cookie: Cookie) -> None:
    program = (
        "import sys; from sandbox_supervisor.sweep import sweep\n"
        "sys.exit(10 + sweep(lambda found: found.run == sys.argv[1]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, cookie.run], env={COOKIE_VARIABLE: str(cookie)}, check=False, timeout=20
    )
    assert done.returncode == 10


def test_tree_that_keeps_growing_while_it_is_swept_is_swept_to_the_end(start: Start, cookie: Cookie) -> None:
    # Each shell starts others in sessions of their own, as fast as it can, four deep.
    grow = 'if [ "$1" -lt 4 ]; then for i in 1 2 3; do setsid sh -c "$GROW" sh $(($1 + 1)) & done; fi; echo; wait; cat'
    child = start(cookie, "env", f"GROW={grow}", "sh", "-c", grow, "sh", "0")
    assert child.stdout is not None
    child.stdout.readline()
    assert sweep(lambda found: found == cookie) > 1
    assert pids(lambda found: found == cookie) == []


def test_sweep_that_may_not_signal_gives_up_in_time(cookie: Cookie) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs two users")
    child = subprocess.Popen(["sleep", "1000"], env={"PATH": os.environ["PATH"], COOKIE_VARIABLE: str(cookie)})
    try:
        # Neither may nobody read the environment of root's process, nor signal it: it is left alone, at once.
        program = (
            "import os, sys; sys.path.insert(0, sys.argv[1]); import bearers\n"
            "os.setuid(65534); print(bearers.kill_bearers(lambda text: text == sys.argv[2], seconds=5))"
        )
        folder = os.path.dirname(sys.modules["sandbox_supervisor"].__file__ or "")
        found = subprocess.run(
            [sys.executable, "-I", "-S", "-c", program, folder, str(cookie)], capture_output=True, timeout=4, check=True
        )
        assert found.stdout == b"0\n"
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


async def test_sweep_in_a_thread_leaves_the_loop_free(start: Start, cookie: Cookie) -> None:
    children = [start(cookie, "sleep", "1000") for _ in range(5)]
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            before = trio.current_time()
            await trio.sleep(0.001)
            longest = max(longest, trio.current_time() - before)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        assert await sweep_in_thread(lambda found: found == cookie) == len(children)
        nursery.cancel_scope.cancel()
    # The interpreter changes threads every 5 ms; a listing takes longer only on a machine with very many processes.
    assert longest < 0.1
