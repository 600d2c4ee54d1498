"""Which agents there are, and what is told of each."""

from __future__ import annotations

import json
import shlex
import sys
import textwrap
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from support.daemon import Daemon, running
from support.processes import alive, eventually
from support.serving import serving
from support.wire import Answer, exchange

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

WIRE_ORDER = ["claude", "codex", "opencode", "amp", "pi", "cursor", "mock"]

LACKS = {
    "claude": "planMode images fileAttachments sessionLifecycle errorEvents reasoning status commandExecution"
    " fileChanges itemStarted sharedProcess",
    "codex": "questions sharedProcess",
    "opencode": "planMode permissions questions reasoning status commandExecution fileChanges sharedProcess",
    "amp": "planMode permissions questions images fileAttachments sessionLifecycle reasoning status commandExecution"
    " fileChanges streamingDeltas itemStarted sharedProcess",
    "pi": "planMode permissions questions fileAttachments reasoning status commandExecution fileChanges mcpTools"
    " sharedProcess",
    "cursor": "questions fileAttachments reasoning status commandExecution fileChanges mcpTools sharedProcess",
    "mock": "sharedProcess",
}
"""The capabilities that are false on the public wire."""

COUNTING = """
import json, os, sys
with open(sys.argv[1], "a") as starts:
    starts.write("x")
for line in sys.stdin:
    message = json.loads(line)
    result = {
        "initialize": {"protocolVersion": 1, "agentInfo": {"name": "counting", "version": "9.9"}, "agentCapabilities": {
            "loadSession": False, "promptCapabilities": {"image": True, "embeddedContext": False}}},
        "session/new": {"sessionId": "s",
            "models": {"availableModels": [{"modelId": "m1", "name": "M 1"}, {"modelId": "m2", "name": "M 2"}],
                       "currentModelId": "m2"},
            "modes": {"availableModes": [{"id": "ask", "name": "Ask"}], "currentModeId": "ask"}},
    }.get(message.get("method"), {})
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": result}), flush=True)
"""


@asynccontextmanager
async def house(folder: Path, *options: str) -> AsyncGenerator[Daemon]:
    """A daemon on whose PATH there is no agent, with agents of its own: counting, broken, refusing."""
    script = folder / "counting.py"
    script.write_text(textwrap.dedent(COUNTING))
    refusing = folder / "refusing.py"
    refusing.write_text(
        "import json, sys\n"
        "for line in sys.stdin:\n"
        "    message = json.loads(line)\n"
        '    answer = {"result": {"protocolVersion": 1}} if message["method"] == "initialize" else'
        ' {"error": {"code": -32000, "message": "Authentication required"}}\n'
        '    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **answer}), flush=True)\n'
    )
    commands = {
        "counting": [sys.executable, str(script), str(folder / "starts")],
        "broken": [sys.executable, "-c", "import sys; sys.exit('no configuration found')"],
        "refusing": [sys.executable, str(refusing)],
    }
    agents = folder / "agents.json"
    agents.write_text(json.dumps({"agents": {id: {"command": command} for id, command in commands.items()}}))
    async with running(folder / "home", "--agents", str(agents), *options, PATH="/usr/bin:/bin") as daemon:
        yield daemon


async def get(daemon: Daemon, target: str) -> Answer:
    return await exchange(daemon.port, "GET", target, daemon.headers, within=60)


async def described(daemon: Daemon, id: str, query: str = "") -> dict[str, Any]:
    answer = await get(daemon, f"/v1/agents/{id}{query}")
    assert answer.status == 200, answer
    document: dict[str, Any] = answer.json
    return document


async def test_the_list_has_the_public_wires_agents_first_with_their_capabilities(tmp_path: Path) -> None:
    async with house(tmp_path) as daemon:
        answer = await get(daemon, "/v1/agents")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        agents = {agent["id"]: agent for agent in answer.json["agents"]}
        assert list(agents)[:7] == WIRE_ORDER
        assert {"counting", "broken", "gemini", "qwen"} <= agents.keys()
        for id, lacks in LACKS.items():
            capabilities = agents[id]["capabilities"]
            assert len(capabilities) == 18
            assert {name for name, can in capabilities.items() if not can} == set(lacks.split()), id
        assert all(list(agent)[:3] == ["id", "installed", "credentialsAvailable"] for agent in agents.values())
        assert (agents["mock"]["installed"], agents["mock"]["credentialsAvailable"]) == (True, True)
        assert (agents["cursor"]["installed"], agents["cursor"]["credentialsAvailable"]) == (False, False)
        assert all("version" not in agent and "configOptions" not in agent for agent in agents.values())


async def test_the_mock_agent_is_asked_for_what_it_offers(tmp_path: Path) -> None:
    async with house(tmp_path) as daemon:
        mock = await described(daemon, "mock", "?config=true")
        assert mock["version"] == "builtin"
        options = {option["id"]: option for option in mock["configOptions"]}
        assert list(options) == ["model", "mode", "thought_level"]
        assert options["model"]["options"] == [
            {"value": "mock", "name": "Mock"},
            {"value": "mock-fast", "name": "Mock Fast"},
        ]
        assert mock["configSource"] == "agent"
        assert "configError" not in mock
        assert mock["acp"]["agentInfo"]["name"] == "mock"


async def test_of_an_agent_that_is_not_installed_the_catalogs_options_are_told(tmp_path: Path) -> None:
    async with house(tmp_path) as daemon:
        claude = await described(daemon, "claude", "?config=true")
        assert claude["configSource"] == "catalog"
        assert [option["id"] for option in claude["configOptions"]] == ["model", "mode"]
        assert claude["configOptions"][0]["currentValue"] == "default"
        assert "version" not in claude


async def test_an_agents_own_words_correct_the_catalog(tmp_path: Path) -> None:
    async with house(tmp_path) as daemon:
        counting = await described(daemon, "counting", "?config=true")
        assert counting["version"] == "9.9"
        assert counting["capabilities"]["images"] is True
        assert counting["capabilities"]["fileAttachments"] is False
        assert counting["capabilities"]["sessionLifecycle"] is False
        model, mode = counting["configOptions"]
        assert model == {
            "category": "model",
            "currentValue": "m2",
            "id": "model",
            "name": "Model",
            "options": [{"name": "M 1", "value": "m1"}, {"name": "M 2", "value": "m2"}],
            "type": "select",
        }
        assert (mode["id"], mode["currentValue"]) == ("mode", "ask")


async def test_a_probe_that_fails_says_so_and_harms_no_other(tmp_path: Path) -> None:
    async with house(tmp_path) as daemon:
        answer = await get(daemon, "/v1/agents?config=true")
        agents = {agent["id"]: agent for agent in answer.json["agents"]}
        assert agents["broken"]["configError"] == (
            "it exited with code 1 before it answered 'initialize': no configuration found"
        )
        assert agents["refusing"]["configError"] == "Authentication required"
        assert "configError" not in agents["mock"]
        assert [option["id"] for option in agents["counting"]["configOptions"]] == ["model", "mode"]


async def test_an_agent_is_asked_once_until_it_changes_or_a_client_insists(tmp_path: Path) -> None:
    async with house(tmp_path) as daemon:
        starts = tmp_path / "starts"

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(described, daemon, "counting", "?config=true")
        assert starts.read_text() == "x"
        await described(daemon, "counting", "?config=true&no_cache=true")
        assert starts.read_text() == "xx"
        await described(daemon, "counting", "?no_cache=true")
        assert starts.read_text() == "xx"


async def test_a_shutdown_tells_who_waits_for_an_agents_answer(tmp_path: Path) -> None:
    started = tmp_path / "started"
    silent = ["/bin/sh", "-c", f"> {shlex.quote(str(started))}; exec cat > /dev/null"]
    async with trio.open_nursery() as nursery:
        answers: list[Answer] = []
        async with serving(tmp_path / "home", agents={"silent": silent}) as daemon:

            async def ask() -> None:
                answers.append(await get(daemon, "/v1/agents/silent?config=true"))

            nursery.start_soon(ask)
            await eventually(started.exists)
        with trio.fail_after(5):
            await eventually(lambda: bool(answers))
    assert (answers[0].status, answers[0].problem) == (503, "shutting_down")


async def test_a_client_that_leaves_ends_the_process_that_was_asked_for_it(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    forking = (
        f"trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ >> {pids}; sleep 60' & echo $$ >> {pids}; wait; wait"
    )
    async with serving(tmp_path / "home", agents={"forking": ["/bin/sh", "-c", forking]}) as daemon:
        with trio.CancelScope() as asking:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(get, daemon, "/v1/agents/forking?config=true")
                await eventually(lambda: pids.exists() and pids.read_text().count("\n") == 2)
                asking.cancel()
        with trio.fail_after(10):
            await eventually(lambda: not any(alive(int(pid)) for pid in pids.read_text().split()))


async def test_an_agent_that_runs_has_a_server_status(tmp_path: Path) -> None:
    async with house(tmp_path) as daemon:
        assert "serverStatus" not in await described(daemon, "mock")
        hello = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}})
        headers = {**daemon.headers, "Content-Type": "application/json"}
        await exchange(daemon.port, "POST", "/v1/acp/s1?agent=mock", headers, hello.encode())
        status = (await described(daemon, "mock"))["serverStatus"]
        assert status["status"] == "running"
        assert status["uptimeMs"] >= 0
        await exchange(daemon.port, "DELETE", "/v1/acp/s1", headers)
        assert "serverStatus" not in await described(daemon, "mock")


async def test_an_agent_goes_by_its_aliases_too(tmp_path: Path) -> None:
    async with house(tmp_path) as daemon:
        assert (await described(daemon, "claude-acp"))["id"] == "claude"


BAD_QUESTIONS = {
    "/v1/agents/nobody": "unsupported_agent",
    "/v1/agents/..%2Fmock": "unsupported_agent",
    "/v1/agents/%ff": "invalid_request",
    "/v1/agents?config=yes": "invalid_request",
    "/v1/agents/mock?config=": "invalid_request",
    "/v1/agents/mock?no_cache=1": "invalid_request",
    "/v1/agents/nobody/install": "unsupported_agent",
}


async def test_bad_questions_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        answers = {target: await get(daemon, target) for target in BAD_QUESTIONS}
    assert {target: answer.problem for target, answer in answers.items()} == BAD_QUESTIONS
    assert {answer.status for answer in answers.values()} == {400}


BAD_INSTALLS = [
    (b"{}", "text/plain", 415),
    (b"{", "application/json", 400),
    (b"", "application/json", 400),
    (b"[]", "application/json", 422),
    (b'{"reinstall": "yes"}', "application/json", 422),
    (b'{"agentVersion": 2}', "application/json", 422),
    (b'{"agentVersion": "../../x"}', "application/json", 400),
    (b'{"agentProcessVersion": "latest && evil"}', "application/json", 400),
]


async def test_a_bad_install_request_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        for body, content_type, status in BAD_INSTALLS:
            headers = {**daemon.headers, "Content-Type": content_type}
            answer = await exchange(daemon.port, "POST", "/v1/agents/gemini/install", headers, body)
            assert answer.status == status, body
            assert answer.problem in ("invalid_request", "unsupported_media_type"), body


async def install(daemon: Daemon, id: str, accept: str = "application/json", **wanted: object) -> Answer:
    headers = {**daemon.headers, "Content-Type": "application/json", "Accept": accept}
    body = json.dumps(wanted).encode()
    return await exchange(daemon.port, "POST", f"/v1/agents/{id}/install", headers, body, within=60)


async def test_what_is_built_in_or_the_users_own_is_already_installed(tmp_path: Path) -> None:
    async with house(tmp_path) as daemon:
        for id in ("mock", "counting"):
            answer = await install(daemon, id)
            assert (answer.status, answer.json) == (200, {"already_installed": True, "artifacts": []})
        artifacts = (await install(daemon, "mock", reinstall=True)).json["artifacts"]
        assert [(each["kind"], each["source"], each["version"]) for each in artifacts] == [
            ("agent_process", "builtin", "builtin")
        ]


async def test_without_a_network_allowed_an_install_fails_at_once(tmp_path: Path) -> None:
    async with house(tmp_path, "--offline") as daemon:
        answer = await install(daemon, "gemini")
        assert (answer.status, answer.problem) == (500, "install_failed")
        assert answer.json["agent"] == "gemini"
        assert answer.json["details"]["reason"] == "offline"
        assert "offline" in answer.json["details"]["stderr"]

        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}})
        headers = {**daemon.headers, "Content-Type": "application/json"}
        first = await exchange(daemon.port, "POST", "/v1/acp/s1?agent=gemini", headers, body.encode())
        assert (first.status, first.problem) == (500, "install_failed")
        assert (await get(daemon, "/v1/acp")).json == {"servers": []}


async def test_a_server_that_may_not_install_on_first_use_says_how_to(tmp_path: Path) -> None:
    async with house(tmp_path, "--require-preinstall") as daemon:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}})
        headers = {**daemon.headers, "Content-Type": "application/json"}
        first = await exchange(daemon.port, "POST", "/v1/acp/s1?agent=gemini", headers, body.encode())
        assert (first.status, first.problem, first.json["agent"]) == (404, "agent_not_installed", "gemini")
        assert "sandbox-agent install-agent gemini" in first.detail
