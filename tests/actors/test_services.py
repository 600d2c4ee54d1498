"""What the daemon does for an agent in the place of its clients: text files and commands."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio
from msgspec import Raw

from actors.talking import LIMIT, Client, Watch, prompt
from sandbox_actors.journal import Origin
from sandbox_actors.messages import Prompt
from sandbox_actors.native import Setup
from sandbox_actors.services.services import LIMIT as SERVICES_LIMIT

if TYPE_CHECKING:
    from pathlib import Path

    from actors.talking import House, OpenHouse

NO_PARAMS: list[object] = [None, [], "x", {"path": 1}, {"path": "/\0"}, {"path": "/x" * 5000}]

DOES_ALL = {"fs": {"readTextFile": True, "writeTextFile": True}, "terminal": True}


class Agent:
    """The mock agent, and what it is answered by its client, or in its client's place."""

    def __init__(self, client: Client, watch: Watch, acp: str) -> None:
        self.client, self.watch, self.acp = client, watch, acp

    async def ask(self, method: str, /, **params: object) -> Any:
        """What the agent is answered: the result, or `{"error": ...}`."""
        script = f"/ask-client {method} {json.dumps(params)}"
        ended = await self.client.start("session/prompt", **prompt(self.acp, script))
        told = await self.watch.until(
            lambda told: told.message.get("params", {}).get("update", {}).get("sessionUpdate") == "agent_message_chunk"
        )
        await ended()
        text: str = told.params["update"]["content"]["text"]
        if text.startswith("error: "):
            return {"error": json.loads(text.removeprefix("error: "))}
        return json.loads(text.removeprefix("answer: "))


async def agent(house: House, cwd: Path, capabilities: dict[str, Any] | None = None, id: str = "s") -> Agent:
    client, watch = await house.open(id, "mock")
    await client.call("initialize", protocolVersion=1, clientCapabilities=capabilities or {})
    session = await client.call("session/new", cwd=str(cwd), mcpServers=[])
    return Agent(client, watch, str(session["sessionId"]))


async def test_an_agent_writes_and_reads_text_files_of_the_daemon(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path)
        path = tmp_path / "new" / "plum.txt"
        assert await mock.ask("fs/write_text_file", path=str(path), content="one\ntwo\nthrée\n") == {}
        assert path.read_text() == "one\ntwo\nthrée\n"
        assert (await mock.ask("fs/read_text_file", path=str(path)))["content"] == "one\ntwo\nthrée\n"


@pytest.mark.parametrize(
    ("line", "limit", "content"),
    [
        (None, None, "a\nb\nc"),
        (1, 1, "a\n"),
        (2, 1, "b\n"),
        (2, None, "b\nc"),
        (3, 9, "c"),
        (4, None, ""),
        (0, 2, "a\nb\n"),
        (1, 0, ""),
    ],
)
async def test_some_lines_of_a_file(
    open_house: OpenHouse, tmp_path: Path, line: int | None, limit: int | None, content: str
) -> None:
    (tmp_path / "file").write_text("a\nb\nc")
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path)
        answer = await mock.ask("fs/read_text_file", path=str(tmp_path / "file"), line=line, limit=limit)
        assert answer == {"content": content}


async def test_some_lines_of_a_file_of_many_pieces(open_house: OpenHouse, tmp_path: Path) -> None:
    lines = [f"{number:>60}\n" for number in range(60_000)]
    (tmp_path / "file").write_text("".join(lines))
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path)
        for line, limit in ((1, 3), (17_000, 2), (59_999, 9), (17_180, 40_000)):
            answer = await mock.ask("fs/read_text_file", path=str(tmp_path / "file"), line=line, limit=limit)
            assert answer == {"content": "".join(lines[line - 1 : line - 1 + limit])}


async def test_what_cannot_be_read_or_written_is_told_in_acps_words(open_house: OpenHouse, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x80")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(17 << 20)
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path)

        async def refused(method: str, **params: object) -> tuple[int, str]:
            error = (await mock.ask(method, **params))["error"]
            return error["code"], error["message"]

        missing = str(tmp_path / "missing")
        assert await refused("fs/read_text_file", path=missing) == (-32002, f"Resource not found: {missing}")
        assert (await refused("fs/read_text_file", path="relative"))[0] == -32602
        assert (await refused("fs/read_text_file"))[0] == -32602
        assert (await refused("fs/read_text_file", path=str(tmp_path)))[0] == -32602
        assert (await refused("fs/read_text_file", path=str(tmp_path / "binary")))[1].endswith("it is not UTF-8")
        assert "ask for fewer lines" in (await refused("fs/read_text_file", path=str(tmp_path / "large")))[1]
        code, message = await refused("fs/write_text_file", path="/etc/plum", content="")
        assert (code, "outside of the root" in message) == (-32603, True)


async def test_what_the_daemon_serves_is_its_own_talk_and_no_question_to_clients(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path)
        await mock.ask("fs/write_text_file", path=str(tmp_path / "a"), content="")
        own = [told.method or "answer" for told in mock.watch.told if told.origin is Origin.DAEMON]
        assert own == ["fs/write_text_file", "answer"]


async def test_a_session_that_the_daemon_opens_itself_is_served(open_house: OpenHouse, tmp_path: Path) -> None:
    (tmp_path / "plum").write_text("ripe")
    async with open_house(serving=True) as house:
        with trio.fail_after(LIMIT):
            session = await house.sessions.create(None, "mock", Setup(native=True, cwd=str(tmp_path)))
        text = f"/ask-client fs/read_text_file {json.dumps({'path': str(tmp_path / 'plum')})}"
        watch = Watch(session)
        await session.ref.ask(Prompt((Raw(json.dumps({"type": "text", "text": text}).encode()),)))
        told = await watch.until(lambda told: "agent_message_chunk" in json.dumps(told.message))
        assert told.params["update"]["content"]["text"] == 'answer: {"content": "ripe"}'


async def test_what_a_client_serves_reaches_the_client(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path, DOES_ALL)
        for method in ("fs/read_text_file", "fs/write_text_file", "terminal/create"):
            ended = await mock.client.start("session/prompt", **prompt(mock.acp, f"/ask-client {method}"))
            question = await mock.watch.until(method)
            assert question.origin is Origin.AGENT
            await mock.client.say({"id": question.message["id"], "result": {}})
            await ended()


async def test_each_capability_of_a_client_counts_for_itself(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path, {"fs": {"readTextFile": True, "writeTextFile": False}, "terminal": None})
        serves = mock.client.session.asking.services.serves
        assert not serves("fs/read_text_file")
        assert serves("fs/write_text_file")
        assert serves("terminal/create")
        assert not serves("terminal/unknown")
        assert not serves("session/request_permission")


async def test_without_files_and_processes_everything_reaches_the_clients(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    async with open_house() as house:
        mock = await agent(house, tmp_path)
        assert not mock.client.session.asking.services.serves("fs/read_text_file")
        assert not mock.client.session.asking.services.serves("terminal/create")


async def test_a_terminal_runs_is_read_awaited_and_released(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path)
        created = await mock.ask(
            "terminal/create",
            command="sh",
            args=["-c", "pwd; echo $PLUM; echo no >&2; exit 3"],
            env=[{"name": "PLUM", "value": "ripe"}],
        )
        id = created["terminalId"]
        assert [process.id for process in house.commands.all()] == [id]
        ended = {"exitCode": 3, "signal": None}
        assert await mock.ask("terminal/wait_for_exit", terminalId=id) == ended
        output = await mock.ask("terminal/output", terminalId=id)
        assert output == {"output": f"{tmp_path}\nripe\nno\n", "truncated": False, "exitStatus": ended}
        assert await mock.ask("terminal/kill", terminalId=id) == {}
        assert await mock.ask("terminal/release", terminalId=id) == {}
        assert house.commands.all() == []
        for method in ("output", "wait_for_exit", "kill", "release"):
            assert (await mock.ask(f"terminal/{method}", terminalId=id))["error"]["code"] == -32002


async def test_a_command_line_without_arguments_is_one_for_a_shell(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path)
        for command, expected in (("echo a && echo b | tr b c", "a\nc\n"), ("pwd", f"{tmp_path}\n"), ("cat", "")):
            id = (await mock.ask("terminal/create", command=command, cwd=str(tmp_path)))["terminalId"]
            await mock.ask("terminal/wait_for_exit", terminalId=id)
            assert (await mock.ask("terminal/output", terminalId=id))["output"] == expected


@pytest.mark.parametrize(("limit", "output"), [(99, "öéab"), (6, "öéab"), (5, "éab"), (4, "éab"), (3, "ab"), (0, "")])
async def test_output_is_cut_at_its_begin_and_between_characters(
    open_house: OpenHouse, tmp_path: Path, limit: int, output: str
) -> None:
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path)
        created = await mock.ask("terminal/create", command="printf 'öéab'", outputByteLimit=limit)
        await mock.ask("terminal/wait_for_exit", terminalId=created["terminalId"])
        told = await mock.ask("terminal/output", terminalId=created["terminalId"])
        assert (told["output"], told["truncated"]) == (output, limit < 6)


async def test_a_kill_ends_the_whole_tree_and_the_output_stays(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path)
        id = (await mock.ask("terminal/create", command="echo up; sleep 1000 & sleep 1000"))["terminalId"]
        process = house.commands.get(id)
        with trio.fail_after(LIMIT):
            while process.log.head == 0:
                await process.log.grown()
        assert await mock.ask("terminal/output", terminalId=id) == {"output": "up\n", "truncated": False}
        assert await mock.ask("terminal/kill", terminalId=id) == {}
        assert await mock.ask("terminal/wait_for_exit", terminalId=id) == {
            "exitCode": None,
            "signal": signal.Signals.SIGTERM.name,
        }
        assert (await mock.ask("terminal/output", terminalId=id))["output"] == "up\n"
        assert len(house.processes()) == 1  # the agent


async def test_a_command_that_cannot_be_run_is_told(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path)
        missing = (await mock.ask("terminal/create", command="/does/not/exist"))["error"]
        assert (missing["code"], "failed to spawn process: No such file" in missing["message"]) == (-32603, True)
        for wrong in ({}, {"command": ""}, {"command": "pwd", "cwd": "relative"}, {"command": "pwd", "args": "x"}):
            assert (await mock.ask("terminal/create", **wrong))["error"]["code"] == -32602
        assert (await mock.ask("terminal/output"))["error"]["code"] == -32602


@pytest.mark.parametrize("ending", ["/crash 3", None])
async def test_the_terminals_of_an_agent_end_with_it(open_house: OpenHouse, tmp_path: Path, ending: str | None) -> None:
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path)
        await mock.ask("terminal/create", command="trap '' TERM; sleep 1000 & wait")
        assert len(house.commands.all()) == 1
        if ending is None:
            await house.sessions.close()
        else:
            await mock.client.start("session/prompt", **prompt(mock.acp, ending))
        await mock.watch.until("_adapter/agent_exited")
        assert house.commands.all() == []


async def test_what_is_being_served_ends_with_the_agent(open_house: OpenHouse, tmp_path: Path) -> None:
    async with open_house(serving=True) as house:
        mock = await agent(house, tmp_path)
        other = await mock.client.call("session/new", cwd=str(tmp_path), mcpServers=[])
        id = (await mock.ask("terminal/create", command="sleep", args=["1000"]))["terminalId"]
        script = f"/ask-client terminal/wait_for_exit {json.dumps({'terminalId': id})}"
        await mock.client.start("session/prompt", **prompt(mock.acp, script))
        await mock.watch.until("terminal/wait_for_exit")
        services = mock.client.session.asking.services
        assert services.busy == 1
        await mock.client.start("session/prompt", **prompt(str(other["sessionId"]), "/crash 3"))
        await mock.watch.until("_sandboxagent/agent/restarted")
        assert services.busy == 0
        assert house.commands.all() == []
        assert (await mock.ask("terminal/output", terminalId=id))["error"]["code"] == -32002


def written(**message: object) -> dict[str, str]:
    """What makes the scripted agent write a message of its own."""
    return {"text": json.dumps({"jsonrpc": "2.0", **message}) + "\n"}


async def test_an_agent_takes_back_what_it_wants_to_be_served(open_house: OpenHouse) -> None:
    async with open_house(serving=True) as house:
        client, watch = await house.open()
        await client.call("print", **written(id="c", method="terminal/create", params={"command": "sleep 1000"}))
        created = await watch.until(lambda told: told.message.get("id") == "c" and not told.method)
        asked = {"terminalId": created.message["result"]["terminalId"]}
        await client.call("print", **written(id="w", method="terminal/wait_for_exit", params=asked))
        await client.call("print", **written(method="$/cancel_request", params={"requestId": "w"}))
        answer = await watch.until(lambda told: told.message.get("id") == "w" and not told.method)
        assert answer.message["error"]["code"] == -32800
        assert client.session.asking.services.busy == 0


async def test_more_than_so_many_requests_at_a_time_are_refused(open_house: OpenHouse) -> None:
    async with open_house(serving=True) as house:
        client, watch = await house.open()
        await client.call("print", **written(id="c", method="terminal/create", params={"command": "sleep 1000"}))
        created = await watch.until(lambda told: told.message.get("id") == "c" and not told.method)
        params = {"terminalId": created.message["result"]["terminalId"]}
        lines = [
            written(id=number, method="terminal/wait_for_exit", params=params)["text"]
            for number in range(SERVICES_LIMIT + 2)
        ]
        await client.call("print", text="".join(lines))
        refused = [
            (await watch.until(lambda told: told.origin is Origin.DAEMON and "error" in told.message)).message
            for _ in range(2)
        ]
        assert [one["id"] for one in refused] == [SERVICES_LIMIT, SERVICES_LIMIT + 1]
        assert client.session.asking.services.busy == SERVICES_LIMIT


async def test_an_agent_that_writes_no_params_is_answered(open_house: OpenHouse) -> None:
    async with open_house(serving=True) as house:
        client, watch = await house.open()
        for number, params in enumerate(NO_PARAMS):
            method = "fs/read_text_file"
            await client.call("print", **written(id=f"q{number}", method=method, params=params))
            answer = await watch.until(lambda told: told.origin is Origin.DAEMON and not told.method)
            assert (answer.message["id"], answer.message["error"]["code"]) == (f"q{number}", -32602)
