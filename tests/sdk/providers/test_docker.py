"""Sandboxes of a real Docker engine, with the image of this tree."""

from __future__ import annotations

import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import httpx
import pytest
import trio

from sandbox_agent.errors import ProviderError, SandboxDestroyed
from sandbox_agent.providers import DockerProvider
from sandbox_agent.providers.conformance import Check, Subject
from support.cancelling import cancelled_by_asyncio
from support.conforming import each_check, run_check
from support.docker_image import BASE, IMAGE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from support.docker_engine import Engine

pytestmark = pytest.mark.xdist_group("docker")

WITHIN = 120
"""Seconds for a whole test."""

TOKEN = "t0ken-of-the-tests"

KEY = "s3cret-of-an-agent"


def subject_of(engine: Engine) -> Subject:
    def again() -> DockerProvider:
        return DockerProvider(IMAGE, host=engine.url)

    async def crash(sandbox_id: str) -> None:
        await anyio.to_thread.run_sync(partial(kill_server, engine, sandbox_id))

    async def count() -> int:
        return len(await anyio.to_thread.run_sync(engine.containers))

    broken = DockerProvider(BASE, host=engine.url)
    return Subject(provider=again(), again=again, crash=crash, count=count, broken=broken)


def kill_server(engine: Engine, sandbox_id: str) -> None:
    """SIGKILL to the container's first process, from outside: inside it is immune."""
    container = container_of(engine, sandbox_id)
    container.kill("SIGKILL")
    container.wait(timeout=30)


def container_of(engine: Engine, sandbox_id: str) -> Any:
    return engine.client.containers.get(sandbox_id)


def do(engine: Engine, sandbox_id: str, script: str) -> tuple[int, str]:
    """What a shell in the sandbox ends with and says."""
    done = container_of(engine, sandbox_id).exec_run(["sh", "-c", script])
    return done.exit_code, done.output.decode()


@asynccontextmanager
async def sandbox(engine: Engine, **options: Any) -> AsyncGenerator[tuple[DockerProvider, str]]:
    provider = DockerProvider(IMAGE, host=engine.url, **options)
    with trio.fail_after(WITHIN):
        sandbox_id = await provider.create(TOKEN)
        try:
            yield provider, sandbox_id
        finally:
            with trio.CancelScope(shield=True):
                await provider.kill(sandbox_id)


async def health(provider: DockerProvider, sandbox_id: str) -> int:
    """The status that the server answers its own token with."""
    endpoint = await provider.endpoint(sandbox_id)
    headers = {"Authorization": f"Bearer {endpoint.token}"}
    async with httpx.AsyncClient(trust_env=False, headers=headers) as client:
        return (await client.get(f"{endpoint.url}/v1/health")).status_code


@each_check(telling_ones_twice=True)
def test_it_conforms(engine: Engine, check: Check, backend: str) -> None:
    run_check(check, backend, subject_of(engine))
    assert engine.containers() == []


async def test_token_and_keys_are_seen_by_nobody_who_inspects_and_changed_by_no_agent(engine: Engine) -> None:
    odd = {"OPENAI_API_KEY": KEY, "ODD": 'it\'s "so" $HOME `id`\n\\ zwölf ✓'}
    async with sandbox(engine, env=odd) as (provider, sandbox_id):
        shown = str(container_of(engine, sandbox_id).attrs)
        assert "/etc/sandbox-agent/token" in shown
        assert TOKEN not in shown
        assert KEY not in shown
        assert TOKEN not in repr(await provider.endpoint(sandbox_id))
        assert do(engine, sandbox_id, "cat /proc/[0-9]*/cmdline | grep -a -c 't0ken[-]of'") == (1, "0\n")
        assert do(engine, sandbox_id, "cat /etc/sandbox-agent/token") == (0, TOKEN)
        change = (
            "cd /etc/sandbox-agent && ! (echo x > token || chmod 600 token || rm -f token || touch more) 2>/dev/null"
        )
        assert do(engine, sandbox_id, change) == (0, "")
        _, entries = do(engine, sandbox_id, "cat /proc/1/environ")
        assert {f"{name}={value}" for name, value in odd.items()} <= set(entries.split("\0"))


async def test_it_is_published_on_loopback_alone(engine: Engine) -> None:
    async with sandbox(engine) as (provider, sandbox_id):
        ports = container_of(engine, sandbox_id).attrs["NetworkSettings"]["Ports"]
        (published,) = ports.pop("2468/tcp")
        assert (published["HostIp"], ports) == ("127.0.0.1", {})
        assert (await provider.endpoint(sandbox_id)).url == f"http://127.0.0.1:{published['HostPort']}"


async def test_limits_volumes_labels_user_and_more_reach_the_container(engine: Engine, tmp_path: Path) -> None:
    given = trio.Path(tmp_path)
    await given.chmod(0o755)
    await (given / "given").write_text("by the application")
    async with sandbox(
        engine,
        memory="512m",
        cpus=0.5,
        pids=300,
        user="1000:1000",
        volumes=[f"{tmp_path}:/given:ro"],
        labels={"team": "blue"},
        extra={"cap_drop": ["ALL"], "hostname": "workshop"},
    ) as (provider, sandbox_id):
        attrs = container_of(engine, sandbox_id).attrs
        host = attrs["HostConfig"]
        assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (512 << 20, 500_000_000, 300)
        assert (host["CapDrop"], host["RestartPolicy"]["Name"] or "no") == (["ALL"], "no")
        assert (attrs["Config"]["Labels"]["team"], attrs["Config"]["Labels"]["sandbox-agent"]) == ("blue", sandbox_id)
        seen = do(engine, sandbox_id, "id -u; cat /proc/sys/kernel/hostname /given/given; ! touch /given/x 2>/dev/null")
        assert seen == (0, "1000\nworkshop\nby the application")
        assert await health(provider, sandbox_id) == 200


async def test_a_server_that_hangs_is_started_again_once_however_many_ask(engine: Engine) -> None:
    async with sandbox(engine) as (provider, sandbox_id):
        container = container_of(engine, sandbox_id)
        container.kill("SIGSTOP")
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(provider.ensure_server, sandbox_id)
        assert await health(provider, sandbox_id) == 200
        assert container.logs().decode().count("event=listening") == 2


async def test_it_is_reached_at_its_own_address_in_a_network(engine: Engine) -> None:
    network = engine.client.networks.create("workshop", internal=True)
    try:
        async with sandbox(engine, network="workshop", reach="container") as (provider, sandbox_id):
            attrs = container_of(engine, sandbox_id).attrs["NetworkSettings"]
            address = attrs["Networks"]["workshop"]["IPAddress"]
            assert (await provider.endpoint(sandbox_id)).url == f"http://{address}:2468"
            assert not any(attrs["Ports"].values())
            assert await health(provider, sandbox_id) == 200
            # An object that was told otherwise says what is wrong.
            with pytest.raises(ProviderError, match="publishes no port"):
                await DockerProvider(host=engine.url).endpoint(sandbox_id)
    finally:
        network.remove()


async def test_a_network_that_is_gone_is_no_destroyed_sandbox(engine: Engine) -> None:
    network = engine.client.networks.create("workshop", internal=True)
    async with sandbox(engine, network="workshop", reach="container") as (provider, sandbox_id):
        await trio.to_thread.run_sync(kill_server, engine, sandbox_id)
        network.remove()
        with pytest.raises(ProviderError, match="does not run: it is exited"):
            await provider.endpoint(sandbox_id)
        with pytest.raises(ProviderError, match="network") as caught:
            await provider.ensure_server(sandbox_id)
        assert not isinstance(caught.value, SandboxDestroyed)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image": "sandbox-agent-that-is-not"}, "[Nn]o such image: sandbox-agent-that-is-not"),
        ({"network": "network-that-is-not"}, "network network-that-is-not not found"),
        ({"user": "nobody-we-know"}, "nobody-we-know"),
        ({"memory": "much"}, "much"),
        ({"env": {"SANDBOX_AGENT_IDLE_LIMIT": "-5"}}, "does not start: .*idle-limit"),
        ({"env": {"SANDBOX_AGENT_TOKEN": "x"}}, "SANDBOX_AGENT_TOKEN is chosen when the sandbox is made"),
        ({"image": BASE}, "does not start: .*sandbox-agent: not found"),
    ],
)
async def test_a_create_that_fails_says_why_and_leaves_nothing(
    engine: Engine, options: dict[str, Any], said: str
) -> None:
    provider = DockerProvider(**{"image": IMAGE, "host": engine.url, **options})
    with pytest.raises(ProviderError, match=f"(?s){said}") as caught:
        await provider.create(TOKEN)
    assert TOKEN not in str(caught.value)
    assert engine.containers() == []


class HeldOptions(dict[str, str]):
    """Options of a container. Whoever looks at them is held until the release; the client does while it makes it."""

    def __init__(self) -> None:
        super().__init__(workshop="127.0.0.1")
        self.held, self.released = Event(), Event()

    def items(self) -> Any:
        self.held.set()
        assert self.released.wait(WITHIN), "nobody has released it"
        return super().items()


def test_a_create_that_asyncio_cancels_leaves_nothing(engine: Engine) -> None:
    options = HeldOptions()
    provider = DockerProvider(IMAGE, host=engine.url, extra={"extra_hosts": options})
    cancelled_by_asyncio(lambda: provider.create(TOKEN), options.held, options.released.set)
    assert engine.containers() == []


async def test_containers_of_others_are_left_alone(engine: Engine) -> None:
    names = ["workshop", "sandbox-agent-0123456789abcdef"]
    others = [engine.client.containers.create(BASE, ["sleep", "1000"], name=name) for name in names]
    try:
        provider = DockerProvider(host=engine.url)
        with pytest.raises(SandboxDestroyed, match="there is no sandbox workshop"):
            await provider.ensure_server(names[0])
        await provider.destroy(names[0])
        for method in (provider.endpoint, provider.ensure_server, provider.pause, provider.destroy, provider.kill):
            with pytest.raises(ProviderError, match="none of ours"):
                await method(names[1])
        assert sorted(engine.containers()) == sorted(names)
        assert {other.status for other in others} == {"created"}
    finally:
        for other in others:
            other.remove(force=True)


@pytest.mark.parametrize(
    ("before", "options", "error", "said"),
    [
        ("", {"host": "unix:///nowhere/docker.sock"}, "ProviderError", "cannot reach the Docker engine"),
        ("sys.modules['docker'] = None", {}, "MissingExtra", 'pip install "trio-sandbox-agent[docker]"'),
    ],
)
def test_what_is_missing_here_is_told(before: str, options: dict[str, str], error: str, said: str) -> None:
    # A process of its own: where nobody listens, the client leaves a socket open.
    script = f"""
import sys, anyio
{before}
from sandbox_agent.errors import {error}
from sandbox_agent.providers import DockerProvider
provider = DockerProvider(**{options})
for call, argument in (provider.create, "token"), (provider.destroy, "sandbox-agent-0123456789abcdef"):
    try:
        anyio.run(call, argument)
    except {error} as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=WITHIN, check=True)
    assert done.stdout.count(said) == 2, done.stdout
