"""The health monitor, in virtual time: what makes a recovery, what ends it, and what everybody hears of it."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import pytest
import trio

from sandbox_agent.errors import (
    ApiError,
    AwaitingInit,
    ConnectionFailed,
    ProviderError,
    RecoveryFailed,
    SandboxDestroyed,
    TokenInvalid,
)
from sandbox_agent.health import Health
from sandbox_agent.monitor import Monitor
from sandbox_agent.providers.provider import Endpoint, Provider
from sandbox_agent.recovery import Recovery, RecoveryEvent
from sandbox_agent.scope import open_tasks
from sandbox_agent.transport import Timeouts, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from trio.testing import MockClock


class World(Provider):
    """A server that can be down, and a provider that can bring it back; nothing takes time but by intent.

    Attributes:
      answer: what the server says to anything: a status and a body; None: nobody listens; `hang`: it says nothing.
      mends: what a recovery does.
      tells: where the server is, as the provider has it.
      log: what was asked for, with the second it was.
    """

    name = "world"

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] | str | None = (200, b'{"status":"ok"}')
        self.mends: Callable[[], Awaitable[None]] = self.mend
        self.tells: Callable[[], Awaitable[Endpoint]] = self.tell
        self.log: list[tuple[str, float]] = []
        self.events: list[RecoveryEvent] = []
        self.address = "http://server-1"
        self.begun = anyio.current_time()
        self.tasks: set[object] = set()
        self.broken = anyio.Event()
        self.break_with: Exception = ProviderError("the forward has ended")

    def note(self, what: str) -> None:
        self.log.append((what, round(anyio.current_time() - self.begun, 3)))

    def noted(self, what: str) -> list[float]:
        return [at for each, at in self.log if each == what]

    async def mend(self) -> None:
        self.answer = (200, b'{"status":"ok"}')

    # -- the server

    async def hear(self, request: httpx.Request) -> httpx.Response:
        self.note(f"{request.method} {request.url}")
        if self.answer == "hang":
            await anyio.sleep_forever()
        if not isinstance(self.answer, tuple) or f"{request.url.scheme}://{request.url.host}" != self.address:
            raise httpx.ConnectError("nobody listens")
        return httpx.Response(self.answer[0], content=self.answer[1])

    # -- the provider

    async def create(self, token: str) -> str:
        raise NotImplementedError

    async def endpoint(self, sandbox_id: str) -> Endpoint:
        return await self.tells()

    async def tell(self) -> Endpoint:
        return Endpoint(self.address)

    async def never(self) -> Endpoint:
        await anyio.sleep_forever()
        raise AssertionError

    async def ensure_server(self, sandbox_id: str) -> None:
        self.note("ensure")
        await self.mends()

    async def destroy(self, sandbox_id: str) -> None:
        raise NotImplementedError

    @asynccontextmanager
    async def reach(self, sandbox_id: str) -> AsyncGenerator[Endpoint]:
        self.tasks.add(trio.lowlevel.current_task())
        self.note("reach")
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._forward)
                yield await self.endpoint(sandbox_id)
                tasks.cancel_scope.cancel()
        finally:
            self.tasks.add(trio.lowlevel.current_task())
            self.note("left")

    async def _forward(self) -> None:
        await self.broken.wait()
        self.broken = anyio.Event()
        raise self.break_with

    async def hearing(self, event: RecoveryEvent) -> None:
        self.events.append(event)

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


class Wire(Transport):
    """A transport without sockets: their time is the world's own."""

    def __init__(self, health: Health, world: World) -> None:
        super().__init__(Endpoint(""), health, Timeouts(retry_within=60))
        self._wire = httpx.AsyncClient(transport=httpx.MockTransport(world.hear))

    @property
    def client(self) -> httpx.AsyncClient:
        return self._wire


@asynccontextmanager
async def watched(
    world: World, recovery: Recovery | None = None, *, provided: bool = True, heard: Any = None
) -> AsyncGenerator[tuple[Transport, Monitor]]:
    """A monitor that has seen the server answer."""
    transport = Wire(Health(watched=True, recovers=provided), world)
    monitor = Monitor(
        transport,
        lambda: world.reach("s"),
        recovery or Recovery(),
        heard or world.hearing,
        provider=world if provided else None,
        sandbox_id="s",
    )
    async with transport.client, open_tasks() as tasks:
        await tasks.start(monitor.run, 60)
        yield transport, monitor


HEALTH = "GET http://server-1/v1/health"


async def test_a_server_that_is_well_is_asked_every_five_seconds(autojump_clock: MockClock) -> None:
    world = World()
    async with watched(world):
        await anyio.sleep(62)
    assert len(world.noted(HEALTH)) == 14
    assert world.kinds == []
    assert [what for what, _ in world.log if not what.startswith("GET")] == ["reach", "left"]


async def test_three_failures_in_a_row_make_a_recovery(autojump_clock: MockClock) -> None:
    world = World()
    async with watched(world) as (transport, _):
        world.answer = None
        assert (await transport.request("GET", "/x")).status_code == 200
        assert world.kinds == ["failing", "failing", "failing", "recovering", "recovered"]
    assert [(event.failures, event.attempt) for event in world.events] == [(1, 0), (2, 0), (3, 0), (3, 1), (3, 1)]
    assert [str(event.error) for event in world.events[:4]] == ["http://server-1/v1/health: nobody listens"] * 4
    assert world.events[-1].error is None
    (ensured,) = world.noted("ensure")
    # The first check at once, since a request has failed; the next ones after 0.5 s and 1 s, or half of that.
    assert 0.75 <= ensured <= 1.6


async def test_a_failure_that_no_request_has_seen_is_noticed_by_itself(autojump_clock: MockClock) -> None:
    world = World()
    async with watched(world):
        world.answer = None
        await anyio.sleep(10)
        assert world.kinds[-1] == "recovered"
    assert 5.7 <= world.noted("ensure")[0] <= 6.6


async def test_two_failures_are_none(autojump_clock: MockClock) -> None:
    world = World()
    second = anyio.Event()

    async def hear(event: RecoveryEvent) -> None:
        await world.hearing(event)
        if event.kind == "failing" and event.failures == 2:
            second.set()

    async with watched(world, heard=hear):
        for _ in range(5):
            world.answer = None
            await second.wait()
            second = anyio.Event()
            world.answer = (200, b"{}")
            await anyio.sleep(10)
    assert world.kinds == ["failing", "failing", "recovered"] * 5
    assert world.noted("ensure") == []


@pytest.mark.parametrize("answer", ["hang", (500, b"no JSON"), (503, b"[]"), (404, b""), (302, b"")])
async def test_whatever_is_no_success_is_a_failure(answer: Any, autojump_clock: MockClock) -> None:
    world = World()
    async with watched(world):
        world.answer = answer
        await anyio.sleep(40)
    assert world.kinds == ["failing"] * 3 + ["recovering", "recovered"]


async def test_a_check_takes_no_longer_than_it_may(autojump_clock: MockClock) -> None:
    world = World()
    async with watched(world, Recovery(interval=1, timeout=2)):
        world.answer = "hang"
        await anyio.sleep(20)
    assert [str(event.error) for event in world.events[:3]] == [
        "http://server-1/v1/health gave no answer within 2 s"
    ] * 3
    assert 1 + 3 * 2 < world.noted("ensure")[0] < 1 + 3 * 2 + 2


async def test_the_address_is_asked_for_again_by_the_same_task(autojump_clock: MockClock) -> None:
    world = World()

    async def elsewhere() -> None:
        world.address = "http://server-2"
        await world.mend()

    world.mends = elsewhere
    async with watched(world) as (transport, _):
        world.answer = None
        await transport.request("GET", "/x")
        assert transport.endpoint.url == "http://server-2"
    steps = [what for what, _ in world.log if what in ("reach", "left", "ensure")]
    assert steps == ["reach", "left", "ensure", "reach", "left"]
    assert len(world.tasks) == 1


async def test_a_sandbox_that_is_gone_ends_every_wait(autojump_clock: MockClock) -> None:
    world = World()

    async def gone() -> None:
        raise SandboxDestroyed("the sandbox is gone")

    world.mends = gone
    async with watched(world) as (transport, _):
        world.answer = None

        async def ask(method: str) -> None:
            with pytest.raises(SandboxDestroyed, match="the sandbox is gone"):
                await transport.request(method, "/x")

        async with anyio.create_task_group() as tasks:
            for method in ("GET", "POST", "DELETE"):
                tasks.start_soon(ask, method)
        await ask("GET")
        await anyio.sleep(100)
    assert world.kinds == ["failing"] * 3 + ["recovering", "destroyed"]
    assert isinstance(world.events[-1].error, SandboxDestroyed)
    assert len(world.noted("ensure")) == 1
    assert len(world.noted(HEALTH)) < 10, "nobody looks any more"


@pytest.mark.parametrize("error", [ProviderError("no more quota"), KeyError("a bug of somebody else's")])
async def test_a_provider_that_fails_again_and_again_is_given_up(error: Exception, autojump_clock: MockClock) -> None:
    world = World()

    async def fail() -> None:
        raise error

    world.mends = fail
    async with watched(world, Recovery(attempts=3)) as (transport, _):
        world.answer = None
        with pytest.raises(RecoveryFailed, match=r"after 3 recoveries: .*(quota|bug)"):
            await transport.request("GET", "/x")
    assert len(world.noted("ensure")) == 3
    assert world.kinds == (["failing"] * 3 + ["recovering"]) * 3 + ["failing"] * 3 + ["failed"]
    assert [event.attempt for event in world.events if event.kind == "recovering"] == [1, 2, 3]


async def test_a_healthy_check_in_between_makes_the_count_begin_anew(autojump_clock: MockClock) -> None:
    world = World()
    async with watched(world, Recovery(attempts=1)):
        for _ in range(4):
            world.answer = None
            await anyio.sleep(30)
    assert len(world.noted("ensure")) == 4
    assert "failed" not in world.kinds


async def test_a_recovery_takes_no_longer_than_it_may(autojump_clock: MockClock) -> None:
    world = World()
    world.mends = anyio.sleep_forever
    async with watched(world, Recovery(within=20, attempts=2)) as (transport, _):
        world.answer = None
        with pytest.raises(RecoveryFailed, match="the provider took longer than 20 s"):
            await transport.request("GET", "/x")
        assert 40 < anyio.current_time() - world.begun < 80


async def test_a_server_that_was_started_has_time_to_answer(autojump_clock: MockClock) -> None:
    world = World()

    async def slowly() -> None:
        async def up() -> None:
            await anyio.sleep(25)
            await world.mend()

        later.start_soon(up)

    world.mends = slowly
    async with open_tasks() as later, watched(world) as (transport, _):
        world.answer = None
        await transport.request("GET", "/x")
        assert 25 < anyio.current_time() - world.begun < 35
    assert len(world.noted("ensure")) == 1
    assert world.kinds == ["failing"] * 3 + ["recovering", "recovered"]


async def test_a_server_that_does_not_come_up_is_started_again(autojump_clock: MockClock) -> None:
    world = World()

    async def in_vain() -> None:
        pass

    world.mends = in_vain
    async with watched(world, Recovery(attempts=3)) as (transport, _):
        world.answer = None
        with pytest.raises(RecoveryFailed):
            await transport.request("GET", "/x")
    first, second, third = world.noted("ensure")
    assert 30 < second - first < 60
    assert 30 < third - second < 60


async def test_a_forward_that_breaks_is_made_again(autojump_clock: MockClock) -> None:
    world = World()
    async with watched(world) as (transport, _):
        world.broken.set()
        await anyio.sleep(1)
        await transport.request("GET", "/x")
    steps = [what for what, _ in world.log if what in ("reach", "left", "ensure")]
    assert steps == ["reach", "left", "ensure", "reach", "left"]
    assert world.kinds == ["recovering", "recovered"]


async def test_an_address_that_never_comes_is_a_recovery_that_failed(autojump_clock: MockClock) -> None:
    world = World()

    async with watched(world) as (transport, _):
        world.tells = world.never
        world.answer = None
        with anyio.fail_after(3600), pytest.raises(RecoveryFailed, match="has not told within 120 s"):
            await transport.request("GET", "/v1/sessions")
    assert len(world.noted("ensure")) == 5


async def test_a_bug_of_the_provider_s_is_no_reason_for_the_application_to_end(autojump_clock: MockClock) -> None:
    world = World()

    async def fail() -> Endpoint:
        raise ZeroDivisionError

    async with watched(world) as (transport, _):
        world.tells = fail
        world.answer = None
        with pytest.raises(RecoveryFailed, match="ZeroDivisionError"):
            await transport.request("GET", "/v1/sessions")


async def test_a_start_waits_no_longer_for_an_address_than_it_may(autojump_clock: MockClock) -> None:
    world = World()

    world.tells = world.never
    with pytest.raises(ConnectionFailed, match="within 60 s"):
        async with watched(world):
            raise AssertionError
    assert anyio.current_time() == world.begun + 60


async def test_a_forward_that_says_the_sandbox_is_gone_is_believed(autojump_clock: MockClock) -> None:
    world = World()
    world.break_with = SandboxDestroyed("no such pod")

    async def gone() -> None:
        raise SandboxDestroyed("no such pod")

    world.mends = gone
    async with watched(world) as (transport, _):
        world.broken.set()
        await anyio.sleep(1)
        with pytest.raises(SandboxDestroyed, match="no such pod"):
            await transport.request("GET", "/x")


@pytest.mark.parametrize("status", [401, 403])
async def test_a_server_that_refuses_us_is_not_brought_back(status: int, autojump_clock: MockClock) -> None:
    world = World()
    async with watched(world) as (transport, _):
        world.answer = (status, b'{"detail":"who are you"}')
        await anyio.sleep(10)
        with pytest.raises(ApiError, match="who are you"):
            await transport.request("GET", "/x")
    assert world.kinds == ["failed"]
    assert world.noted("ensure") == []


async def test_a_server_that_waits_to_be_initialized_is_brought_back_by_who_has_made_it(
    autojump_clock: MockClock,
) -> None:
    world = World()
    async with watched(world):
        world.answer = (200, b'{"status":"awaiting_init"}')
        await anyio.sleep(20)
    assert world.kinds == ["failing"] * 3 + ["recovering", "recovered"]
    assert isinstance(world.events[0].error, AwaitingInit)
    world = World()
    async with watched(world, provided=False):
        world.answer = (200, b'{"status":"awaiting_init"}')
        await anyio.sleep(20)
    assert world.kinds == []


async def test_without_a_provider_requests_wait_within_their_time(autojump_clock: MockClock) -> None:
    world = World()
    async with watched(world, provided=False) as (transport, _):
        world.answer = None
        start = anyio.current_time()
        with pytest.raises(ConnectionFailed):
            await transport.request("GET", "/x")
        assert 50 <= anyio.current_time() - start <= 61
        await world.mend()
        await transport.request("GET", "/x")
        await anyio.sleep(10)
    assert set(world.kinds[:-1]) == {"failing"}
    assert world.kinds[-1] == "recovered"


# -- the start


async def test_a_start_waits_for_the_first_answer(autojump_clock: MockClock) -> None:
    world = World()
    world.answer = None

    async def later() -> None:
        await anyio.sleep(30)
        await world.mend()

    async with open_tasks() as tasks:
        tasks.start_soon(later)
        async with watched(world):
            assert 30 <= anyio.current_time() - world.begun <= 33
    assert world.kinds == []
    assert world.noted("ensure") == []


@pytest.mark.parametrize("answer", [None, "hang", (500, b"")])
async def test_a_start_that_takes_too_long_fails(answer: Any, autojump_clock: MockClock) -> None:
    world = World()
    world.answer = answer
    with pytest.raises(ConnectionFailed, match="within 60 s"):
        async with watched(world):
            raise AssertionError
    assert 59 <= anyio.current_time() - world.begun <= 61
    assert world.noted("left")


async def test_a_start_with_a_wrong_token_fails_at_once(autojump_clock: MockClock) -> None:
    world = World()
    world.answer = (401, b'{"type":"urn:sandbox-agent:error:token_invalid","detail":"token invalid"}')
    with pytest.raises(TokenInvalid):
        async with watched(world):
            raise AssertionError
    assert anyio.current_time() == world.begun


# -- who hears of it


async def test_the_monitor_survives_its_listener(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    heard: list[str] = []

    def fail(event: RecoveryEvent) -> None:
        heard.append(event.kind)
        raise ZeroDivisionError

    async def hang(event: RecoveryEvent) -> None:
        heard.append(event.kind)
        await anyio.sleep_forever()

    for listener in (fail, hang):
        heard.clear()
        world = World()
        with caplog.at_level(logging.INFO, "sandbox_agent"):
            async with watched(world, heard=listener):
                world.answer = None
                await anyio.sleep(120)
        assert heard == ["failing"] * 3 + ["recovering", "recovered"]
    said = [record.getMessage() for record in caplog.records if record.name == "sandbox_agent"]
    assert "on_recovery failed" in said
    assert any("server of s: recovering (failures 3, attempt 1)" in line for line in said)


# -- the end


async def test_a_monitor_that_is_stopped_has_let_go(autojump_clock: MockClock) -> None:
    world = World()
    async with watched(world) as (_, monitor):
        await monitor.stop()
        assert world.noted("left")
        looked = len(world.noted(HEALTH))
        await anyio.sleep(60)
        assert len(world.noted(HEALTH)) == looked


async def test_while_it_is_put_to_rest_nobody_brings_it_back(autojump_clock: MockClock) -> None:
    world = World()
    async with watched(world) as (_, monitor):
        async with monitor.holding():
            world.answer = None
            world.broken.set()
            await anyio.sleep(60)
            assert world.noted("ensure") == []
        await anyio.sleep(30)
        assert len(world.noted("ensure")) == 1
        assert world.kinds[-1] == "recovered"


async def test_a_recovery_that_is_under_way_does_not_wake_what_is_put_to_rest(autojump_clock: MockClock) -> None:
    world = World()
    woken = anyio.Event()

    async def slowly() -> None:
        await anyio.sleep(20)
        woken.set()

    async with watched(world) as (_, monitor):
        world.answer, world.mends = None, slowly
        await anyio.sleep(15)
        assert len(world.noted("ensure")) == 1
        async with monitor.holding():
            reached = len(world.noted("reach"))
            await anyio.sleep(60)
            assert not woken.is_set()
            assert (len(world.noted("ensure")), len(world.noted("reach"))) == (1, reached)
        await anyio.sleep(60)
        assert woken.is_set()
