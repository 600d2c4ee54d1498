"""What no client and no agent should say, and when neither should say it: the session lives on, whatever it is."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
from msgspec import UNSET, Raw

from actors.talking import LIMIT, Client, prompt
from sandbox_actors.envelope import InvalidEnvelope, decode
from sandbox_actors.errors import AgentBusy
from sandbox_actors.in_flight import LIMIT as IN_FLIGHT_LIMIT
from sandbox_actors.journal import Origin
from sandbox_actors.memory import Memory
from sandbox_actors.messages import Message, Say
from sandbox_actors.outbox import COUNT_LIMIT
from sandbox_actors.permissions.book import Permissions
from sandbox_actors.router import Router
from sandbox_actors.services import Services
from sandbox_actors.timers import Timers
from sandbox_supervisor import Mailbox

if TYPE_CHECKING:
    from pathlib import Path

    from actors.talking import OpenHouse, Watch
    from sandbox_actors.messages import Accepted

ODD = [
    b"1e999",
    b"-1e999",
    b"9" * 400,
    b"0.5",
    b"true",
    b"null",
    b"[]",
    b"{}",
    rb'"\ud800"',
    b'""',
    b"[" * 500 + b"]" * 500,
]
"""Values that are no names: JSON may write numbers that no float holds, and halves of characters."""

IDS = [b"1e999", b"9" * 400, b"0.5", b"-0", b"null", b"false", b"[]", b'{"id":7}', rb'"\ud800"', b'""']

LINES = [
    *[b'"method":%b' % odd for odd in ODD],
    *[b'"method":"odd","params":%b' % odd for odd in ODD],
    *[b'"method":"%b","params":%b' % (method, odd) for method in (b"session/load", b"session/prompt") for odd in ODD],
    *[b'"method":"session/prompt","params":{"sessionId":%b,"prompt":[]}' % odd for odd in ODD],
    *[b'"method":"session/cancel","params":{"sessionId":%b}' % odd for odd in ODD],
    *[b'"method":"session/close","params":{"sessionId":%b}' % odd for odd in ODD],
    b'"method":"a","method":1e999',
    b'"method":1e999,"params":{"sessionId":1e999},"result":{"sessionId":1e999},"error":1e999',
]
"""Members of envelopes."""

ANSWERS = [b'"result":%b' % odd for odd in ODD] + [b'"result":{"sessionId":%b}' % odd for odd in ODD]

NOTIFICATIONS = [b'{"jsonrpc":"2.0",%b}' % line for line in [*LINES, *ANSWERS]] + [b"{}"]
REQUESTS = [b'{"jsonrpc":"2.0","id":7,%b}' % line for line in LINES]
ODD_IDS = [b'{"jsonrpc":"2.0","id":%b,"method":"odd"}' % id for id in IDS]
ODD_IDS += [b'{"jsonrpc":"2.0","id":%b,"method":1e999,"params":{"sessionId":1e999}}' % id for id in IDS]
RESPONSES = [
    b'{"jsonrpc":"2.0","id":%b,%b}' % (id, answer) for id in IDS for answer in (b'"result":{}', b'"error":1e999')
]
RESPONSES += [b'{"jsonrpc":"2.0","id":"nobody asked",%b}' % answer for answer in ANSWERS]
RESPONSES += [b'{"jsonrpc":"2.0","id":%b}' % id for id in IDS]
ALL = NOTIFICATIONS + REQUESTS + ODD_IDS + RESPONSES

ASKING = (
    f"#!{sys.executable}"
    + """
# Loads sessions, but not before its client has answered a question.
import json, sys

def write(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

received, loading = [], None
for line in sys.stdin:
    message = json.loads(line)
    received.append(message.get("method") or message.get("id"))
    match message.get("method"):
        case "initialize":
            write({"id": message["id"], "result": {"agentCapabilities": {"loadSession": True}}})
        case "session/new":
            write({"id": message["id"], "result": {"sessionId": "acp"}})
        case "session/load":
            loading = message["id"]
            write({"id": "q", "method": "fs/read_text_file", "params": {"sessionId": "acp", "path": "/x"}})
        case None if message["id"] == "q":
            write({"id": loading, "result": {"read": message["result"]}})
        case "received":
            write({"id": message["id"], "result": received})
        case "exit":
            sys.exit(1)
"""
)


async def say(client: Client, text: bytes) -> Accepted:
    """Say this very text."""
    return await client.session.ref.ask(Say(text, decode(text)))


async def answered(accepted: Accepted) -> Any:
    assert accepted.answer is not None
    with trio.fail_after(LIMIT):
        return json.loads(await accepted.answer.wait())


async def lives(client: Client, watch: Watch, session_id: str) -> None:
    """A whole turn, on the actor that there was from the start."""
    assert not client.session.closed.is_set()
    with trio.fail_after(LIMIT):
        answer = await client.call("session/prompt", **prompt(session_id, "still there"))
        assert answer["stopReason"] == "end_turn"
        await watch.until(lambda told: told.origin is Origin.AGENT and "still there" in json.dumps(told.message))


@pytest.mark.parametrize("aliased", [False, True], ids=["", "after a recovery that changed the session's id"])
async def test_whatever_a_client_says_its_session_takes_the_next_prompt(open_house: OpenHouse, aliased: bool) -> None:
    async with open_house(MOCK_AGENT_CAPABILITIES="none") as house:
        client, watch = await house.open(agent="mock")
        client = Client(client.session, 1000)
        await client.call("initialize", protocolVersion=1)
        session_id = (await client.call("session/new", cwd="/", mcpServers=[]))["sessionId"]
        if aliased:
            await client.start("session/prompt", **prompt(session_id, "/crash"))
            assert (await watch.until("_sandboxagent/session/recovered")).params["fidelity"] == "replayed"
            await watch.until("_sandboxagent/agent/restarted")
        # While its id is taken, every request is passed on under another one.
        hanging = b'{"id":7,"method":"session/prompt","params":%b}' % json.dumps(prompt(session_id, "/hang")).encode()
        await say(client, hanging)
        with trio.fail_after(LIMIT):
            for line in ALL:
                try:
                    await say(client, line)
                except AgentBusy:
                    pytest.fail(f"refused: {line[:80]!r}")
                assert not client.session.closed.is_set(), line[:80]
        await client.say({"method": "session/cancel", "params": {"sessionId": session_id}})
        await watch.until(lambda told: '"cancelled"' in json.dumps(told.message) and told.origin is Origin.AGENT)
        await lives(client, watch, session_id)


async def test_every_odd_request_is_answered_under_its_own_id(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, _ = await house.open()
        for _ in range(2):  # the second time under the ids of requests that nobody has answered
            for line in REQUESTS:
                if b'"session/prompt"' not in line:  # which this agent answers to nobody
                    assert (await answered(await say(client, line)))["id"] == 7
            await client.say({"id": 7, "method": "keep", "params": {}})


async def test_whatever_an_agent_says_its_session_takes_the_next_prompt(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch = await house.open()
        await client.start("keep")
        text = b"\n".join([*ALL, b'{"method":"last"}', b""]).decode("latin-1")
        assert await client.call("print", text=text) == {}
        await watch.until("last")
        told = [one for one in watch.told if one.origin is not Origin.CLIENT]
        assert len(told) == len(ALL) + 1
        assert [one.params["raw"] for one in told if one.method == "_adapter/invalid_stdout"] == []
        # Clients answer all of it, too.
        for id in IDS:
            await say(client, b'{"jsonrpc":"2.0","id":%b,"result":1e999}' % id)
        assert len(await client.call("received")) > len(IDS)


@pytest.mark.parametrize("method", ["session/load", "session/resume", "session/new", "session/close", "initialize"])
async def test_a_session_id_that_is_none_teaches_nothing_when_it_is_answered(
    open_house: OpenHouse, method: str
) -> None:
    async with open_house() as house:
        client, _ = await house.open()
        for odd in ODD:
            line = b'{"jsonrpc":"2.0","id":7,"method":"%b","params":{"sessionId":%b}}' % (method.encode(), odd)
            assert await answered(await say(client, line)) == {"jsonrpc": "2.0", "id": 7, "result": {}}
        assert len(await client.call("received")) == len(ODD) + 1


async def test_an_agent_that_asks_while_it_loads_a_session_gets_its_answer(
    open_house: OpenHouse, tmp_path: Path
) -> None:
    program = tmp_path / "asking-acp"
    program.write_text(ASKING)
    program.chmod(0o755)
    async with open_house() as house:
        client, watch = await house.open(agent="asking")
        await client.call("initialize", protocolVersion=1)
        await client.call("session/new", cwd="/", mcpServers=[])
        await client.start("exit")
        await watch.until("fs/read_text_file")
        assert client.session.state == "starting"
        held = await client.start("received")
        await client.say({"method": "held", "params": {}})
        await client.say({"id": "q", "result": {"content": "x"}})
        recovered = await watch.until("_sandboxagent/session/recovered")
        assert (recovered.params["sessionId"], recovered.params["fidelity"]) == ("acp", "loaded")
        assert (await held())["result"] == ["initialize", "session/load", "q", "received"]
        assert (await client.call("received"))[-2:] == ["held", "received"]
        # Only the first answer counts, also while an agent comes up.
        head = client.session.log.next_seq
        await client.say({"id": "q", "result": {"content": "late"}})
        assert client.session.log.next_seq == head


async def test_an_answer_that_does_not_fit_is_refused_and_can_be_given_again(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, watch = await house.open()
        await client.call("question", id="q")
        await watch.until("session/request_permission")
        pid = client.session.node.details["pid"]
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGSTOP)  # it reads nothing until it goes on
        accepted = 0
        with pytest.raises(AgentBusy), trio.fail_after(LIMIT):  # noqa: PT012 (until it is full)
            while True:
                await client.say({"method": "fill", "params": {"text": "x" * 1000}})
                accepted += 1
        assert accepted >= COUNT_LIMIT
        for _ in range(2):
            with pytest.raises(AgentBusy):
                await client.say({"id": "q", "result": {"outcome": "refused"}})
        os.kill(pid, signal.SIGCONT)
        with trio.fail_after(LIMIT):
            while True:
                try:
                    await client.say({"id": "q", "result": {"outcome": "given again"}})
                    break
                except AgentBusy:
                    await trio.sleep(0.01)
        await client.say({"id": "q", "result": {"outcome": "late"}})
        heard = [json.loads(line) for line in await client.call("received")]
        assert [one["result"] for one in heard if "result" in one] == [{"outcome": "given again"}]
        assert sum(one.get("method") == "fill" for one in heard) == accepted


@pytest.mark.parametrize("text", [b"\\n", b"\\\\", rb"\ud83d", rb"\ud83d\ude00", rb"\u00e9"], ids=repr)
@pytest.mark.parametrize("end", [b'"', b'x"}'], ids=["broken", "whole"])
def test_large_texts_of_escapes_are_judged_at_once(text: bytes, end: bytes) -> None:
    line = b'{"method":"' + text * ((8 << 20) // len(text)) + end
    began = time.process_time()
    try:
        decode(line)
    except InvalidEnvelope:
        valid = False
    else:
        valid = True
    assert time.process_time() - began < 0.5
    assert valid == (end == b'x"}' and text != rb"\ud83d")


async def test_more_requests_than_an_agent_answers_are_refused_until_it_does(open_house: OpenHouse) -> None:
    async with open_house() as house:
        client, _ = await house.open()
        with trio.fail_after(LIMIT):
            answers = []
            for number in range(IN_FLIGHT_LIMIT):
                if number % 500 == 499:
                    await client.call("received")  # it has read all before: there is room in its outbox
                answers.append(await client.start("keep", n=number))
            with pytest.raises(AgentBusy, match="does not keep up"):
                await client.start("keep", n=-1)
            # Neither notifications nor answers wait for anything.
            await client.say({"method": "release"})
            for number, answer in enumerate(answers):
                assert (await answer())["result"] == {"n": number}
            assert await client.call("keep-alive") == {}


@pytest.mark.parametrize(
    ("method", "kept"),
    [
        ("initialize", True),
        ("session/new", True),
        ("session/close", True),
        ("session/prompt", False),
        ("odd", False),
        ("", False),
    ],
)
def test_only_params_that_somebody_learns_from_are_kept(method: str, kept: bool) -> None:
    text = json.dumps({"id": 7, "method": method, "params": {"sessionId": "s", "text": "x" * 1000}}).encode()
    head = decode(text)
    memory, ref = Memory(), Mailbox[Message](1).ref
    router = Router(memory, "run", Permissions(memory, Timers(ref)), Services(None, None, memory, ref))
    waiting, envelope = router.ask(text, head, Raw(b"7"))
    assert envelope == text
    assert (waiting.params is not UNSET) == kept
    assert (waiting.method, waiting.session_id) == (method, "s")
