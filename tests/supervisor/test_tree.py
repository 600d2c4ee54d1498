from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_supervisor import Mailbox, Node, RestartPolicy, supervise
from sandbox_supervisor.testing import ScriptedChild

if TYPE_CHECKING:
    from trio.testing import MockClock


def test_the_tree_is_the_nesting_of_the_program() -> None:
    root = Node("daemon", "root")
    with root.child("journal", "service"), root.child("sessions", "group") as sessions:
        with sessions.child("a", "session"), sessions.child("b", "session"):
            snapshot = root.snapshot()
            assert [child.name for child in snapshot.children] == ["journal", "sessions"]
            assert [(child.name, child.kind) for child in snapshot.children[1].children] == [
                ("a", "session"),
                ("b", "session"),
            ]
        assert root.snapshot().children[1].children == ()
    assert root.snapshot().children == ()


def test_a_node_leaves_the_tree_also_where_its_block_fails() -> None:
    root = Node("daemon", "root")
    with pytest.raises(LookupError), root.child("a", "session"):
        raise LookupError
    assert root.snapshot().children == ()


def test_two_nodes_alike_are_two_nodes() -> None:
    root, first, second = Node("daemon", "root"), Node("a", "session"), Node("a", "session")
    second.details["which"] = "second"
    with root.attached(second):
        with root.attached(first):
            assert len(root.snapshot().children) == 2
        (left,) = root.snapshot().children
        assert left.details == {"which": "second"}


def test_a_snapshot_does_not_change_any_more() -> None:
    node = Node("a", "session")
    node.details["pid"] = 7
    before = node.snapshot()
    node.details["pid"] = 8
    node.started(3)
    node.crashed("restarting")
    assert (before.details, before.incarnation, before.crashes, before.state) == ({"pid": 7}, 0, 0, "running")
    after = node.snapshot()
    assert (after.details, after.incarnation, after.crashes, after.state) == ({"pid": 8}, 3, 1, "restarting")


async def test_the_depth_is_that_of_the_mailbox_and_none_where_there_is_none() -> None:
    mailbox: Mailbox[str] = Mailbox(8)
    node = Node("a", "session", mailbox_depth=lambda: mailbox.depth)
    mailbox.ref.offer("one")
    mailbox.ref.offer("two")
    assert node.snapshot().mailbox == 2
    assert Node("b", "session").snapshot().mailbox is None


def test_since_is_when_the_state_changed_and_not_when_it_was_said_again() -> None:
    before = time.time_ns() // 1_000_000
    node = Node("a", "session")
    entered = node.snapshot().since_ms
    assert before <= entered <= time.time_ns() // 1_000_000
    _let_the_clock_move_on()
    node.state = "running"
    assert node.snapshot().since_ms == entered
    node.state = "ready"
    assert node.snapshot().since_ms > entered


def test_a_new_incarnation_is_news_even_where_its_state_has_the_same_word() -> None:
    node = Node("a", "session")
    node.started(1)
    first = node.snapshot()
    _let_the_clock_move_on()
    node.started(2)
    second = node.snapshot()
    assert (first.state, second.state) == ("running", "running")
    assert second.since_ms > first.since_ms


async def test_a_snapshot_tells_incarnation_crashes_and_state_of_supervised_children(
    autojump_clock: MockClock,
) -> None:
    root = Node("daemon", "root")

    async def keep(name: str, child: ScriptedChild) -> None:
        with root.child(name, "worker") as node:
            await supervise(child, RestartPolicy(backoff=1, backoff_limit=1), node=node)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep, "steady", ScriptedChild())
        nursery.start_soon(keep, "shaky", ScriptedChild(["crash", "crash"]))
        await trio.sleep(60)
        told = {child.name: (child.state, child.incarnation, child.crashes) for child in root.snapshot().children}
        assert told == {"steady": ("running", 1, 0), "shaky": ("running", 3, 2)}
        nursery.cancel_scope.cancel()
    assert root.snapshot().children == ()


def _let_the_clock_move_on() -> None:
    now = time.time()
    while time.time() - now < 0.002:
        pass
