"""Who answers in the place of people: rules, what was answered with "always", and the clock."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from actors.permissions.asking import (
    ASK,
    OPTIONS,
    REQUESTED,
    RESOLVED,
    answer,
    asks,
    nothing_left,
    opened,
)
from actors.talking import prompt
from sandbox_actors.messages import Patch
from sandbox_actors.native import Changes
from sandbox_actors.permissions import Policy, Rule
from sandbox_actors.permissions.remembered import LIMIT, recall, remember, signature
from sandbox_actors.permissions.tool_call import ToolCall

if TYPE_CHECKING:
    from actors.talking import OpenHouse


@pytest.mark.parametrize(
    ("policy", "call", "option", "by"),
    [
        (Policy("allow_all"), {"kind": "execute"}, "yes", "policy:allow_all"),
        (Policy("deny_all"), {"kind": "read"}, "no", "policy:deny_all"),
        (Policy("allow_reads"), {"kind": "read"}, "yes", "policy:allow_reads"),
        (
            Policy("deny_all", (Rule("allow", path="src/**"),)),
            {"locations": [{"path": "/code/src/a"}]},
            "yes",
            "policy:rules[0]",
        ),
        (
            Policy(rules=(Rule("ask", tool="x"), Rule("deny", command="rm *"))),
            {"kind": "execute", "title": "rm a"},
            "no",
            "policy:rules[1]",
        ),
    ],
)
async def test_a_policy_answers_at_once(
    open_house: OpenHouse, policy: Policy, call: dict[str, Any], option: str, by: str
) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house, policy=policy)
        ended = await asks(client, acp, **call)
        requested = await watch.until(REQUESTED)
        resolved = await watch.until(RESOLVED)
        assert resolved.params["permissionId"] == requested.params["permissionId"]
        assert (resolved.params["optionId"], resolved.params["by"]) == (option, by)
        await ended()
        assert nothing_left(client)


async def test_a_policy_that_allows_leaves_to_people_what_it_cannot_allow(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house, policy=Policy("allow_all"))
        params = {"options": [OPTIONS[2]], "toolCall": {"toolCallId": "t"}}
        ended = await client.start("session/prompt", **prompt(acp, f"/ask-client {ASK} {json.dumps(params)}"))
        id = (await watch.until(REQUESTED)).params["permissionId"]
        await answer(client, id, option="no")
        await ended()
        assert nothing_left(client)


async def test_a_policy_never_chooses_always_where_once_is_offered(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house, policy=Policy("allow_all"))
        params = {"options": [OPTIONS[1], OPTIONS[0]], "toolCall": {"toolCallId": "t"}}
        ended = await client.start("session/prompt", **prompt(acp, f"/ask-client {ASK} {json.dumps(params)}"))
        assert (await watch.until(RESOLVED)).params["optionId"] == "yes"
        await ended()


async def test_a_request_is_known_by_what_was_told_of_its_tool_call_before(open_house: OpenHouse) -> None:
    """By ACP the tool call of a request is an update of one that was told of."""
    async with open_house() as house:
        policy = Policy("deny_all", (Rule("allow", kind="edit", path="**"),))
        client, watch, acp = await opened(house, policy=policy)
        ended = await client.start("session/prompt", **prompt(acp, "/write? plum.txt hello"))
        assert (await watch.until(RESOLVED)).params["by"] == "policy:rules[0]"
        await ended()


async def test_a_new_policy_decides_what_is_open(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house, policy=Policy(timeout=1000))
        ended = await asks(client, acp, kind="execute", rawInput={"command": "ls"})
        await watch.until(REQUESTED)
        assert len(client.session.timers.names()) == 1
        await client.session.ref.ask(Patch(Changes(policy=Policy(rules=(Rule("allow", command="ls"),)))))
        assert (await watch.until(RESOLVED)).params["by"] == "policy:rules[0]"
        await ended()
        assert nothing_left(client)


@pytest.mark.parametrize(
    ("on_timeout", "outcome", "option"),
    [("deny", "selected", "no"), ("allow", "selected", "yes"), ("cancel", "cancelled", None)],
)
async def test_nobody_answers_in_time(open_house: OpenHouse, on_timeout: Any, outcome: str, option: str | None) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house, policy=Policy(timeout=0.05, on_timeout=on_timeout))
        ended = await asks(client, acp, kind="execute", title="ls")
        resolved = (await watch.until(RESOLVED)).params
        assert (resolved["outcome"], resolved.get("optionId"), resolved["by"]) == (outcome, option, "timeout")
        await ended()
        assert nothing_left(client)


async def test_an_answer_with_always_is_given_again_when_the_same_is_asked(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        by: list[str] = []
        for line in ("git status", "git status", "git push"):
            ended = await asks(client, acp, kind="execute", rawInput={"command": line})
            requested = await watch.until(REQUESTED)
            if client.session.permissions.pending():
                await answer(client, requested.params["permissionId"], option="ever")
            by.append((await watch.until(RESOLVED)).params["by"])
            await ended()
        assert by == ["client", "remembered", "client"]
        assert len(client.session.memory.remembered) == 2
        await client.session.ref.ask(Patch(Changes(policy=Policy())))
        assert client.session.memory.remembered == {}


def test_only_what_tells_what_it_is_about_is_the_same_again() -> None:
    def known(**call: Any) -> str | None:
        return signature(ToolCall.of(call), "/code")

    assert known(title="Run a command") is None
    assert known(kind="fetch", rawInput={}) is None
    assert (
        known(kind="fetch", rawInput={"url": "a"}) == known(kind="fetch", title="x", rawInput={"url": "a"}) is not None
    )
    assert known(kind="fetch", rawInput={"url": "a"}) != known(kind="fetch", rawInput={"url": "b"})
    assert known(kind="edit", rawInput={"path": "a", "new": 1}) == known(
        kind="edit", rawInput={"path": "./a", "new": 2}
    )
    assert known(kind="edit", rawInput={"path": "a"}) != known(kind="delete", rawInput={"path": "a"})
    assert known(rawInput={"path": "a", "beside": "/b"}) != known(rawInput={"path": "a", "beside": "/c"})
    assert known(rawInput={"command": "ls", "cwd": "/a"}) != known(rawInput={"command": "ls", "cwd": "/b"})


@pytest.mark.parametrize(
    "call",
    [
        {"kind": "edit", "locations": [{"path": "~/a"}]},
        {"kind": "edit", "locations": [{"path": "a"}, {"path": "https://example.org/a"}]},
        {"kind": "edit", "rawInput": {"path": "a", "beside": "~/b"}},
        {"kind": "execute", "rawInput": {"command": "ls", "cwd": "~"}},
        {"kind": "execute", "rawInput": {"command": "make", "env": {"CC": "a"}}},
        {"kind": "execute", "rawInput": {"command": "sh", "stdin": "ls"}},
        {"kind": "execute", "rawInput": {"command": "git", "args": ["push", 1]}},
        {"kind": "execute", "title": "git status"},
    ],
)
def test_what_cannot_be_told_whole_is_never_the_same_again(call: dict[str, Any]) -> None:
    assert signature(ToolCall.of(call), "/code") is None


def test_the_newest_answers_are_kept() -> None:
    answers: dict[str, str] = {}
    for number in (0, *range(LIMIT), 0, LIMIT):
        remember(answers, str(number), "allow")
    assert (len(answers), recall(answers, "1"), recall(answers, "0")) == (LIMIT, None, "allow")


async def test_what_was_answered_with_always_holds_in_a_later_daemon(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch, acp = await opened(house)
        ended = await asks(client, acp, kind="execute", rawInput={"command": "git status"})
        await answer(client, (await watch.until(REQUESTED)).params["permissionId"], option="ever")
        await ended()
    async with open_house() as house:
        client, watch, acp = await opened(house)
        ended = await asks(client, acp, kind="execute", rawInput={"command": "git status"})
        assert await watch.until(
            lambda told: told.params.get("by") == "remembered" if "params" in told.message else False
        )
        await ended()
