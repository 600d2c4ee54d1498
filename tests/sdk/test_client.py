"""A sandbox from its making to its end, whatever happens in between: real daemons, and scripted servers."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec
import pytest

import sandbox_agent
from sandbox_agent import Recovery, RecoveryEvent, SandboxAgent, Timeouts
from sandbox_agent.errors import (
    AgentError,
    Conflict,
    ConnectionFailed,
    ProviderError,
    SandboxDestroyed,
    SessionNotFound,
    TokenInvalid,
    Unavailable,
    UnsupportedAgent,
    UnsupportedByProvider,
    UnsupportedByServer,
)
from sandbox_agent.event_stream import EventStream
from sandbox_agent.providers.provider import Endpoint, Provider
from support.providing import DaemonProvider
from support.scripted import Asked, hang, refused, said, scripted
from support.transports import lasting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from support.daemon import Daemon

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    with lasting(tmp_path_factory.mktemp("client")) as daemon:
        yield daemon


@pytest.fixture
def provider(tmp_path: Path) -> Generator[DaemonProvider]:
    with DaemonProvider.opened(tmp_path) as provider:
        yield provider


def under(backend: str, body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        with anyio.fail_after(30):
            await body()

    anyio.run(bounded, backend=backend)


class Shelf(Provider):
    """Sandboxes without anything in them: what is done to them is written down.

    Attributes:
      url: where all of them have their server.
      fails: what a method raises, by its name.
    """

    name = "shelf"

    def __init__(self, url: str) -> None:
        self.url = url
        self.done: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.slow: set[str] = set()

    async def _do(self, what: str) -> None:
        self.done.append(what)
        if what in self.slow:
            await anyio.sleep_forever()
        if what in self.fails:
            raise self.fails[what]

    async def create(self, token: str) -> str:
        try:
            await self._do("create")
        except BaseException:
            self.done.append("made undone")
            raise
        return "a/b"

    async def endpoint(self, sandbox_id: str) -> Endpoint:
        await self._do("endpoint")
        return Endpoint(self.url + "/", "of the provider")

    async def ensure_server(self, sandbox_id: str) -> None:
        await self._do("ensure_server")

    async def destroy(self, sandbox_id: str) -> None:
        assert sandbox_id == "a/b"
        await self._do("destroy")

    @property
    def ended(self) -> list[str]:
        return [what for what in self.done if what not in ("endpoint", "create", "ensure_server")]


class Resting(Shelf):
    async def pause(self, sandbox_id: str) -> None:
        await self._do("pause")

    async def reconnect(self, sandbox_id: str) -> None:
        await self._do("reconnect")


# -- real ones


@BACKENDS
def test_a_sandbox_is_made_used_and_destroyed(backend: str, provider: DaemonProvider) -> None:
    async def body() -> None:
        async with SandboxAgent.start(provider) as sandbox:
            assert sandbox.id == "daemons/d1"
            assert sandbox.url == provider.daemon("d1").url
            assert sandbox.inspector_url == f"{sandbox.url}/ui/"
            assert sandbox.token == provider.daemon("d1").token
            assert len(sandbox.token or "") > 30
            assert (await sandbox.health())["status"] == "ok"
            assert await sandbox.ready()
            session = await sandbox.create_session("mock")
            assert session.info.cwd == provider.default_cwd
            assert (await session.prompt("hello")).text == "hello"
            await sandbox.files.write("a.txt", "x")
        assert not provider.runs("d1")
        assert provider.asked == ["create", "destroy"]

    under(backend, body)


@BACKENDS
def test_a_sandbox_is_left_and_found_again_with_its_sessions(backend: str, provider: DaemonProvider) -> None:
    async def body() -> None:
        async with SandboxAgent.start(provider, on_exit="leave") as sandbox:
            id, token = sandbox.id, sandbox.token
            session = await sandbox.create_session("mock", id="kept", title="Kept")
            await session.prompt("remember me")
        assert provider.runs("d1")
        async with SandboxAgent.start(provider, sandbox_id=id, token=token, on_exit="pause") as sandbox:
            session = await sandbox.session("kept")
            assert session.info.title == "Kept"
            assert "remember me" in (await session.prompt("/recite")).text
        assert not provider.runs("d1")
        async with SandboxAgent.start(provider, sandbox_id=id, token=token) as sandbox:
            assert "remember me" in (await (await sandbox.session("kept")).prompt("/recite")).text
        assert provider.runs("d1"), "what was found is left"
        async with SandboxAgent.start(provider, sandbox_id=id, token=token) as sandbox:
            await sandbox.destroy()
            with pytest.raises(SandboxDestroyed, match="daemons/d1 was destroyed"):
                await sandbox.health()
        assert provider.asked.count("destroy") == 1

    under(backend, body)


@BACKENDS
def test_a_server_that_is_there_is_connected_to(backend: str, daemon: Daemon) -> None:
    async def body() -> None:
        async with SandboxAgent.connect(daemon.url + "/", daemon.token) as sandbox:
            assert sandbox.id is None
            assert sandbox.url == daemon.url
            session = await sandbox.create_session("mock", tags={"backend": backend})
            assert (await session.prompt("hello")).text == "hello"
            for end in (sandbox.destroy, sandbox.kill, sandbox.pause):
                with pytest.raises(UnsupportedByProvider):
                    await end()
            assert [each.id for each in await sandbox.list_sessions(tags={"backend": backend})] == [session.id]
        async with SandboxAgent.connect(daemon.url, daemon.token) as sandbox:
            assert (await sandbox.session(session.id)).id == session.id

    under(backend, body)


async def test_sessions_are_made_once_found_and_listed_through_all_pages(daemon: Daemon) -> None:
    async with SandboxAgent.connect(daemon.url, daemon.token) as sandbox:
        first = await sandbox.create_session("mock", key="one key", tags={"list": "yes"}, cwd="/tmp")
        again = await sandbox.create_session("mock", key="one key", tags={"list": "yes"}, cwd="/tmp")
        assert again.id == first.id
        assert again.info.cwd == "/tmp"
        made = {first.id} | {(await sandbox.create_session("mock", tags={"list": "yes"})).id for _ in range(3)}
        assert {each.id for each in await sandbox.list_sessions(tags={"list": "yes"})} == made
        assert await sandbox.list_sessions(agent="no such agent") == []
        assert len(await sandbox.list_sessions(state="ready", native=True)) >= 4
        with pytest.raises(Conflict):
            await sandbox.create_session("mock", id=first.id)
        with pytest.raises(UnsupportedAgent):
            await sandbox.create_session("no such agent")
        with pytest.raises(SessionNotFound):
            await sandbox.session("no/such session")


async def test_pages_are_read_to_the_last() -> None:
    def page(ids: list[str], cursor: str | None) -> bytes:
        sessions = [{"id": id, "agent": "mock", "state": "ready", "of": "tomorrow"} for id in ids]
        return msgspec.json.encode({"sessions": sessions, "nextCursor": cursor})

    async def answer(asked: Asked, stream: Any) -> None:
        told = page(["c"], None) if "cursor" in asked.query else page(["a", "b"], "b")
        await said(told)(asked, stream)

    async with scripted(answer) as server, SandboxAgent.connect(server.url) as sandbox:
        assert [each.id for each in await sandbox.list_sessions(agent="mock")] == ["a", "b", "c"]
    assert server.asked[-1].query == {"agent": ["mock"], "cursor": ["b"]}


@BACKENDS
def test_the_raw_wire_is_there_as_well(backend: str, daemon: Daemon) -> None:
    async def body() -> None:
        async with SandboxAgent.connect(daemon.url, daemon.token) as sandbox:
            async with sandbox.acp(f"raw/{backend}", agent="mock") as acp:
                told = await acp.request("initialize", {"protocolVersion": 1})
                assert told["agentInfo"]["name"] == "mock"
                session = (await acp.request("session/new", {"cwd": "/tmp", "mcpServers": []}))["sessionId"]
                prompt = [{"type": "text", "text": "/permission execute: ls"}]

                async def answer() -> None:
                    async with acp.envelopes() as envelopes:
                        async for envelope in envelopes:
                            if envelope.message.get("method") == "session/request_permission":
                                assert int(envelope.id) > 0
                                outcome = {"outcome": {"outcome": "selected", "optionId": "yes"}}
                                await acp.respond(envelope.message["id"], outcome)
                                return

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(answer)
                    ended = await acp.request("session/prompt", {"sessionId": session, "prompt": prompt}, within=10)
                    assert ended["stopReason"] == "end_turn"
                await acp.notify("session/cancel", {"sessionId": session})
                with pytest.raises(AgentError) as raised:
                    await acp.request("session/set_mode", {"sessionId": session, "modeId": 7})
                assert raised.value.code == -32602
                crash = [{"type": "text", "text": "/crash 7"}]
                with pytest.raises(AgentError) as raised:
                    await acp.request("session/prompt", {"sessionId": session, "prompt": crash})
                assert raised.value.type == "agent_process_exited"
            with pytest.raises(SessionNotFound):
                async with sandbox.acp(f"raw/{backend}", keep=True) as acp, acp.envelopes() as envelopes:
                    await anext(envelopes)

    under(backend, body)


# -- what goes wrong


@BACKENDS
def test_what_the_block_raises_comes_as_it_is(backend: str) -> None:
    async def body() -> None:
        async with scripted(said()) as server:
            for error in (ZeroDivisionError("mine"), ExceptionGroup("mine", [ValueError()]), KeyboardInterrupt()):
                shelf = Shelf(server.url)
                with pytest.raises(type(error)) as raised:
                    async with SandboxAgent.start(shelf):
                        raise error
                assert raised.value is error
                assert shelf.ended == ["destroy"]
            with pytest.raises(ZeroDivisionError):
                async with SandboxAgent.connect(server.url):
                    raise ZeroDivisionError

    under(backend, body)


@BACKENDS
@pytest.mark.parametrize("on_exit", ["destroy", "leave", "pause", None])
def test_a_sandbox_whose_start_fails_is_destroyed(backend: str, on_exit: Any) -> None:
    async def body() -> None:
        for trouble in (said(b"", 500), refused(401, "token_invalid"), hang):
            async with scripted(trouble) as server:
                shelf = Resting(server.url)
                with pytest.raises((ConnectionFailed, TokenInvalid)):
                    async with SandboxAgent.start(shelf, on_exit=on_exit, start_within=0.3):
                        raise AssertionError
                assert shelf.ended == ["destroy"]

    under(backend, body)


@BACKENDS
@pytest.mark.parametrize("slow", ["create", "endpoint"])
def test_a_start_that_is_cancelled_leaves_nothing(backend: str, slow: str) -> None:
    async def body() -> None:
        async with scripted(said()) as server:
            shelf = Shelf(server.url)
            shelf.slow = {slow}
            with anyio.move_on_after(0.2) as scope:
                async with SandboxAgent.start(shelf, on_exit="leave"):
                    raise AssertionError
            assert scope.cancelled_caught
            assert shelf.ended == (["made undone"] if slow == "create" else ["destroy"])

    under(backend, body)


@BACKENDS
def test_a_block_that_is_cancelled_does_what_is_to_be_done_in_the_end(backend: str) -> None:
    async def body() -> None:
        async with scripted(said()) as server:
            for on_exit, ended in ((None, ["destroy"]), ("pause", ["pause"]), ("leave", [])):
                shelf = Resting(server.url)
                with anyio.move_on_after(0.3) as scope:
                    async with SandboxAgent.start(shelf, on_exit=on_exit):  # type: ignore[arg-type]
                        await anyio.sleep_forever()
                assert scope.cancelled_caught
                assert shelf.ended == ended

    under(backend, body)


async def test_a_sandbox_that_was_found_is_left_where_its_start_fails() -> None:
    async with scripted(said(b"", 500)) as server:
        shelf = Shelf(server.url)
        with pytest.raises(ConnectionFailed):
            async with SandboxAgent.start(shelf, sandbox_id="shelf/a/b", on_exit="destroy", start_within=0.2):
                raise AssertionError
        assert shelf.ended == []


@pytest.mark.parametrize("method", ["create", "endpoint", "reconnect"])
async def test_what_the_provider_says_is_raised(method: str) -> None:
    async with scripted(said()) as server:
        shelf = Resting(server.url)
        shelf.fails = {method: SandboxDestroyed("no such sandbox")}
        with pytest.raises(SandboxDestroyed, match="no such sandbox"):
            async with SandboxAgent.start(shelf, sandbox_id="shelf/a/b" if method == "reconnect" else None):
                raise AssertionError


async def test_an_end_that_fails_is_told_unless_there_is_worse() -> None:
    async with scripted(said()) as server:
        shelf = Shelf(server.url)
        shelf.fails = {"destroy": ProviderError("it does not go")}
        with pytest.raises(ProviderError, match="it does not go"):
            async with SandboxAgent.start(shelf):
                pass
        with pytest.raises(ZeroDivisionError):
            async with SandboxAgent.start(shelf):
                raise ZeroDivisionError


async def test_the_id_of_another_provider_is_refused_before_anything_is_done() -> None:
    for id in ("docker/a/b", "shelf", "shelf/", "/a", ""):
        shelf = Shelf("http://127.0.0.1:9")
        with pytest.raises(ProviderError, match="no sandbox of shelf"):
            async with SandboxAgent.start(shelf, sandbox_id=id):
                raise AssertionError
        assert shelf.done == []


async def test_a_token_of_ours_counts_more_than_the_provider_s() -> None:
    async with scripted(said()) as server:
        for given, sent in ((None, "Bearer of the provider"), ("mine", "Bearer mine")):
            async with SandboxAgent.start(Shelf(server.url), sandbox_id="shelf/a/b", token=given) as sandbox:
                await sandbox.health()
            assert server.asked[-1].headers["authorization"] == sent


async def test_a_provider_that_cannot_pause_goes_on() -> None:
    async with scripted(said()) as server:
        shelf = Shelf(server.url)
        async with SandboxAgent.start(shelf) as sandbox:
            with pytest.raises(UnsupportedByProvider, match="shelf cannot pause"):
                await sandbox.pause()
            await sandbox.health()
        resting = Resting(server.url)
        async with SandboxAgent.start(resting) as sandbox:
            await sandbox.pause()
            with pytest.raises(ProviderError, match="shelf/a/b is paused"):
                await sandbox.health()
        assert resting.ended == ["pause"]


@BACKENDS
def test_who_still_waits_when_the_block_ends_does_not_wait_for_ever(backend: str) -> None:
    """Tasks that are somebody else's may outlive the block, and its monitor."""

    async def body() -> None:
        dead, recovering = anyio.Event(), anyio.Event()
        waited: list[str] = []

        async def dying(asked: Asked, stream: Any) -> None:
            if not dead.is_set():
                await said()(asked, stream)

        def hear(event: RecoveryEvent) -> None:
            if event.kind == "recovering":
                recovering.set()

        async def wait(what: Callable[[], Awaitable[object]]) -> None:
            with pytest.raises(ConnectionFailed, match="has ended"):
                await what()
            waited.append("told")

        async def read() -> None:
            async with EventStream(sandbox.transport, "/v1/sessions/s/events") as events:
                await anext(events)

        async with scripted(dying) as server, anyio.create_task_group() as tasks:
            shelf = Shelf(server.url)
            shelf.slow = {"ensure_server"}
            async with SandboxAgent.start(shelf, recovery=Recovery(interval=0.05), on_recovery=hear) as sandbox:
                dead.set()
                tasks.start_soon(wait, sandbox.health)
                tasks.start_soon(wait, read)
                await recovering.wait()
                assert waited == []
            await wait(sandbox.health)
        assert waited == ["told"] * 3

    under(backend, body)


async def test_a_server_without_our_routes_says_so() -> None:
    """The public server answers routes that it does not know like this."""

    async def public(asked: Asked, stream: Any) -> None:
        known = asked.path == "/v1/health"
        await (said(b'{"status":"ok"}') if known else refused(404, "invalid_request"))(asked, stream)

    async with scripted(public) as server, SandboxAgent.connect(server.url) as sandbox:
        assert await sandbox.ready()
        with pytest.raises(UnsupportedByServer, match=r"sandbox\.acp\(\)"):
            await sandbox.create_session("mock")
        with pytest.raises(UnsupportedByServer, match=r"sandbox\.acp\(\)"):
            await sandbox.list_sessions()


async def test_nobody_at_the_other_end_is_told_in_time() -> None:
    with pytest.raises(ConnectionFailed, match=r"within 0\.3 s"):
        async with SandboxAgent.connect("http://127.0.0.1:9", start_within=0.3):
            raise AssertionError


@pytest.mark.parametrize("token", ["s3cret\n", "s3crét"])
async def test_a_token_that_cannot_be_sent_is_refused_at_once_and_not_told(token: str) -> None:
    async with scripted(said()) as server:
        with pytest.raises(ValueError, match="Authorization") as refusal:
            async with SandboxAgent.connect(server.url, token):
                raise AssertionError
        assert server.asked == []
    assert "s3cr" not in str(refusal.value)


async def test_what_is_no_url_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="begins with http"):
        async with SandboxAgent.connect("127.0.0.1:2468"):
            raise AssertionError


def test_a_check_whose_answer_makes_no_sense_ends_nothing() -> None:
    """What stands in between may say anything. (Under Trio httpx itself warns of what it leaves half read.)"""
    garbled, failing, recovered = anyio.Event(), anyio.Event(), anyio.Event()

    async def between(asked: Asked, stream: Any) -> None:
        now = garbled.is_set() and not failing.is_set()
        await (said(Content_Encoding="gzip") if now else said())(asked, stream)

    def hear(event: RecoveryEvent) -> None:
        (failing if event.kind == "failing" else recovered).set()

    async def body() -> None:
        quick = Recovery(interval=0.05)
        async with (
            scripted(between) as server,
            SandboxAgent.connect(server.url, recovery=quick, on_recovery=hear) as sandbox,
        ):
            garbled.set()
            await recovered.wait()
            await sandbox.health()
        assert failing.is_set()

    under("asyncio", body)


async def test_a_server_that_takes_no_work_is_no_start() -> None:
    async def draining(asked: Asked, stream: Any) -> None:
        await (said() if asked.path == "/v1/health" else refused(503, "shutting_down"))(asked, stream)

    async with scripted(draining) as server:
        with pytest.raises(Unavailable):
            async with SandboxAgent.connect(server.url, timeouts=Timeouts(retry_within=0.2)):
                raise AssertionError


def test_the_package_is_imported_in_no_time() -> None:
    """The command line imports it, and needs none of it."""
    assert not modules("import sandbox_agent") & {"httpx", "msgspec", "anyio", "trio", "asyncio", "ssl"}


def test_the_client_needs_nothing_of_the_server() -> None:
    loaded = modules("from sandbox_agent import SandboxAgent")
    assert not loaded & {"sandbox_actors", "sandbox_http", "sandbox_supervisor", "sandbox_agent.cli", "quart"}


def test_the_client_works_under_any_event_loop_since_it_names_none() -> None:
    package = Path(sandbox_agent.__file__).parent
    others = {package / "demo.py", *(package / "cli").iterdir()}
    for file in set(package.rglob("*.py")) - others:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.partition(".")[0] for name in names} & {"trio", "asyncio"}, file


def modules(statement: str) -> set[str]:
    """What is imported with this."""
    code = f"import sys; {statement}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ran.stdout.split())
