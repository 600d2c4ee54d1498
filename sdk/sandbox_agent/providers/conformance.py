"""Whether a provider keeps to what `provider` says: small checks, each on sandboxes of its own.

    await check_provider(MyProvider(), crash=kill_the_server, again=MyProvider, count=how_many)

or one by one, in a test suite:

    @pytest.mark.parametrize("check", CHECKS, ids=name_of)
    async def test_it_conforms(check):
        await check(Subject(provider=MyProvider(), crash=kill_the_server, again=MyProvider, count=how_many))

A check needs the built-in mock agent alone: no key, and no network but the one to the sandbox. It works under asyncio
and Trio, leaves nothing behind, and raises `AssertionError` with a sentence where the provider does otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeAlias

import anyio

from ..client import SandboxAgent
from ..errors import ProviderError, Unauthorized, UnsupportedByProvider
from ..recovery import Recovery
from .trial import (
    LOOK_EVERY,
    events_of,
    expect,
    expect_gone,
    new_token,
    open_session,
    sandbox_of,
    say,
    session_of,
    visit,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..session import Session
    from .provider import Provider

__all__ = ["CHECKS", "Check", "Subject", "check_provider", "name_of"]

GONE_WITHIN = 30.0
"""Seconds until a provider's own count shows that a sandbox is gone."""

MOMENTS = (0.01, 0.2, 1.0)
"""Seconds after which a `create` is cancelled: at its first request, while it waits, while the server starts."""

STRANGE_IDS = ("sandbox-that-never-was", "00000000-0000-0000-0000-000000000000")
"""Ids that look like some and are none's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is checked.

    Attributes:
      provider: makes the sandboxes.
      again: gives another object for the same sandboxes, as the application has one after it was started again.
      crash: kills the server in the sandbox of this id with SIGKILL, and returns when it is dead.
      count: how many sandboxes there are at the provider, whoever made them, ended ones left out.
      beside: makes the second sandbox where two are needed; by default `provider`. For providers whose sandboxes share
        something that only one can have, as a port.
      broken: one that cannot start a server, say for want of its program; without it a failed `create` is not tried.
    """

    provider: Provider
    again: Callable[[], Provider]
    crash: Callable[[str], Awaitable[None]]
    count: Callable[[], Awaitable[int]]
    beside: Provider | None = None
    broken: Provider | None = None


Check: TypeAlias = "Callable[[Subject], Awaitable[None]]"


async def check_provider(
    provider: Provider,
    *,
    crash: Callable[[str], Awaitable[None]],
    again: Callable[[], Provider],
    count: Callable[[], Awaitable[int]],
    beside: Provider | None = None,
    broken: Provider | None = None,
) -> None:
    """Make every check, one after the other.

    Args:
      provider, crash, again, count, beside, broken: see `Subject`.

    Raises:
      AssertionError: the provider does not keep to it; the message says to what.
    """
    subject = Subject(provider=provider, again=again, crash=crash, count=count, beside=beside, broken=broken)
    for check in CHECKS:
        await check(subject)


def name_of(check: Check) -> str:
    """The check's name in words, for test suites."""
    return str(getattr(check, "__name__", check)).removeprefix("check_")


async def check_a_new_sandbox_takes_its_token_and_no_other(subject: Subject) -> None:
    async with sandbox_of(subject.provider) as sandbox:
        endpoint = await subject.provider.endpoint(sandbox.id)
        expect(not endpoint.url.endswith("/"), f"the endpoint's URL ends with a slash: {endpoint.url}")
        expect(endpoint.token in (None, sandbox.token), "the endpoint has another token than was given")
        expect(str(sandbox.token) not in repr(endpoint), "the endpoint's repr shows the token")
        async with visit(subject.provider, sandbox) as server:
            listed = await server.request("GET", "/v1/sessions")
            expect(listed.json()["sessions"] == [], "a new sandbox has sessions already")
        for token in (None, new_token()):
            async with visit(subject.provider, replace(sandbox, token=token), wait=False) as server:
                try:
                    await server.request("GET", "/v1/sessions")
                except Unauthorized:
                    continue
                raise AssertionError(f"the server takes {'no' if token is None else 'any'} token")


async def check_a_server_that_answers_is_left_alone(subject: Subject) -> None:
    async with sandbox_of(subject.provider) as sandbox:
        async with visit(subject.provider, sandbox) as server:
            before = await open_session(server)
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(subject.provider.ensure_server, sandbox.id)
        await subject.provider.reconnect(sandbox.id)
        async with visit(subject.provider, sandbox) as server:
            after = await session_of(server)
            # The agent is a child of the server: its process ends with the server's.
            same = after["pid"] == before["pid"] and after["incarnation"] == before["incarnation"]
            expect(same, "ensure_server has replaced a server that answers")


async def check_a_crashed_server_comes_back_with_its_token_and_its_sessions(subject: Subject) -> None:
    async with sandbox_of(subject.provider) as sandbox:
        async with visit(subject.provider, sandbox) as server:
            opened = await open_session(server)
            await say(server, "before the crash")
            events = await events_of(server)
        await subject.crash(sandbox.id)
        await subject.provider.ensure_server(sandbox.id)
        async with visit(subject.provider, sandbox) as server:
            session = await session_of(server)
            expect(session["pid"] != opened["pid"], "`crash` has not killed the server: nothing was tried")
            expect(session["epoch"] == opened["epoch"], "the server came back with another journal")
            expect((await events_of(server))[: len(events)] == events, "events are lost, or others")
            await say(server, "after the crash")


async def check_another_object_finds_the_sandbox_by_its_id(subject: Subject) -> None:
    async with sandbox_of(subject.provider) as sandbox:
        async with visit(subject.provider, sandbox) as server:
            await open_session(server)
        again = subject.again()
        await again.reconnect(sandbox.id)
        await again.ensure_server(sandbox.id)
        endpoint = await again.endpoint(sandbox.id)
        expect(endpoint.token in (None, sandbox.token), "another object says another token")
        async with visit(again, sandbox) as server:
            await say(server, "found again")
        await again.destroy(sandbox.id)
        await expect_gone(again, sandbox.id)
        await expect_gone(subject.provider, sandbox.id)


async def check_a_paused_sandbox_is_woken_with_its_sessions(subject: Subject) -> None:
    async with sandbox_of(subject.provider) as sandbox:
        async with visit(subject.provider, sandbox) as server:
            await open_session(server)
            await say(server, "before the pause")
            events = await events_of(server)
        try:
            await subject.provider.pause(sandbox.id)
        except UnsupportedByProvider:
            return
        await subject.provider.pause(sandbox.id)
        again = subject.again()
        await again.reconnect(sandbox.id)
        async with visit(again, sandbox) as server:
            expect((await events_of(server))[: len(events)] == events, "events are lost over a pause")
            await say(server, "after the pause")
        await again.pause(sandbox.id)
        await again.destroy(sandbox.id)
        await expect_gone(again, sandbox.id)


async def check_two_sandboxes_know_nothing_of_each_other(subject: Subject) -> None:
    other = subject.beside or subject.provider
    async with sandbox_of(subject.provider) as one, sandbox_of(other) as two:
        expect(one.id != two.id, "two sandboxes have one id")
        async with visit(subject.provider, one) as server:
            await open_session(server)
        async with visit(other, two) as server:
            sessions = (await server.request("GET", "/v1/sessions")).json()["sessions"]
            expect(sessions == [], "a sandbox has the sessions of another one")
        await subject.provider.destroy(one.id)
        async with visit(other, two) as server:
            await open_session(server)


async def check_a_destroyed_sandbox_is_gone(subject: Subject) -> None:
    before = await subject.count()
    async with sandbox_of(subject.provider) as sandbox:
        expect(await subject.count() == before + 1, "`count` does not see a new sandbox")
        async with visit(subject.provider, sandbox) as server:
            await open_session(server)
        await subject.provider.destroy(sandbox.id)
        await expect_gone(subject.provider, sandbox.id)
        await expect_gone(subject.again(), sandbox.id)
        await _expect_count(subject, before, "destroy has left something")
        await subject.provider.destroy(sandbox.id)
        await subject.provider.kill(sandbox.id)


async def check_a_sandbox_is_killed_without_regard_to_its_server(subject: Subject) -> None:
    before = await subject.count()
    async with sandbox_of(subject.provider) as sandbox:
        await subject.crash(sandbox.id)
        await subject.provider.kill(sandbox.id)
        await expect_gone(subject.provider, sandbox.id)
        await _expect_count(subject, before, "kill has left something")


async def check_a_sandbox_that_never_was_is_told_as_destroyed(subject: Subject) -> None:
    for sandbox_id in STRANGE_IDS:
        await expect_gone(subject.again(), sandbox_id)
        await subject.provider.destroy(sandbox_id)


async def check_a_failed_create_leaves_nothing(subject: Subject) -> None:
    if subject.broken is None:
        return
    before = await subject.count()
    token = new_token()
    try:
        made = await subject.broken.create(token)
    except ProviderError as error:
        expect(token not in str(error), "the error shows the token")
        expect(bool(str(error)), "the error says nothing")
    else:
        await subject.broken.destroy(made)
        raise AssertionError("a create whose server cannot start raises nothing")
    await _expect_count(subject, before, "a create that failed has left something")


async def check_a_cancelled_create_leaves_nothing(subject: Subject) -> None:
    before = await subject.count()
    for moment in MOMENTS:
        made: str | None = None
        with anyio.move_on_after(moment):
            made = await subject.provider.create(new_token())
        if made is not None:  # it was quicker than we
            await subject.provider.destroy(made)
        await _expect_count(subject, before, f"a create that was cancelled after {moment} s has left something")


async def check_an_application_goes_on_over_a_crash(subject: Subject) -> None:
    before = await subject.count()
    text = f"written by {subject.provider.name}"
    async with SandboxAgent.start(subject.provider, recovery=Recovery(interval=LOOK_EVERY)) as sandbox:
        session = await sandbox.create_session("mock")
        await sandbox.files.write("conformance.txt", text.encode())
        await _turn(session, "before the crash")
        await subject.crash(str(sandbox.id).partition("/")[2])
        await _turn(session, "after the crash")
        async with SandboxAgent.start(subject.again(), sandbox_id=sandbox.id) as found:
            expect(await found.files.read("conformance.txt") == text.encode(), "a file is lost, or another one")
            await _turn(await found.session(session.id), "by another object")
    await _expect_count(subject, before, "the application has left something")


CHECKS: tuple[Check, ...] = (
    check_a_new_sandbox_takes_its_token_and_no_other,
    check_a_server_that_answers_is_left_alone,
    check_a_crashed_server_comes_back_with_its_token_and_its_sessions,
    check_another_object_finds_the_sandbox_by_its_id,
    check_a_paused_sandbox_is_woken_with_its_sessions,
    check_two_sandboxes_know_nothing_of_each_other,
    check_a_destroyed_sandbox_is_gone,
    check_a_sandbox_is_killed_without_regard_to_its_server,
    check_a_sandbox_that_never_was_is_told_as_destroyed,
    check_a_failed_create_leaves_nothing,
    check_a_cancelled_create_leaves_nothing,
    check_an_application_goes_on_over_a_crash,
)
"""All checks; each is a coroutine function that takes a `Subject`."""


async def _turn(session: Session, text: str) -> None:
    result = await session.prompt(text)
    expect(result.completed and text in result.text, f"the turn {text!r} did not end well: {result}")


async def _expect_count(subject: Subject, wanted: int, message: str) -> None:
    with anyio.move_on_after(GONE_WITHIN):
        while await subject.count() != wanted:  # noqa: ASYNC110 (a provider sends no events)
            await anyio.sleep(LOOK_EVERY)
        return
    raise AssertionError(f"{message}: there are {await subject.count()} sandboxes, not {wanted}")
