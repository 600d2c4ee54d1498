"""The mock agent, as a session meets it: a child process with pipes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path
    from typing import TypeAlias

    Open: TypeAlias = Callable[..., AbstractAsyncContextManager["Client"]]

# No wait in here is longer, even on a busy machine.
LIMIT = 30
ENDLESS = "/stream 1000000000"
HEAVY = ("trio", "msgspec", "asyncio", "dataclasses", "typing", "inspect", "subprocess")


class Client:
    """The other end of an agent's pipes."""

    def __init__(self, process: trio.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.process = process
        self.stdin = process.stdin
        self.stdout = process.stdout
        self.stderr = process.stderr
        self._unread = bytearray()
        self._sent = 0

    async def send(self, message: object) -> None:
        await self.stdin.send_all(message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n")

    async def line(self) -> bytes:
        """The next line of output, or nothing at its end."""
        searched = 0
        while (end := self._unread.find(b"\n", searched)) < 0:
            searched = len(self._unread)
            data = await self.stdout.receive_some(1 << 20)
            if not data:
                return b""
            self._unread += data
        line = bytes(self._unread[: end + 1])
        del self._unread[: end + 1]
        return line

    async def message(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self.line())
        return message

    async def start(self, method: str, **params: object) -> int:
        self._sent += 1
        await self.send({"jsonrpc": "2.0", "id": self._sent, "method": method, "params": params})
        return self._sent

    async def response(self, request: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The response, and all that came before it."""
        before: list[dict[str, Any]] = []
        while "method" in (message := await self.message()) or message["id"] != request:
            before.append(message)
        return message, before

    async def call(self, method: str, **params: object) -> dict[str, Any]:
        response, _ = await self.response(await self.start(method, **params))
        result: dict[str, Any] = response.get("result") or response["error"]
        return result

    async def new(self, **params: object) -> str:
        session: str = (await self.call("session/new", **{"cwd": "/", "mcpServers": [], **params}))["sessionId"]
        return session

    async def begin(self, session: str, *texts: str) -> int:
        return await self.start("session/prompt", sessionId=session, prompt=[_block(text) for text in texts])

    async def prompt(self, session: str, *texts: str) -> tuple[str, list[dict[str, Any]]]:
        """The stop reason and the updates."""
        response, before = await self.response(await self.begin(session, *texts))
        return response["result"]["stopReason"], [message["params"]["update"] for message in before]

    async def said(self, session: str, *texts: str) -> str:
        _, updates = await self.prompt(session, *texts)
        return _text(updates)

    async def next_text(self) -> str:
        return _text([(await self.message())["params"]["update"]])

    async def cancel(self, session: str) -> None:
        await self.send({"jsonrpc": "2.0", "method": "session/cancel", "params": {"sessionId": session}})

    async def end(self) -> int:
        """Close its input and wait for its end."""
        await self.stdin.aclose()
        return await self.process.wait()


def _block(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _text(updates: list[dict[str, Any]], kind: str = "agent_message_chunk") -> str:
    return "".join(update["content"]["text"] for update in updates if update["sessionUpdate"] == kind)


@asynccontextmanager
async def _open_mock(home: Path, **env: str) -> AsyncIterator[Client]:
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "sandbox_actors.mock"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "MOCK_AGENT_HOME": str(home), **env},
        start_new_session=True,
    )
    client = Client(process)
    try:
        with trio.fail_after(LIMIT):
            yield client
    finally:
        with trio.CancelScope(shield=True):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            for pipe in (client.stdin, client.stdout, client.stderr):
                await pipe.aclose()


@pytest.fixture
def open_mock(tmp_path: Path) -> Open:
    return partial(_open_mock, tmp_path / "home")


async def test_initialize_tells_what_the_agent_can_do(open_mock: Open) -> None:
    async with open_mock() as mock:
        result = await mock.call("initialize", protocolVersion=1)
        assert result["protocolVersion"] == 1
        assert result["agentInfo"]["name"] == "mock"
        assert result["authMethods"] == []
        assert result["_meta"]["pid"] == mock.process.pid
        assert result["agentCapabilities"]["loadSession"] is True
        assert {"resume", "list", "close"} <= result["agentCapabilities"]["sessionCapabilities"].keys()
        assert result["echoed"]["method"] == "initialize"


@pytest.mark.parametrize(
    ("chosen", "load", "others"),
    [("none", False, set()), ("load", True, set()), ("resume", False, {"resume"}), ("load,list", True, {"list"})],
)
async def test_what_is_not_chosen_is_neither_told_nor_done(
    open_mock: Open, chosen: str, load: bool, others: set[str]
) -> None:
    async with open_mock(MOCK_AGENT_CAPABILITIES=chosen) as mock:
        capabilities = (await mock.call("initialize", protocolVersion=1))["agentCapabilities"]
        assert capabilities["loadSession"] is load
        assert capabilities["sessionCapabilities"].keys() == others
        session = await mock.new()
        for name in ("load", "resume", "close"):
            offered = name in others or (name == "load" and load)
            assert (await mock.call(f"session/{name}", sessionId=session)).get("code") == (None if offered else -32601)


async def test_starting_imports_nothing_heavy() -> None:
    program = f"import sys, sandbox_actors.mock; print(sorted({{*{HEAVY!r}}} & {{*sys.modules}}))"
    with trio.fail_after(LIMIT):
        result = await trio.run_process([sys.executable, "-c", program], capture_stdout=True)
    assert result.stdout == b"[]\n"


async def test_plain_text_is_echoed_in_a_few_chunks(open_mock: Open) -> None:
    async with open_mock() as mock:
        reason, updates = await mock.prompt(await mock.new(), "hello wörld 🎈\nand more")
        assert reason == "end_turn"
        assert 1 < len(updates) <= 4
        assert _text(updates) == "hello wörld 🎈\nand more"


async def test_lines_are_steps_in_order(open_mock: Open) -> None:
    async with open_mock() as mock:
        _, updates = await mock.prompt(await mock.new(), "one\n/think two\n/echo three\nfour\n/usr/bin is no command")
        assert _text(updates) == "onethreefour\n/usr/bin is no command"
        assert _text(updates, "agent_thought_chunk") == "two"


async def test_blocks_that_are_no_text_are_acknowledged(open_mock: Open) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        image = {"type": "image", "mimeType": "image/png", "data": "AAAA"}
        link = {"type": "resource_link", "name": "a", "uri": "file:///a"}
        request = await mock.start("session/prompt", sessionId=session, prompt=[_block("see"), image, link])
        _, before = await mock.response(request)
        said = _text([message["params"]["update"] for message in before])
        assert said == "see\n[image image/png, about 3 bytes]\n[resource_link a file:///a]"


async def test_only_the_last_text_is_obeyed_and_what_comes_before_is_remembered(open_mock: Open) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        said = await mock.said(session, "You were told:\n/crash 3", "/recite")
        assert said == "earlier prompts: 1\n1. [context] You were told:\n/crash 3"


async def test_a_stream_is_numbered_and_its_lines_have_the_size(open_mock: Open) -> None:
    async with open_mock() as mock:
        request = await mock.begin(await mock.new(), "/stream 20000 256")
        for number in range(1, 20001):
            line = await mock.line()
            assert len(line) == 256
            assert json.loads(line)["params"]["update"]["content"]["text"].startswith(f"#{number}/20000 ")
        assert (await mock.message())["id"] == request


async def test_a_paced_stream_takes_its_time(open_mock: Open) -> None:
    async with open_mock() as mock:
        session, before = await mock.new(), trio.current_time()
        _, updates = await mock.prompt(session, "/stream 21 200 100")
        assert len(updates) == 21
        assert trio.current_time() - before >= 0.2


async def test_one_line_can_be_huge_in_both_directions(open_mock: Open) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        await mock.begin(session, f"/huge {1 << 26}")
        assert len(await mock.line()) == 1 << 26
        await mock.line()
        response, _ = await mock.response(await mock.begin(session, "x" * (65 << 20), "/silent"))
        assert response["result"]["stopReason"] == "end_turn"


async def test_tool_calls_and_plans_advance(open_mock: Open) -> None:
    async with open_mock() as mock:
        _, updates = await mock.prompt(await mock.new(), "/tool Look\n/plan a; b")
        assert [update.get("status") for update in updates[:3]] == ["pending", "in_progress", "completed"]
        assert len({update["toolCallId"] for update in updates[:3]}) == 1
        statuses = [[entry["status"] for entry in update["entries"]] for update in updates[3:]]
        assert statuses == [["in_progress", "pending"], ["completed", "in_progress"], ["completed", "completed"]]


async def test_every_other_update_has_its_command(open_mock: Open) -> None:
    async with open_mock() as mock:
        _, updates = await mock.prompt(await mock.new(), "/usage 5 10\n/commands\n/title A title")
        assert [update["sessionUpdate"] for update in updates] == [
            "usage_update",
            "available_commands_update",
            "session_info_update",
        ]
        assert (updates[0]["used"], updates[0]["size"], updates[2]["title"]) == (5, 10, "A title")
        assert {"name": "help", "description": "tells all this"} in updates[1]["availableCommands"]


@pytest.mark.parametrize("kind", ["allow_once", "allow_always", "reject_once", "reject_always", "cancelled", "error"])
async def test_permission_tells_what_the_client_chose(open_mock: Open, kind: str) -> None:
    async with open_mock() as mock:
        request = await mock.begin(await mock.new(), "/permission read: Look at it")
        question = await mock.message()
        assert question["method"] == "session/request_permission"
        assert (question["params"]["toolCall"]["kind"], question["params"]["toolCall"]["title"]) == (
            "read",
            "Look at it",
        )
        options = {option["kind"]: option["optionId"] for option in question["params"]["options"]}
        chosen = {"outcome": "selected", "optionId": options[kind]} if kind in options else {"outcome": kind}
        failure = {"error": {"code": -32601, "message": "no"}}
        answer = failure if kind == "error" else {"result": {"outcome": chosen}}
        await mock.send({"jsonrpc": "2.0", "id": question["id"], **answer})
        assert await mock.next_text() == f"permission: {kind}" + (" -32601 no" if kind == "error" else "")
        assert (await mock.message())["id"] == request


@pytest.mark.parametrize(("option", "written"), [(None, True), ("yes", True), ("no", False)])
async def test_a_file_is_written_unless_the_client_rejects(
    open_mock: Open, tmp_path: Path, option: str | None, written: bool
) -> None:
    async with open_mock() as mock:
        session = await mock.new(cwd=str(tmp_path))
        request = await mock.begin(session, f"/write{'?' if option else ''} a.txt one\\ntwo")
        call = (await mock.message())["params"]["update"]
        assert call["content"][0] == {
            "type": "diff",
            "path": str(tmp_path / "a.txt"),
            "oldText": None,
            "newText": "one\ntwo",
        }
        if option:
            question = await mock.message()
            outcome = {"outcome": "selected", "optionId": option}
            await mock.send({"jsonrpc": "2.0", "id": question["id"], "result": {"outcome": outcome}})
        _, before = await mock.response(request)
        last_call = [message["params"]["update"] for message in before if "toolCallId" in str(message)][-1]
        assert last_call["status"] == ("completed" if written else "failed")
        assert (tmp_path / "a.txt").exists() is written


async def test_it_asks_the_client(open_mock: Open) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        await mock.begin(session, '/ask-client fs/read_text_file {"path": "/a b"}')
        question = await mock.message()
        assert (question["method"], question["params"]) == ("fs/read_text_file", {"sessionId": session, "path": "/a b"})
        await mock.send({"jsonrpc": "2.0", "id": question["id"], "result": {"content": "text"}})
        assert await mock.next_text() == 'answer: {"content": "text"}'


@pytest.mark.parametrize("reason", ["refusal", "max_tokens"])
async def test_a_turn_ends_as_it_is_told(open_mock: Open, reason: str) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        assert await mock.prompt(session, f"/stop {reason}\nnever said") == (reason, [])
        assert await mock.prompt(session, "/silent\nnever said") == ("end_turn", [])
        response, _ = await mock.response(await mock.begin(session, "/error -32000 log in first"))
        assert response["error"] == {"code": -32000, "message": "log in first"}


async def test_what_it_does_not_understand_is_explained(open_mock: Open) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        assert "there is no command /nope" in await mock.said(session, "/nope")
        assert "usage: /stream N [SIZE] [RATE]" in await mock.said(session, "/stream many")
        assert "/ignore-sigterm" in await mock.said(session, "/help")


@pytest.mark.parametrize("command", ["/hang", "/sleep 1000", "/permission", ENDLESS, "/stream 1000 200 0.1"])
async def test_a_cancelled_turn_says_so_and_the_next_one_works(open_mock: Open, command: str) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        request = await mock.begin(session, f"{command}\nnever said")
        question = await mock.message() if "permission" in command or "stream" in command else {}
        await mock.cancel(session)
        response, before = await mock.response(request)
        assert response["result"]["stopReason"] == "cancelled"
        assert "never said" not in str(before)
        if "id" in question:  # ACP has the client answer all the same, and nobody wonders about it
            outcome = {"outcome": {"outcome": "cancelled"}}
            await mock.send({"jsonrpc": "2.0", "id": question["id"], "result": outcome})
        assert await mock.said(session, "/echo on") == "on"


async def test_one_session_has_one_turn_and_sessions_do_not_wait_for_each_other(open_mock: Open) -> None:
    async with open_mock() as mock:
        first, second = await mock.new(), await mock.new()
        request = await mock.begin(first, "/hang")
        busy = await mock.call("session/prompt", sessionId=first, prompt=[_block("and this")])
        assert busy["code"] == -32600
        assert "busy" in busy["message"]
        assert await mock.said(second, "here") == "here"
        await mock.cancel(first)
        assert (await mock.message())["id"] == request


async def test_another_process_goes_on_after_kill_minus_nine_in_a_turn(open_mock: Open) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        await mock.prompt(session, "first")
        await mock.begin(session, f"second\n{ENDLESS}")
        await mock.line()
        mock.process.kill()
        await mock.process.wait()
    async with open_mock() as mock:
        assert (await mock.call("session/prompt", sessionId=session, prompt=[]))["code"] == -32002
        _, before = await mock.response(await mock.start("session/load", sessionId=session, cwd="/", mcpServers=[]))
        replayed = [message["params"]["update"] for message in before]
        assert _text(replayed, "user_message_chunk") == f"firstsecond\n{ENDLESS}"
        assert _text(replayed).startswith("first")
        assert (await mock.said(session, "/recite")).startswith("earlier prompts: 2\n1. [user] first\n2. [user] second")


async def test_resume_replays_nothing_and_keeps_mode_and_options(open_mock: Open) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        await mock.prompt(session, "first")
        await mock.call("session/set_mode", sessionId=session, modeId="plan")
        assert await mock.end() == 0
    async with open_mock() as mock:
        response, before = await mock.response(await mock.start("session/resume", sessionId=session, cwd="/tmp"))
        assert before == []
        assert response["result"]["modes"]["currentModeId"] == "plan"
        state = json.loads(await mock.said(session, "/state"))
        assert (state["mode"], state["model"], state["cwd"]) == ("plan", "mock", "/tmp")


async def test_a_torn_last_line_costs_only_itself(open_mock: Open, tmp_path: Path) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        await mock.prompt(session, "/echo first")
        file = tmp_path / "home" / f"{session}.jsonl"
        file.write_bytes(file.read_bytes() + b'{"user":"lo')
        await mock.prompt(session, "/echo second")
    async with open_mock() as mock:
        await mock.call("session/resume", sessionId=session)
        assert (await mock.said(session, "/recite")).startswith("earlier prompts: 2\n")


async def test_nothing_is_written_before_there_is_something_to_remember(open_mock: Open, tmp_path: Path) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        assert not (tmp_path / "home").exists()
        await mock.prompt(session, "x")
        assert [file.stem for file in (tmp_path / "home").iterdir()] == [session]


async def test_sessions_are_listed_forked_closed_and_deleted(open_mock: Open) -> None:
    async with open_mock() as mock:
        session = await mock.new(cwd="/tmp")
        await mock.prompt(session, "the first prompt")
        fork = (await mock.call("session/fork", sessionId=session, cwd="/"))["sessionId"]
        assert (await mock.said(fork, "/recite")).startswith("earlier prompts: 1\n1. [user] the first prompt")
        listed = {info["sessionId"]: info for info in (await mock.call("session/list"))["sessions"]}
        assert listed.keys() == {session, fork}
        assert (listed[session]["cwd"], listed[session]["title"]) == ("/tmp", "the first prompt")
        assert len((await mock.call("session/list", cwd="/tmp"))["sessions"]) == 1
        request = await mock.begin(session, "/hang")
        await mock.start("session/close", sessionId=session)
        assert (await mock.response(request))[0]["result"]["stopReason"] == "cancelled"
        assert (await mock.call("session/prompt", sessionId=session, prompt=[]))["code"] == -32002
        await mock.call("session/delete", sessionId=session)
        assert (await mock.call("session/load", sessionId=session))["code"] == -32002


async def test_modes_and_options_change_with_updates(open_mock: Open) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        _, before = await mock.response(await mock.start("session/set_mode", sessionId=session, modeId="plan"))
        kinds = [message["params"]["update"]["sessionUpdate"] for message in before]
        assert kinds == ["current_mode_update", "config_option_update"]
        params = {"sessionId": session, "configId": "thought_level", "value": "high"}
        options = (await mock.call("session/set_config_option", **params))["configOptions"]
        assert {option["id"]: option["currentValue"] for option in options} == {
            "model": "mock",
            "mode": "plan",
            "thought_level": "high",
        }


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("initialize", {"protocolVersion": []}),
        ("session/new", {"cwd": 3, "mcpServers": []}),
        ("session/new", {"cwd": "relative"}),
        ("session/new", {"cwd": "/", "mcpServers": ["x"]}),
        ("session/prompt", {"prompt": []}),
        ("session/prompt", {"sessionId": "SESSION", "prompt": "text"}),
        ("session/prompt", {"sessionId": "SESSION", "prompt": [{"type": "text"}]}),
        ("session/prompt", {"sessionId": "SESSION", "prompt": [{"type": "hologram"}]}),
        ("session/set_mode", {"sessionId": "SESSION", "modeId": "none such"}),
        ("session/set_config_option", {"sessionId": "SESSION", "configId": "model", "value": True}),
        ("session/load", {"sessionId": 4}),
        ("authenticate", {}),
    ],
)
async def test_wrong_params_are_refused(open_mock: Open, method: str, params: dict[str, object]) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        sent = {name: session if value == "SESSION" else value for name, value in params.items()}
        assert (await mock.call(method, **sent))["code"] == -32602


async def test_an_id_cannot_lead_out_of_the_directory(open_mock: Open, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text('{"session":"secret"}\n')
    async with open_mock() as mock:
        await mock.prompt(await mock.new(), "x")
        assert (await mock.call("session/load", sessionId="../secret"))["code"] == -32002


async def test_a_login_can_be_demanded(open_mock: Open) -> None:
    async with open_mock(MOCK_AGENT_AUTH="1") as mock:
        methods = (await mock.call("initialize", protocolVersion=1))["authMethods"]
        assert (await mock.call("session/new", cwd="/", mcpServers=[]))["code"] == -32000
        assert "code" not in await mock.call("authenticate", methodId=methods[0]["id"])
        assert await mock.new()


async def test_it_is_still_the_echo_that_older_clients_know(open_mock: Open) -> None:
    async with open_mock() as mock:
        unknown = {"jsonrpc": "2.0", "id": {"a": 1}, "method": "_vendor/x", "params": [1]}
        await mock.send(unknown)
        assert await mock.message() == {"jsonrpc": "2.0", "method": "mock/echo", "params": {"message": unknown}}
        assert await mock.message() == {"jsonrpc": "2.0", "id": {"a": 1}, "result": {"echoed": unknown}}
        for odd in ({"method": "some/notification"}, [1], {}):
            await mock.send(odd)
            assert (await mock.message())["params"] == {"message": odd}
        await mock.send({"id": 9, "result": 4})
        assert await mock.message() == {
            "jsonrpc": "2.0",
            "method": "mock/client_response",
            "params": {"id": 9, "result": 4, "error": None},
        }


@pytest.mark.parametrize("line", [b"oops", b'{"a":NaN}', b"[1e999]", b"\xff{}", b"[" * 100_000])
async def test_what_is_no_json_is_reported(open_mock: Open, line: bytes) -> None:
    async with open_mock() as mock:
        await mock.send(b"\n  \r\n" + line + b"\r\n")
        report = await mock.message()
        assert report["method"] == "mock/parse_error"
        assert report["params"]["raw"] == line.decode("utf-8", "replace")


async def test_everything_is_echoed_on_demand(open_mock: Open) -> None:
    async with open_mock(MOCK_AGENT_ECHO="1") as mock:
        await mock.start("session/list")
        assert (await mock.message())["params"]["message"]["method"] == "session/list"
        assert (await mock.message())["result"]["sessions"] == []


async def test_garbage_is_no_json_and_not_even_text(open_mock: Open) -> None:
    async with open_mock() as mock:
        request = await mock.begin(await mock.new(), "/garbage 4")
        lines = [await mock.line() for _ in range(4)]
        assert any(b"\xff" in line for line in lines)
        for line in lines:
            with pytest.raises(ValueError, match=r".*"):
                json.loads(line)
        assert (await mock.message())["id"] == request


async def test_stderr_gets_its_lines(open_mock: Open) -> None:
    async with open_mock() as mock:
        await mock.prompt(await mock.new(), "/stderr three times 3")
        await mock.stdin.aclose()
        assert b"".join([data async for data in mock.stderr]) == b"three times\n" * 3


async def test_it_crashes_with_the_code_after_the_updates(open_mock: Open) -> None:
    async with open_mock() as mock:
        await mock.begin(await mock.new(), "/crash 7 3")
        texts = [(await mock.next_text())[:4] for _ in range(3)]
        assert texts == ["#1/3", "#2/3", "#3/3"]
        assert await mock.line() == b""
        assert await mock.process.wait() == 7


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV"])
async def test_it_dies_of_the_signal_it_sends_itself(open_mock: Open, name: str) -> None:
    async with open_mock() as mock:
        await mock.begin(await mock.new(), f"/signal {name}\n/hang")
        assert await mock.process.wait() == -signal.Signals[f"SIG{name}"]


@pytest.mark.parametrize("command", ["/hang", "/permission", ENDLESS])
async def test_the_end_of_input_ends_it_in_the_middle_of_a_turn(open_mock: Open, command: str) -> None:
    async with open_mock() as mock:
        await mock.begin(await mock.new(), f"/echo x\n{command}")
        await mock.line()
        assert await mock.end() == 0
        assert b"".join([data async for data in mock.stderr]) == b""


async def test_a_reader_that_left_ends_it_quietly(open_mock: Open) -> None:
    async with open_mock() as mock:
        await mock.begin(await mock.new(), ENDLESS)
        await mock.line()
        await mock.stdout.aclose()
        assert await mock.process.wait() == 0
        assert b"".join([data async for data in mock.stderr]) == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", ["/hang", ENDLESS])
async def test_signals_end_it_without_a_traceback(open_mock: Open, number: signal.Signals, command: str) -> None:
    async with open_mock() as mock:
        await mock.begin(await mock.new(), f"/echo x\n{command}")
        await mock.line()
        mock.process.send_signal(number)
        assert await mock.process.wait() == -number
        assert b"".join([data async for data in mock.stderr]) == b""


async def test_a_stubborn_one_needs_to_be_killed(open_mock: Open) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        assert "ignored from now on" in await mock.said(session, "/ignore-sigterm")
        mock.process.terminate()
        await mock.begin(session, "/stream 30 200 20")
        await mock.stdin.aclose()
        for _ in range(31):  # it goes on for 1.5 s after SIGTERM and the end of input
            assert await mock.line()
        assert mock.process.poll() is None


async def test_a_grandchild_shares_the_group_and_the_pipes_and_an_orphan_neither(open_mock: Open) -> None:
    async with open_mock() as mock:
        session = await mock.new()
        grandchild = int((await mock.said(session, "/grandchild")).removeprefix("grandchild pid "))
        orphan = int((await mock.said(session, "/orphan")).removeprefix("orphan pid "))
        try:
            assert os.getpgid(grandchild) == mock.process.pid
            assert os.getpgid(orphan) != mock.process.pid
            assert os.getsid(orphan) != mock.process.pid
            assert os.readlink(f"/proc/{grandchild}/fd/1").startswith("pipe:")
            assert os.readlink(f"/proc/{orphan}/fd/1") == os.devnull
        finally:
            os.kill(orphan, signal.SIGKILL)
