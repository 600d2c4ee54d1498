from __future__ import annotations

import os
import sys
import textwrap
import uuid
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio

from sandbox_actors.catalog import Launch
from sandbox_actors.probe import Greeting, ProbeFailed, probe
from sandbox_supervisor import Cookie, pids

if TYPE_CHECKING:
    from pathlib import Path

COOKIE = Cookie("tests", uuid.uuid4().hex, "agent")

ANSWERS = """
import json, sys
def tell(**members): print(json.dumps({"jsonrpc": "2.0", **members}), flush=True)
def heard():
    for line in sys.stdin:
        message = json.loads(line)
        if "method" in message:
            return message["id"], message["method"]
    sys.exit()
"""
"""What every scripted agent begins with."""


def scripted(script: str) -> Launch:
    """An agent that does what a script says."""
    program = textwrap.dedent(ANSWERS) + textwrap.dedent(script)
    return Launch((sys.executable, "-c", program), {"PATH": os.environ["PATH"]})


async def ask(launch: Launch, folder: Path, *, session: bool = False, within: float = 20) -> Greeting:
    try:
        with trio.fail_after(30):
            return await probe(launch, cookie=COOKIE, cwd=str(folder), session=session, within=within)
    finally:
        assert pids(lambda cookie: cookie == COOKIE) == []


async def failure(launch: Launch, folder: Path, *, within: float = 20) -> ProbeFailed:
    with pytest.raises(ProbeFailed) as failed:
        await ask(launch, folder, within=within)
    return failed.value


async def test_an_agent_tells_what_it_can_and_which_options_a_session_has(tmp_path: Path) -> None:
    mock = Launch((sys.executable, "-m", "sandbox_actors.mock"), {"MOCK_AGENT_HOME": str(tmp_path / "mock")})
    greeting = await ask(mock, tmp_path, session=True)
    assert msgspec.json.decode(greeting.initialize)["agentInfo"]["name"] == "mock"
    assert greeting.session is not None
    assert msgspec.json.decode(greeting.session)["modes"]["currentModeId"] == "normal"
    assert greeting.refusal is None


async def test_the_session_that_was_only_a_question_is_forgotten(tmp_path: Path) -> None:
    told = tmp_path / "told"
    agent = scripted(f"""
        id, _ = heard()
        tell(id=id, result={{"agentCapabilities": {{"sessionCapabilities": {{"delete": {{}}}}}}}})
        id, _ = heard()
        tell(id=id, result={{"sessionId": "s1"}})
        id, method = heard()
        open({str(told)!r}, "w").write(method)
        tell(id=id, result={{}})
        heard()
    """)
    await ask(agent, tmp_path, session=True)
    assert told.read_text() == "session/delete"


async def test_a_session_that_needs_a_login_is_no_failure(tmp_path: Path) -> None:
    agent = scripted("""
        id, _ = heard()
        tell(id=id, result={"protocolVersion": 1})
        id, _ = heard()
        tell(id=id, error={"code": -32000, "message": "Authentication required", "data": {"details": "log in"}})
        heard()
    """)
    greeting = await ask(agent, tmp_path, session=True)
    assert (greeting.session, greeting.refusal) == (None, "Authentication required: log in")


async def test_noise_notifications_and_questions_do_not_confuse_it(tmp_path: Path) -> None:
    agent = scripted("""
        id, _ = heard()
        print("Welcome!", flush=True)
        print("[1, 2", "{}", "7", sep="\\n", flush=True)
        tell(method="session/update", params={})
        tell(id="q", method="fs/read_text_file", params={})
        reply = json.loads(sys.stdin.readline())
        tell(id=id, result={"asked": reply["error"]["code"], "for": reply["id"]})
        heard()
    """)
    greeting = await ask(agent, tmp_path)
    assert msgspec.json.decode(greeting.initialize) == {"asked": -32601, "for": "q"}


async def test_what_is_no_utf_8_and_answers_to_nobody_do_not_confuse_it(tmp_path: Path) -> None:
    agent = scripted("""
        id, _ = heard()
        sys.stdout.buffer.write(b'{"\\xff": 1}\\n{"id": "\\xff", "method": "a"}\\n{"id": 1, "method": "\\xff"}\\n')
        tell(id=True, result={"name": "true"})
        tell(id=id + 1, result={"name": "too early"})
        sys.stdout.flush()
        sys.stdout.buffer.write(b'{"id": %d, "result": {"name": "\\xff"}}\\n' % id)
        sys.stdout.flush()
        id, _ = heard()
        tell(id=id, result={"sessionId": "s"})
        heard()
    """)
    greeting = await ask(agent, tmp_path, session=True)
    assert msgspec.json.decode(greeting.initialize) == {"name": "\ufffd"}
    assert greeting.session is not None
    assert msgspec.json.decode(greeting.session) == {"sessionId": "s"}


async def test_an_agent_that_exits_is_told_with_its_code_and_last_words(tmp_path: Path) -> None:
    failed = await failure(scripted('print("no config", file=sys.stderr); sys.exit(3)'), tmp_path)
    assert str(failed) == "it exited with code 3 before it answered 'initialize'"
    assert failed.stderr == ("no config",)


async def test_an_agent_that_is_killed_is_told_with_the_signal(tmp_path: Path) -> None:
    failed = await failure(scripted("import os; os.kill(os.getpid(), 9)"), tmp_path)
    assert str(failed) == "it was ended by signal 9 before it answered 'initialize'"


async def test_an_agent_that_ends_instead_of_opening_a_session_has_still_greeted(tmp_path: Path) -> None:
    agent = scripted("""
        id, _ = heard()
        tell(id=id, result={})
        heard()
        sys.exit(1)
    """)
    greeting = await ask(agent, tmp_path, session=True)
    assert (greeting.session, greeting.refusal) == (None, "it exited with code 1 before it answered 'session/new'")


async def test_a_refused_initialize_is_a_failure_in_the_agents_words(tmp_path: Path) -> None:
    agent = scripted("""
        id, _ = heard()
        tell(id=id, error={"code": -32603, "message": "too old"})
        heard()
    """)
    assert str(await failure(agent, tmp_path)) == "it refused 'initialize': too old"


@pytest.mark.parametrize("script", ["heard(); heard()", "import time; sys.stdin.close(); time.sleep(600)"])
async def test_an_agent_that_stays_silent_is_given_up(tmp_path: Path, script: str) -> None:
    failed = await failure(scripted(script), tmp_path, within=0.5)
    assert str(failed) == "it did not answer 'initialize' within 0.5 s"


async def test_a_program_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    failed = await failure(Launch(("/does/not/exist",), {}), tmp_path)
    assert "No such file or directory" in str(failed)


async def test_what_the_agent_has_started_is_gone_with_it(tmp_path: Path) -> None:
    agent = scripted("""
        import subprocess
        subprocess.Popen(["sleep", "600"], start_new_session=True)
        id, _ = heard()
        tell(id=id, result={})
        heard()
    """)
    await ask(agent, tmp_path)  # which looks for what is left
