"""The server as the first process of a container: it is everybody's parent in the end, and signals reach it alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from support.docker_container import Container, container_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.docker_engine import Engine

pytestmark = pytest.mark.xdist_group("docker")

ORPHANS = 200

SETTLE_WITHIN = 5.0
"""Seconds until the last one is buried."""

GRACE = 8.0
"""Seconds that the server gives itself."""

DOUBLE_FORKS = """
import os, sys, time
count, seconds = int(sys.argv[1]), float(sys.argv[2])
ready, told = os.pipe()
for _ in range(count):
    if (child := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", str(seconds)])
        os._exit(0)
    os.waitpid(child, 0)
time.sleep(float(sys.argv[3]))
print("made", count)
"""


@pytest.fixture(scope="module")
def container(engine: Engine) -> Iterator[Container]:
    with container_of(engine) as container:
        yield container


def settled(container: Container) -> list[tuple[int, str, str, int]]:
    """The processes, as soon as there are but the server and its sentinel, or after all the time there is."""
    deadline = time.monotonic() + SETTLE_WITHIN
    while len(found := container.processes()) > 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def only_ours(found: list[tuple[int, str, str, int]]) -> bool:
    return sorted((name, state in "RS", parent) for _, name, state, parent in found) == [
        ("python", True, 1),
        ("sandbox-agent", True, 0),
    ]


def test_the_server_is_the_first_process_and_not_root(container: Container) -> None:
    found = container.processes()
    assert [(pid, parent) for pid, name, _, parent in found if name == "sandbox-agent"] == [(1, 0)], found
    assert container.do("sh", "-c", "id -un; grep ^Uid: /proc/1/status").split() == ["sandbox", "Uid:", *["1000"] * 4]


def test_two_hundred_orphans_that_end_are_buried(container: Container) -> None:
    # They end before the one that made them does: as orphans that nobody waits for.
    answer = container.run("python3", "-c", DOUBLE_FORKS, str(ORPHANS), "0.2", "1")
    assert answer["stdout"] == f"made {ORPHANS}\n", answer
    found = settled(container)
    assert only_ours(found), found


def test_two_hundred_orphans_that_do_not_end_are_ended_with_their_tree(container: Container) -> None:
    answer = container.run("python3", "-c", DOUBLE_FORKS, str(ORPHANS), "1000", "0")
    assert answer["stdout"] == f"made {ORPHANS}\n", answer
    found = settled(container)
    assert only_ours(found), found


def test_orphans_of_a_command_that_the_engine_ran_are_buried(container: Container) -> None:
    container.do("python3", "-c", DOUBLE_FORKS, "50", "0.2", "0")
    found = settled(container)
    assert only_ours(found), found


def test_a_stop_ends_everything_in_good_order(engine: Engine) -> None:
    with container_of(engine) as container:
        opened = container.ask("POST", "/v1/sessions", {"agent": "mock", "id": "talk"})
        assert opened.status_code == 201, opened.text
        started = container.ask("POST", "/v1/processes", {"command": "sleep", "args": ["1000"]})
        assert started.is_success, started.text
        start = time.monotonic()
        container.it.stop(timeout=30)
        assert time.monotonic() - start < GRACE
        assert container.state["ExitCode"] == 0
        assert "shutting down" in container.said
        assert "event=stopped" in container.said


def test_sessions_outlive_the_kill_of_the_first_process(engine: Engine) -> None:
    with container_of(engine) as container:
        assert container.ask("POST", "/v1/sessions", {"agent": "mock", "id": "talk"}).status_code == 201
        turn = container.ask("POST", "/v1/sessions/talk/prompt?wait=true", {"content": "before"}).json()
        assert "before" in turn["text"], turn
        before = container.ask("GET", "/v1/sessions/talk/events").json()["events"]
        container.it.kill("SIGKILL")
        assert container.ended(within=10) == 137
        container.start()
        after = container.ask("GET", "/v1/sessions/talk/events").json()["events"]
        assert after[: len(before)] == before
        turn = container.ask("POST", "/v1/sessions/talk/prompt?wait=true", {"content": "after"}).json()
        assert "after" in turn["text"], turn
