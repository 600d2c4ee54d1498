"""`sandbox-agent api`: against a daemon of this process, and against a server that answers as others would."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
import trio
from click.testing import CliRunner
from structlog.testing import capture_logs

from sandbox_agent import cli
from sandbox_agent.cli.server_events import ServerEvent, server_events
from support.answering import answering, http
from support.clients import Session
from support.command import COMMAND, clean_environment, run, run_here
from support.daemon import free_port
from support.serving import TOKEN, serving

if TYPE_CHECKING:
    from pathlib import Path

WITHIN = 40

INITIALIZE = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}'


async def test_a_conversation_is_posted_streamed_and_closed(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with serving(tmp_path, token=TOKEN) as daemon:
            env = {"SANDBOX_AGENT_ENDPOINT": daemon.url, "SANDBOX_AGENT_TOKEN": TOKEN}
            done = await run(
                "api", "acp", "post", "--server-id", "a b", "--agent", "mock", "--json", INITIALIZE, env=env
            )
            assert (done.code, done.stderr) == (0, "")
            assert json.loads(done.stdout)["result"]["protocolVersion"] == 1
            assert done.stdout.startswith('{\n  "')
            said = tmp_path / "said.json"
            said.write_text('{"jsonrpc":"2.0","method":"session/cancel","params":{"sessionId":"x"}}')
            quiet = await run("api", "acp", "post", "--server-id", "a b", "--json-file", str(said), env=env)
            assert quiet == (0, "", "")
            process = await trio.lowlevel.open_process(
                [COMMAND, "api", "acp", "stream", "--server-id", "a b"],
                env=clean_environment(env),
                stdout=subprocess.PIPE,
            )
            assert process.stdout is not None
            first = b""
            while not first.endswith(b"\n"):  # it comes while the stream goes on
                first += await process.stdout.receive_some(65536)
            assert json.loads(first)["id"] == 1
            assert await run("api", "acp", "close", "--server-id", "a b", env=env) == (0, "", "")
            assert await process.wait() == 0
            await process.stdout.aclose()


async def test_a_stream_goes_on_behind_an_event_and_ends_quietly_at_an_interrupt(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with serving(tmp_path) as daemon:
            session = Session(daemon, "s")
            await session.open("mock")
            process = await trio.lowlevel.open_process(
                [COMMAND, "api", "acp", "stream", "--server-id", "s", "--last-event-id", "2", "-e", daemon.url],
                env=clean_environment({}),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            assert process.stdout is not None
            assert process.stderr is not None
            line = b""
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some(65536)
            assert json.loads(line.splitlines()[0])["id"] == 2
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 130
            assert await process.stderr.receive_some() == b""
            await process.stdout.aclose()
            await process.stderr.aclose()


async def test_a_refusal_is_the_problem_document_on_stderr_and_code_1(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with serving(tmp_path, token=TOKEN) as daemon:
            endpoint = ("-e", daemon.url)
            for arguments, name in (
                (("post", "--json", INITIALIZE, "-t", TOKEN), "invalid_request"),
                (("post", "--json", INITIALIZE, "-t", TOKEN, "--agent", "nope"), "unsupported_agent"),
                (("post", "--json", INITIALIZE), "token_invalid"),
                (("stream", "-t", TOKEN), "session_not_found"),
                (("stream", "-t", TOKEN, "--last-event-id", "x"), "invalid_request"),
                (("close", "-t", "wrong"), "token_invalid"),
            ):
                with capture_logs():  # what the daemon says is none of the command's output
                    done = await run_here("api", "acp", *arguments, "--server-id", "s", *endpoint)
                assert (done.code, done.stdout) == (1, "")
                problem = json.loads(done.stderr)
                assert problem["type"] == f"urn:sandbox-agent:error:{name}"
                assert done.stderr.startswith('{\n  "type"')
            assert (await run("api", "acp", "close", "--server-id", "unknown", "-t", TOKEN, *endpoint)).code == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "missing payload: provide --json or --json-file"),
        (("--json", "{}", "--json-file", __file__), "provide either --json or --json-file, not both"),
        (("--json", "{"), "the payload is not JSON: "),
        (("--json", "[" * 100_000), "the payload is not JSON: "),
        (("--server-id", "", "--json", "{}"), "server id must not be empty"),
        (("--server-id", "a/b", "--json", "{}"), "server id must not contain '/'"),
    ],
)
def test_a_message_that_cannot_be_sent_is_told_before_anything_is_sent(
    arguments: tuple[str, ...], sentence: str
) -> None:
    done = CliRunner().invoke(cli.main, ["api", "acp", "post", "--server-id", "s", *arguments])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"sandbox-agent: {sentence}")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("agents", "list", "-e", "127.0.0.1:2468"),
        ("agents", "list", "-e", "ftp://127.0.0.1"),
        ("agents", "list", "-e", "http://127.0.0.1:x"),
        ("agents", "list", "-e", "http://[::1"),
        ("agents", "list", "-e", "http://user:pass@127.0.0.1"),
        ("agents", "install"),
        ("acp", "post", "--json", "{}"),
        ("acp", "post", "--server-id", "s", "--json-file", "/nowhere"),
        ("acp", "nothing"),
    ],
)
def test_arguments_that_make_no_sense_are_usage_errors(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli.main, ["api", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "pass@" not in done.stderr


async def test_the_payload_goes_out_and_the_answer_comes_back_digit_by_digit() -> None:
    message = '{"b":1e3, "a":12345678901234567890123}'
    async with answering(http(b'{"z":1e3,"y":12345678901234567890123}')) as (url, asked):
        done = await run_here("api", "acp", "post", "--server-id", "s", "--json", message, "-e", f"{url}/below/")
    line, headers, body = asked.last
    assert (line, body) == ("POST /below/v1/acp/s HTTP/1.1", message.encode())
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers
    assert done == (0, '{\n  "z": 1e3,\n  "y": 12345678901234567890123\n}\n', "")


async def test_a_server_that_is_not_there_or_no_server_of_ours_is_told_in_a_sentence() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = await run_here("api", "agents", "list", "-e", url)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == (
        f"sandbox-agent: cannot reach {url}: Connection refused; is the server running?"
        " 'sandbox-agent daemon start' starts one\n"
    )
    for answer, sentence in (
        (http(b"<html>\x1b[31mhello</html>", "text/html"), "the answer is not as expected"),
        (http(b'{"agents":7}'), "the answer is not as expected"),
        (http(b"busy\r\nnow", "text/plain", "503 Busy"), "the server answered 503: busy now"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the connection to "),
        (b"", "the connection to "),
    ):
        async with answering(answer) as (url, _):
            done = await run_here("api", "agents", "list", "-e", url)
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr.startswith(f"sandbox-agent: {sentence}")
        assert done.stderr.count("\n") == 1
        assert "\x1b" not in done.stderr


async def test_a_proxy_of_the_environment_does_not_see_what_is_said_on_this_machine() -> None:
    async with answering(http(b'{"agents":[]}')) as (url, asked), answering(http(b"{}")) as (proxy, proxied):
        env = {"http_proxy": proxy, "HTTP_PROXY": proxy, "ALL_PROXY": proxy}
        assert (await run_here("api", "agents", "list", "-e", url, "-t", "s3cret", env=env)).code == 0
        assert asked.last[1]["authorization"] == "Bearer s3cret"
        assert proxied == []
        away = await run_here("api", "agents", "list", "-e", "http://sandbox.example", env=env)
        assert "the answer is not as expected" in away.stderr
        assert len(proxied) == 1


async def test_a_token_that_no_header_can_carry_is_refused() -> None:
    for token in ("", "two words", "line\nbreak"):
        done = await run_here("api", "agents", "list", "--token", token)
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr.startswith("sandbox-agent: the token cannot be sent in a header")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    body = 'data: {"a":"\u2028\x85"}\r\n\r\n: note\nevent: progress\ndata:one\ndata: two\nid: 5\n\n'.encode()
    body += b"event: none\n\ndata: cut\n"
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert list(server_events(pieces)) == [
        ServerEvent("message", '{"a":"\u2028\x85"}'.encode()),
        ServerEvent("progress", b"one\ntwo"),
    ]
