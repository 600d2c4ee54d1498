"""The server is killed while an agent works: the application sees one turn fail, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from sandbox_agent import Recovery, SandboxAgent
from sandbox_agent.errors import SandboxDestroyed
from sandbox_agent.events import Event, Gap, MessageChunk, TurnEnded
from support.providing import DaemonProvider

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from pathlib import Path

    from sandbox_agent.event_stream import EventStream
    from sandbox_agent.recovery import RecoveryEvent

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])

QUICK = Recovery(interval=0.5)


@pytest.fixture
def provider(tmp_path: Path) -> Generator[DaemonProvider]:
    with DaemonProvider.opened(tmp_path) as provider:
        yield provider


def under(backend: str, body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with anyio.fail_after(60):
            await body()

    anyio.run(bounded, backend=backend)


@BACKENDS
def test_a_crash_of_the_server_is_one_failed_turn_and_nothing_else(backend: str, provider: DaemonProvider) -> None:
    heard: list[RecoveryEvent] = []
    followed: list[Event | Gap] = []

    async def follow(events: EventStream) -> None:
        async for event in events:
            followed.append(event)
            if sum(isinstance(each, TurnEnded) for each in followed) == 4:
                return

    async def body() -> None:
        async with SandboxAgent.start(provider, recovery=QUICK, on_recovery=heard.append) as sandbox:
            session = await sandbox.create_session("mock")
            async with session.events() as events, anyio.create_task_group() as tasks:
                tasks.start_soon(follow, events)
                assert (await session.prompt("before")).outcome == "completed"

                async def crash() -> None:
                    async with session.events(kinds=["agent_message_chunk"], after="latest") as chunks:
                        for _ in range(5):
                            assert isinstance(await anext(chunks), MessageChunk)
                        provider.crash("d1")

                tasks.start_soon(crash)
                failed = await session.prompt("/stream 1000 200 50")
                assert (failed.outcome, failed.completed) == ("failed", False)
                assert failed.error is not None
                assert failed.error["type"].endswith("daemon_died")
                assert failed.text.startswith("#1/1000 ")
                assert (await session.prompt("after")).text == "after"
                again = await session.prompt("/recite")
                assert again.outcome == "completed"
                assert "before" in again.text
            outcomes = [event.outcome for event in followed if isinstance(event, TurnEnded)]
            assert outcomes == ["completed", "failed", "completed", "completed"]
            numbers = [event.seq for event in followed if isinstance(event, Event)]
            assert numbers == list(range(1, numbers[-1] + 1)), "nothing lost, nothing twice"
            page = await session.page(limit=10_000)
            assert [event.raw for event in page.events[: len(followed)]] == [
                event.raw for event in followed if isinstance(event, Event)
            ]
        assert [event.kind for event in heard] == ["failing"] * 3 + ["recovering", "recovered"]
        assert [(event.failures, event.attempt) for event in heard[2:]] == [(3, 0), (3, 1), (3, 1)]
        assert provider.asked == ["create", "ensure_server", "destroy"]

    under(backend, body)


@BACKENDS
def test_what_is_asked_for_while_the_server_is_away_is_done_once_it_is_back(
    backend: str, provider: DaemonProvider
) -> None:
    async def body() -> None:
        async with SandboxAgent.start(provider, recovery=QUICK) as sandbox:
            session = await sandbox.create_session("mock")
            provider.crash("d1")
            results: list[str] = []

            async def prompt(text: str) -> None:
                results.append((await session.prompt(text)).text)

            async with anyio.create_task_group() as tasks:
                for text in ("a", "b", "c"):
                    tasks.start_soon(prompt, text)
                tasks.start_soon(session.refresh)
                assert (await sandbox.create_session("mock", id="late")).id == "late"
            assert sorted(results) == ["a", "b", "c"]
            assert [turn.outcome for turn in await session.turns()] == ["completed"] * 3
            assert [each.id for each in await sandbox.list_sessions()] == sorted([session.id, "late"])

    under(backend, body)


@BACKENDS
def test_a_sandbox_that_is_destroyed_ends_every_wait(backend: str, provider: DaemonProvider) -> None:
    heard: list[str] = []

    async def body() -> None:
        async with SandboxAgent.start(
            provider, recovery=QUICK, on_recovery=lambda event: heard.append(event.kind)
        ) as sandbox:
            session = await sandbox.create_session("mock")

            async def wait_for_the_turn() -> None:
                with pytest.raises(SandboxDestroyed):
                    await session.prompt("/sleep 60")

            async def read() -> None:
                async with session.events(after="latest") as events:
                    with pytest.raises(SandboxDestroyed):
                        async for _ in events:
                            pass

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait_for_the_turn)
                tasks.start_soon(read)
                async with session.events(kinds=["turn.started"]) as events:
                    await anext(events)
                provider.forget("d1")
            with pytest.raises(SandboxDestroyed):
                await session.prompt("hello")
        assert heard[-2:] == ["recovering", "destroyed"]

    under(backend, body)


@BACKENDS
def test_a_frozen_server_is_noticed_and_its_streams_go_on(backend: str, provider: DaemonProvider) -> None:
    """It accepts connections and answers none: what a machine does that swaps itself to death."""

    async def body() -> None:
        async with SandboxAgent.start(provider, recovery=Recovery(interval=0.3, timeout=0.5)) as sandbox:
            session = await sandbox.create_session("mock")
            async with session.events(after="latest") as events:
                provider.freeze("d1")
                with anyio.fail_after(30):
                    assert (await session.prompt("hello")).text == "hello"
                kinds = []
                async for event in events:
                    kinds.append(event.kind if isinstance(event, Event) else "gap")
                    if kinds[-1] == "turn.ended":
                        break
            assert "gap" not in kinds

    under(backend, body)
