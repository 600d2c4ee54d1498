"""Late binding: a daemon that waits is closed to everybody, and opens once, for whoever came first."""

from __future__ import annotations

import json
import os
import signal
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from sandbox_actors.directory_config import DirectoryConfig
from sandbox_http.config import BadConfig, Config, Cors
from sandbox_http.daemon import open_daemon
from sandbox_http.init import open_door
from sandbox_http.serving import listen
from support.clients import Session
from support.command import invoke, run, started
from support.daemon import free_port, running
from support.processes import command_of, eventually
from support.serving import Local, Resources, agents_file, routes, script
from support.wire import Answer, WebSocket, exchange, exchange_bytes, request_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path
    from typing import Any

    from support.clients import Json

TOKEN = "canary-token-from-init"
SECRET = "canary-secret-of-the-pool"
KEY = "canary-key-of-a-provider"
OWN = "canary-of-the-workspace"
FULL: Json = {
    "token": TOKEN,
    "tokens": [{"name": "reader", "token": "canary-token-to-read", "scopes": ["read"]}],
    "env": {"GREETING": "hello", "EDITOR": "ed"},
    "secrets": {"ANTHROPIC_API_KEY": KEY, "MY_OWN": OWN},
}
WITHIN = 60

CURIOUS = """
import pathlib
pathlib.Path(sys.argv[1]).write_text(json.dumps(dict(os.environ)))
print("I was given", os.environ.get("MY_OWN"), file=sys.stderr, flush=True)
os.execv(sys.executable, [sys.executable, "-m", "sandbox_actors.mock"])
"""


class Waiting(Local):
    """A daemon of this process that waits, or has waited.

    Attributes:
      opened: it is open.
    """

    def __init__(self, home: Path, url: str) -> None:
        super().__init__(home, url, None)
        self.opened = trio.Event()

    async def ask(self, method: str, path: str, token: str | None = None) -> Answer:
        return await exchange(self.port, method, path, {} if token is None else {"Authorization": f"Bearer {token}"})

    async def init(self, body: Json, **headers: str) -> Answer:
        return await init(self.port, body, **headers)


async def init(port: int, body: Json, **headers: str) -> Answer:
    """POST /v1/init. An underscore in a name of a header stands for a dash."""
    told = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await exchange(port, "POST", "/v1/init", told, text)


@asynccontextmanager
async def waiting(home: Path, *, host: str = "127.0.0.1", **config: Any) -> AsyncGenerator[Waiting]:
    """A daemon that waits, for as long as the block runs."""
    with listen(host, 0) as listener:
        daemon = Waiting(home, f"http://127.0.0.1:{listener.getsockname()[1]}")
        told = Config(
            data_dir=home / "data",
            host=host,
            port=daemon.port,
            agents_file=agents_file(home, config.pop("agents", {})),
            synchronous="NORMAL",
            await_init=True,
            **config,
        )

        async def serve() -> None:
            async with (
                open_door(told, listener, grace=1) as door,
                open_daemon(await door.initialized(), door),
            ):
                daemon.opened.set()
                await trio.sleep_forever()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve)
            yield daemon
            nursery.cancel_scope.cancel()


async def test_a_daemon_that_waits_tells_that_it_does_and_nothing_else(tmp_path: Path) -> None:
    async with waiting(tmp_path, host="0.0.0.0") as daemon:
        health = await daemon.ask("GET", "/v1/health")
        assert (health.status, health.json) == (200, {"status": "awaiting_init"})
        for token in (None, "x", ""):
            for route in routes(tmp_path):
                for method in route.methods:
                    if route.template == "/v1/health" and method in ("GET", "HEAD"):
                        continue
                    answer = await daemon.ask(method, route.path(), token)
                    assert answer.status == 503, (method, route.template)
                    assert answer.headers["retry-after"] == "1"
                    assert method == "HEAD" or answer.problem == "awaiting_init"
                if route.websocket:
                    async with WebSocket.open(daemon.port, route.path()) as socket:
                        assert socket.refusal is not None
                        assert socket.refusal.problem == "awaiting_init"
        for path in ("/v1/nothing", "/v1/ports/1/proxy/", "/v1/init"):
            assert (await daemon.ask("GET", path)).problem == "awaiting_init"
        assert not daemon.opened.is_set()
        assert not (tmp_path / "data").exists()


async def test_of_many_that_initialize_at_once_exactly_one_wins(tmp_path: Path) -> None:
    answers: dict[str, Answer] = {}
    async with waiting(tmp_path, host="0.0.0.0") as daemon:

        async def contend(token: str) -> None:
            answers[token] = await daemon.init({"token": token, "workspace": str(tmp_path / "work")})

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(contend, f"token-of-{number}")
        won = [token for token, answer in answers.items() if answer.status == 200]
        assert len(won) == 1
        assert answers[won[0]].json == {"status": "initialized"}
        lost = {answer.problem for token, answer in answers.items() if token not in won}
        assert lost == {"already_initialized"}
        for token in answers:
            assert (await daemon.ask("GET", "/v1/health", token)).status == (200 if token in won else 401)
        late = await daemon.init({"token": "late"})
        assert (late.status, late.problem) == (409, "already_initialized")
        assert (await daemon.ask("GET", "/v1/health")).status == 401


async def test_nobody_who_connects_is_refused_while_the_daemon_opens(tmp_path: Path) -> None:
    statuses: list[int] = []
    async with waiting(tmp_path) as daemon:

        async def knock() -> None:
            while True:
                statuses.append((await daemon.ask("GET", "/v1/health", TOKEN)).status)

        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(knock)
            await eventually(lambda: len(statuses) > 10)
            assert (await daemon.init({"token": TOKEN})).status == 200
            await daemon.opened.wait()
            seen = len(statuses)
            await eventually(lambda: len(statuses) > seen + 10)
            nursery.cancel_scope.cancel()
    assert set(statuses) == {200}


async def test_what_makes_no_sense_is_refused_and_leaves_the_place_to_the_next(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with waiting(tmp_path, host="0.0.0.0") as daemon:
        for body, status, told in (
            (b"{", 400, "not JSON"),
            ([], 422, "Expected `object`"),
            ({"token": TOKEN, "more": 1}, 422, "unknown field"),
            ({}, 400, "without a token"),
            ({"token": ""}, 400, "token is empty"),
            ({"token": "a\nb"}, 400, "cannot be sent"),
            ({"tokens": [{"name": "default", "token": "x"}]}, 400, "'default' is the name"),
            ({"token": TOKEN, "env": {"A": 1}}, 422, "Expected `str`"),
            ({"token": TOKEN, "env": {"A-B": KEY}}, 400, "no name of a variable"),
            ({"token": TOKEN, "env": {"": KEY}}, 400, "no name of a variable"),
            ({"token": TOKEN, "env": {"A": KEY + "\0"}}, 400, "NUL"),
            ({"token": TOKEN, "env": {"SANDBOX_AGENT_TOKEN": KEY}}, 400, "server's own"),
            ({"token": TOKEN, "secrets": {"npm_config_x": KEY}}, 400, "server's own"),
            ({"token": TOKEN, "env": {"A": KEY}, "secrets": {"A": KEY}}, 400, "in 'env' and in 'secrets'"),
            ({"token": TOKEN, "workspace": "relative"}, 400, "absolute path"),
            ({"token": TOKEN, "workspace": "/", "env": {"HOME": "/"}}, 400, "either 'workspace' or HOME"),
            ({"token": TOKEN, "workspace": str(tmp_path / "file")}, 400, "cannot make the workspace"),
        ):
            answer = await daemon.init(body)
            assert answer.status == status, told
            assert told in answer.detail
            assert "canary" not in answer.body.decode()
            assert "connection" not in answer.headers
        form = await daemon.init({"token": TOKEN}, Content_Type="text/plain")
        assert form.problem == "unsupported_media_type"
        large = await daemon.init({"token": "x" * (2 << 20)})
        assert large.status == 413
        assert (await daemon.ask("GET", "/v1/health")).json == {"status": "awaiting_init"}
        assert (await daemon.init({"token": TOKEN})).status == 200
        await daemon.opened.wait()


async def test_the_pools_own_secret_is_asked_for_where_there_is_one(tmp_path: Path) -> None:
    async with waiting(tmp_path, init_secret=SECRET) as daemon:
        refusals = [
            await daemon.init({"token": TOKEN}),
            await daemon.init({"token": TOKEN}, X_Sandbox_Agent_Init_Secret=SECRET[:-1]),
            await daemon.init(b"{", X_Sandbox_Agent_Init_Secret=""),
            await daemon.init({"token": TOKEN}, Authorization=f"Bearer {SECRET}"),
        ]
        assert {answer.body for answer in refusals} == {refusals[0].body}
        assert (refusals[0].status, refusals[0].problem) == (401, "token_invalid")
        assert (await daemon.init({"token": TOKEN}, X_Sandbox_Agent_Init_Secret=SECRET)).status == 200
        await daemon.opened.wait()


async def test_web_pages_cannot_initialize(tmp_path: Path) -> None:
    async with waiting(tmp_path, cors=Cors(("https://app.example",))) as daemon:
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Host": "evil.example", "Origin": "http://evil.example"},
            {"Host": "evil.example"},
        ):
            assert (await daemon.init({"token": TOKEN}, **headers)).problem == "permission_denied"
        # Nor can those that may call, and our own: none of them has anything to show for itself yet.
        for headers in (
            {"Origin": "https://app.example"},
            {"Origin": f"http://127.0.0.1:{daemon.port}", "Host": f"127.0.0.1:{daemon.port}"},
        ):
            refusal = await daemon.init({"token": TOKEN}, **headers)
            assert (refusal.status, refusal.problem) == (403, "permission_denied")
        assert (await daemon.init({"token": TOKEN})).status == 200
        await daemon.opened.wait()
    async with waiting(tmp_path / "secret", cors=Cors(("https://app.example",)), init_secret=SECRET) as daemon:
        told = {"Origin": "https://app.example", "X_Sandbox_Agent_Init_Secret": SECRET}
        assert (await daemon.init({"token": TOKEN}, **told)).status == 200
        await daemon.opened.wait()
    async with waiting(tmp_path / "everywhere", host="0.0.0.0") as daemon:
        rebound = {"Host": "evil.example", "Origin": "http://evil.example"}
        assert (await daemon.init({"token": TOKEN}, **rebound)).problem == "permission_denied"
        assert (await daemon.init({"token": TOKEN}, Host="behind.a.proxy")).status == 200


async def test_on_loopback_a_token_may_be_left_out(tmp_path: Path) -> None:
    async with waiting(tmp_path) as daemon:
        assert (await daemon.init({})).status == 200
        await daemon.opened.wait()
        assert (await daemon.ask("GET", "/v1/health")).json == {"status": "ok"}
        assert (await daemon.init({})).problem == "already_initialized"


async def test_what_it_was_told_reaches_agents_and_processes_as_its_own_environment_does(tmp_path: Path) -> None:
    program = script(tmp_path / "curious.py", CURIOUS)
    agents = {name: [*program, str(tmp_path / f"{name}.json")] for name in ("one", "two")}
    work = tmp_path / "deep" / "work"
    async with waiting(tmp_path, agents=agents) as daemon:
        assert (await daemon.init({**FULL, "workspace": str(work)})).status == 200
        await daemon.opened.wait()
        daemon.token = TOKEN
        await Session(daemon, "s").open("one")
        given = json.loads((tmp_path / "one.json").read_text())
        assert given["HOME"] == str(work)
        assert (given["GREETING"], given["EDITOR"], given["MY_OWN"], given["ANTHROPIC_API_KEY"]) == (
            "hello", "ed", OWN, KEY,
        )  # fmt: skip
        assert TOKEN not in given.values()
        command = {"command": "sh", "args": ["-c", "echo $HOME $GREETING $MY_OWN"]}
        headers = {**daemon.headers, "Content-Type": "application/json"}
        done = await exchange(daemon.port, "POST", "/v1/processes/run", headers, json.dumps(command).encode())
        assert done.json["stdout"] == f"{work} hello {OWN}\n"
        (work / "a.txt").write_text("in the workspace")
        file = await daemon.ask("GET", "/v1/fs/file?path=a.txt", TOKEN)
        assert file.body == b"in the workspace"
        assert (await daemon.ask("GET", "/v1/fs/file?path=a.txt", "canary-token-to-read")).status == 200
        assert (await daemon.ask("POST", "/v1/fs/mkdir?path=b", "canary-token-to-read")).problem == "forbidden_scope"
    assert "MY_OWN" not in os.environ
    assert isinstance(DirectoryConfig().environment, type(os.environ))


async def test_a_key_of_a_provider_reaches_those_agents_alone_that_work_with_it(tmp_path: Path) -> None:
    program = script(tmp_path / "curious.py", CURIOUS)
    definitions = {
        name: {"command": [*program, str(tmp_path / f"{name}.json")], "credentials": [provider]}
        for name, provider in (("mine", "anthropic"), ("others", "openai"))
    }
    (tmp_path / "own.json").write_text(json.dumps({"agents": definitions}))
    options = ["--await-init", "--agents", str(tmp_path / "own.json")]
    with trio.fail_after(WITHIN):
        async with started(tmp_path, *options, token=TOKEN) as server:
            assert (await init(server.port, FULL)).status == 200
            for agent in definitions:
                await Session(server, agent).open(agent)
            await server.stop()
    given = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in definitions}
    assert given["mine"]["ANTHROPIC_API_KEY"] == KEY
    assert "ANTHROPIC_API_KEY" not in given["others"]
    assert given["others"]["MY_OWN"] == OWN


async def test_nothing_is_left_of_a_daemon_that_waited(tmp_path: Path) -> None:
    before = Resources.now()
    async with waiting(tmp_path / "never") as daemon:
        await daemon.ask("GET", "/v1/health")
    await before.back()
    async with waiting(tmp_path / "once") as daemon:
        await daemon.init({"token": TOKEN})
        await daemon.opened.wait()
    await before.back()


async def test_a_client_that_holds_a_request_back_keeps_nobody_out(tmp_path: Path) -> None:
    async with waiting(tmp_path) as daemon, await trio.open_tcp_stream("127.0.0.1", daemon.port) as stalled:
        await stalled.send_all(b"POST /v1/init HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{")
        with trio.fail_after(10):
            assert (await daemon.init({"token": TOKEN})).status == 200
        assert (await daemon.ask("GET", "/v1/health", TOKEN)).status == 200


async def test_a_connection_from_before_goes_on_after(tmp_path: Path) -> None:
    async with waiting(tmp_path) as daemon, httpx.AsyncClient(base_url=daemon.url, trust_env=False) as client:
        assert (await client.get("/v1/health")).json() == {"status": "awaiting_init"}
        assert (await client.post("/v1/init", json={"token": TOKEN})).status_code == 200
        answer = await client.get("/v1/health", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.json() == {"status": "ok"}


async def test_a_daemon_that_cannot_open_ends_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no directory")
    with trio.fail_after(WITHIN):
        async with started(tmp_path, "--await-init", "--state-dir", str(tmp_path / "state/of")) as server:
            request = request_bytes("POST", "/v1/init", {"Content-Type": "application/json"}, b"{}")
            answer = await exchange_bytes(server.port, request, "POST")
            assert answer is None or answer.status == 500
            assert await server.process.wait() == 1
            await server.until("sandbox-agent: cannot use the state directory")


async def test_after_its_end_it_waits_again_and_what_was_said_is_still_there(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with running(tmp_path, "--no-token", "--await-init", SANDBOX_AGENT_TOKEN="") as daemon:
            assert (await daemon_says(daemon.port)) == "awaiting_init"
            daemon.token = TOKEN
            assert (await init(daemon.port, {"token": TOKEN})).status == 200
            session = Session(daemon, "s")
            await session.open("mock")
            await daemon.kill()
            await daemon.start()
            assert (await daemon_says(daemon.port)) == "awaiting_init"
            answer = await exchange(daemon.port, "GET", "/v1/acp", daemon.headers)
            assert answer.problem == "awaiting_init"
            daemon.token = "another-token"
            assert (await init(daemon.port, {"token": daemon.token})).status == 200
            answer = await exchange(daemon.port, "GET", "/v1/acp", daemon.headers)
            assert [server["serverId"] for server in answer.json["servers"]] == ["s"]
            old = await exchange(daemon.port, "GET", "/v1/acp", {"Authorization": f"Bearer {TOKEN}"})
            assert old.status == 401


async def daemon_says(port: int) -> str:
    answer = await exchange(port, "GET", "/v1/health")
    status: str = answer.json["status"]
    return status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_daemon_that_waits_ends_at_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with trio.fail_after(WITHIN):
        async with started(tmp_path, "--await-init") as server:
            os.kill(server.pid, number)
            assert await server.process.wait() == 0
            await server.until("stopped")


async def test_nothing_that_it_was_told_is_told_or_kept(tmp_path: Path) -> None:
    program = script(tmp_path / "curious.py", CURIOUS)
    telling = 'heard()\nprint(os.environ["MY_OWN"], file=sys.stderr, flush=True)\nos._exit(3)\n'
    leaky = script(tmp_path / "leaky.py", telling)
    agents = {"curious": [*program, str(tmp_path / "curious.json")], "leaky": leaky}
    secret = tmp_path / "pool-secret"
    secret.write_text(SECRET + "\n")
    options = ["--await-init", "--init-secret-file", str(secret), "--agents", str(agents_file(tmp_path, agents))]
    options += ["--log-level", "debug", "--state-dir", str(tmp_path / "state"), "--restart-limit", "0"]
    told: list[str] = []
    with trio.fail_after(WITHIN):
        async with started(tmp_path, *options, token=TOKEN) as server:
            wrong = await init(server.port, FULL, X_Sandbox_Agent_Init_Secret="canary-of-a-guess")
            right = await init(server.port, FULL, X_Sandbox_Agent_Init_Secret=SECRET)
            late = await init(server.port, FULL, X_Sandbox_Agent_Init_Secret=SECRET)
            assert [answer.status for answer in (wrong, right, late)] == [401, 200, 409]
            told += [str(answer) for answer in (wrong, right, late)]
            await Session(server, "c").open("curious")
            session = Session(server, "l")
            told.append((await session.post(session.envelope("initialize", {"protocolVersion": 1}), "leaky")).text)
            assert "[redacted]" in told[-1]
            for path in ("/v1/supervisor", "/v1/tokens", "/v1/processes", "/v1/agents", "/v1/acp", "/openapi.json"):
                told.append(str(await exchange(server.port, "GET", path, server.headers)))
            told += [command_of(pid) for pid in server.processes()]
            await server.stop()
            await server.until("stopped")
    kept = b"".join(file.read_bytes() for file in (tmp_path / "state").rglob("*") if file.is_file()).decode("latin-1")
    assert "canary" not in "\n".join(told)
    assert "canary" not in server.stderr
    assert "canary" not in kept


def test_what_contradicts_itself_is_refused_before_anything_starts(tmp_path: Path) -> None:
    Config(data_dir=tmp_path, host="0.0.0.0", await_init=True, init_secret=SECRET, cors=Cors(("*",))).check()
    with pytest.raises(BadConfig, match="needs an init secret"):
        Config(data_dir=tmp_path, host="0.0.0.0", await_init=True, cors=Cors(("*",))).check()
    with pytest.raises(BadConfig, match="give none at the start"):
        Config(data_dir=tmp_path, await_init=True, token="x").check()
    with pytest.raises(BadConfig, match="secret of --await-init is empty"):
        Config(data_dir=tmp_path, await_init=True, init_secret=" ").check()


async def test_an_agents_file_that_is_broken_is_found_before_anybody_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "agents.toml").write_text("[")
    options = ["--await-init", "--agents", str(tmp_path / "agents.toml"), "--data-dir", str(tmp_path)]
    done = await run("server", "--port", str(free_port()), *options)
    assert done.code == 1
    assert "agents.toml" in done.stderr


def test_a_secret_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    done = invoke("server", "--await-init", "--init-secret-file", str(tmp_path / "none"))
    assert (done.code, done.stderr) == (
        1,
        f"sandbox-agent: cannot read --init-secret-file {tmp_path}/none: No such file or directory\n",
    )
