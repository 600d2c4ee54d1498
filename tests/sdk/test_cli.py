"""The `sandbox-agent` command, as it is installed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import click
import pytest
import trio
from click.testing import CliRunner

from sandbox_agent import cli
from support.clients import Session, texts
from support.command import COMMAND, run, started
from support.wire import WebSocket, exchange

if TYPE_CHECKING:
    from pathlib import Path

JSON = {"Content-Type": "application/json"}
INITIALIZE = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}'
WITHIN = 40

SERVER: Any = cli.main.commands["server"]
OPTIONS = [option for option in SERVER.params if isinstance(option, click.Option) and not option.hidden]
ENVIRONMENT = {str(option.envvar) for option in OPTIONS if option.envvar}


def test_help_names_every_command_and_every_option_with_its_variable() -> None:
    shown = CliRunner().invoke(cli.main, ["--help"])
    assert shown.exit_code == 0
    for command in ("server", "mock-agent"):
        assert command in shown.output
    assert "mock-agent-process" not in shown.output
    for flag in ("--help", "-h"):
        shown = CliRunner().invoke(cli.main, ["server", flag])
        assert shown.exit_code == 0
        text = " ".join(shown.output.split())
        for option in OPTIONS:
            assert option.opts[-1] in text
        for variable in ENVIRONMENT | {"SANDBOX_AGENT_TOKEN", "SANDBOX_AGENT_TOKEN_FILE"}:
            assert variable in text.replace(" ", "")


def test_every_option_but_the_groups_own_has_a_variable() -> None:
    without = {option.opts[-1] for option in OPTIONS if not option.envvar}
    assert without == {"--token", "--token-file", "--no-token"}
    assert all(variable.startswith("SANDBOX_AGENT_") for variable in ENVIRONMENT)
    assert len(ENVIRONMENT) == len(OPTIONS) - len(without)


async def test_the_version_is_that_of_the_distribution() -> None:
    expected = f"sandbox-agent {version('trio-sandbox-agent')}\n"
    for flag in ("--version", "-V"):
        assert await run(flag) == (0, expected, "")


@pytest.mark.parametrize("command", ["mock-agent", "mock-agent-process"])
async def test_the_mock_agent_speaks_acp_until_the_end_of_its_input(command: str, tmp_path: Path) -> None:
    done = await run(command, stdin=INITIALIZE + b"\n", env={"MOCK_AGENT_HOME": str(tmp_path)})
    assert (done.code, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert (answer["id"], answer["result"]["protocolVersion"]) == (1, 1)


UNSAFE: dict[str, tuple[list[str], dict[str, str], str]] = {
    "every address": (["--host", "0.0.0.0"], {}, "refusing to listen on 0.0.0.0 without a token"),
    "every address, no token meant": (["--no-token", "--host", "0.0.0.0"], {}, "refusing to listen on 0.0.0.0"),
    "every address by environment": ([], {"SANDBOX_AGENT_HOST": "0.0.0.0"}, "refusing to listen on 0.0.0.0"),
    "an empty token": (["--token", ""], {}, "the token is empty"),
    "an empty token by environment": ([], {"SANDBOX_AGENT_TOKEN": ""}, "the token is empty"),
    "a token that is not UTF-8": ([], {"SANDBOX_AGENT_TOKEN": "a\udcff"}, "the token cannot be sent in a header"),
    "every origin": (["-O", "*"], {}, "--cors-allow-origin '*' needs a token"),
    "every origin with credentials": (
        ["-t", "x", "-O", "*", "-C"],
        {},
        "--cors-allow-origin '*' needs a token and goes",
    ),
    "another machine's address": (["-t", "x", "-H", "203.0.113.1"], {}, "cannot listen on 203.0.113.1 port 0: "),
    "no name": (["-t", "x", "-H", ".."], {}, "cannot listen on .."),
    "no agents file": (["--agents", "/nowhere/agents.toml"], {}, "cannot read the agents file /nowhere/agents.toml"),
    "a file for a directory": (
        ["--state-dir", "/dev/null/state"],
        {},
        "cannot use the state directory /dev/null/state",
    ),
}


@pytest.mark.alone
async def test_what_would_not_be_safe_or_cannot_work_ends_with_one_sentence_and_code_1(tmp_path: Path) -> None:
    wrong: dict[str, object] = {}

    async def start(name: str) -> None:
        arguments, env, sentence = UNSAFE[name]
        done = await run(
            "server", *arguments, env={"SANDBOX_AGENT_PORT": "0", "SANDBOX_AGENT_DATA_DIR": str(tmp_path), **env}
        )
        lines = done.stderr.splitlines()
        if done.code != 1 or done.stdout or len(lines) != 1 or not lines[0].startswith(f"sandbox-agent: {sentence}"):
            wrong[name] = done

    async with trio.open_nursery() as nursery:
        for name in UNSAFE:
            nursery.start_soon(start, name)
    assert wrong == {}


async def test_a_port_in_use_ends_with_one_sentence_and_code_1(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = await run("server", "--port", str(port), "--data-dir", str(tmp_path))
    expected = f"sandbox-agent: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    assert done == (1, "", expected)


async def test_a_state_directory_belongs_to_one_server(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    async with started(tmp_path, "--state-dir", state):
        done = await run("server", "--port", "0", "--data-dir", str(tmp_path), "--state-dir", state)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"sandbox-agent: another daemon uses the state directory {state}")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "70000"),
        ("PORT", "x"),
        ("DATA_DIR", __file__),
        ("STATE_DIR", __file__),
        ("AGENTS", "/tmp"),
        ("MAX_BODY", "0"),
        ("ACP_REQUEST_TIMEOUT_MS", "0"),
        ("RETENTION_BYTES", "-1"),
        ("RETENTION_EVENTS", "many"),
        ("RETENTION_DAYS", "-1"),
        ("JOURNAL_SYNC", "off"),
        ("RESTART_LIMIT", "-1"),
        ("RESTART_BACKOFF_MS", "-1"),
        ("MAX_AGENTS", "-1"),
        ("IDLE_LIMIT", "soon"),
        ("GRACE", "0"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("CORS_ALLOW_CREDENTIALS", "perhaps"),
    ],
)
def test_a_value_that_makes_no_sense_is_a_usage_error_that_names_the_variable(variable: str, value: str) -> None:
    done = CliRunner().invoke(cli.main, ["server"], env={f"SANDBOX_AGENT_{variable}": value})
    assert done.exit_code == 2
    assert f"SANDBOX_AGENT_{variable}" in done.output
    assert "Traceback" not in done.output


async def test_the_environment_sets_what_the_options_set(tmp_path: Path) -> None:
    agents = tmp_path / "agents.toml"
    agents.write_text(
        '[agents.mine]\ncommand = ["sh", "-c", "exec sandbox-agent mock-agent"]\nenv = { MINE = "yes" }\n'
    )
    env = {
        "SANDBOX_AGENT_HOST": "localhost",
        "SANDBOX_AGENT_TOKEN": "t0ken",
        "SANDBOX_AGENT_STATE_DIR": str(tmp_path / "state"),
        "SANDBOX_AGENT_AGENTS": str(agents),
        "SANDBOX_AGENT_CORS_ALLOW_ORIGIN": "https://a.example https://b.example",
        "SANDBOX_AGENT_CORS_ALLOW_METHOD": "GET POST",
        "SANDBOX_AGENT_CORS_ALLOW_HEADER": "authorization",
        "SANDBOX_AGENT_CORS_ALLOW_CREDENTIALS": "true",
        "SANDBOX_AGENT_MAX_BODY": "2000",
        "SANDBOX_AGENT_ACP_REQUEST_TIMEOUT_MS": "500",
        "SANDBOX_AGENT_LOG_LEVEL": "debug",
        "SANDBOX_AGENT_LOG_FORMAT": "json",
        "PATH": f"{os.path.dirname(COMMAND)}:{os.environ['PATH']}",
        "SANDBOX_AGENT_INHERIT_ENV": "MY_*, OTHER npm_*,SANDBOX_AGENT_*",
        "npm_config_registry": "https://registry.example",
        "MY_KEY": "inherited",
    }
    with trio.fail_after(WITHIN):
        async with started(tmp_path, env=env, token="t0ken") as server:
            assert json.loads(server.stderr.splitlines()[0])["url"].startswith("http://")
            assert (tmp_path / "state" / "journal.db").exists()
            asked = {"Origin": "https://b.example"}
            answer = await exchange(server.port, "OPTIONS", "/v1/health", asked)
            assert answer.headers["access-control-allow-origin"] == "https://b.example"
            assert answer.headers["access-control-allow-methods"] == "GET,POST"
            assert answer.headers["access-control-allow-headers"] == "authorization"
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert (await exchange(server.port, "GET", "/v1/health")).status == 401
            assert (await exchange(server.port, "POST", "/v1/acp/x", server.headers, b"x" * 2001)).status == 413
            session = Session(server)
            await session.open("mine")
            asked_for = ("MINE", "MY_KEY", "SANDBOX_AGENT_TOKEN", "SANDBOX_AGENT_STATE_DIR", "npm_config_registry")
            async with session.subscribed() as subscriber:
                await session.prompt("\n".join(f"/env {name}" for name in asked_for))
                await subscriber.until(lambda event: event.message.get("id") == 3)
                told = texts(subscriber.events)
            assert "yes" in told
            assert "inherited" in told
            assert "t0ken" not in told
            assert "registry.example" not in told
            assert str(tmp_path / "state") not in told
            answer = await exchange(server.port, "GET", "/v1/acp", server.headers)
            assert answer.json["servers"][0]["agent"] == "mine"
            late = await session.prompt("/sleep 1")
            assert late["error"]["data"]["type"].endswith(":timeout")
            await server.stop()


async def test_the_token_is_taken_before_and_behind_the_command_and_the_argument_wins(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with started(tmp_path, "--token", "argument", env={"SANDBOX_AGENT_TOKEN": "variable"}) as server:
            for token, status in (("argument", 200), ("variable", 401)):
                headers = {"Authorization": f"Bearer {token}"}
                assert (await exchange(server.port, "GET", "/v1/health", headers)).status == status
                async with WebSocket.open(server.port, "/v1/acp/s?agent=mock", headers) as socket:
                    assert (socket.refusal is None) == (status == 200)
    done = await run("--token", "x", "--no-token", "server", "--no-token", "--host", "..", "--data-dir", str(tmp_path))
    assert done.code == 1
    assert "cannot listen on .." in done.stderr  # and not for want of a token


async def test_without_a_token_the_server_is_open_on_loopback_meant_or_not(tmp_path: Path) -> None:
    for number, (arguments, env) in enumerate([([], {}), (["--no-token"], {"SANDBOX_AGENT_TOKEN": ""})]):
        with trio.fail_after(WITHIN):
            async with started(tmp_path / str(number), *arguments, env=env) as server:
                assert (await exchange(server.port, "GET", "/v1/health")).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_server_with_code_0(tmp_path: Path, number: signal.Signals) -> None:
    with trio.fail_after(WITHIN):
        async with started(tmp_path) as server:
            await exchange(server.port, "POST", "/v1/acp/s?agent=mock", JSON, INITIALIZE)
            server.process.send_signal(number)
            assert await server.process.wait() == 0
            await server.until("event=stopped")
            assert re.search(rf'event="shutting down" by={number.name}', server.stderr)


async def test_flags_of_the_public_command_are_taken(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with started(
            tmp_path, "--host", "127.0.0.1", "--port", "0", "--token", "x" * 48, "--no-telemetry"
        ) as server:
            await server.stop()
