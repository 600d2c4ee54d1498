"""`sandbox-agent api`: against a daemon of this process, and against a server that answers as others would."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner

from sandbox_agent import cli
from sandbox_agent.cli.server_events import ServerEvent, server_events
from support.clients import Session
from support.command import COMMAND, clean_environment, run, started
from support.daemon import free_port
from support.registries import SHELL_AGENT, open_registries
from support.serving import TOKEN, serving
from support.wire import PROBLEM

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

WITHIN = 40

INITIALIZE = '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}'

UNSUPPORTED = {"type": "urn:sandbox-agent:error:unsupported_agent", "title": "Unsupported Agent", "status": 400}


class Asked(list[bytes]):
    """The requests that a scripted server has got, each with its body."""

    @property
    def last(self) -> tuple[str, dict[str, str], bytes]:
        """The request line, the headers and the body."""
        head, _, body = self[-1].partition(b"\r\n\r\n")
        line, *headers = head.decode().split("\r\n")
        return line, {name.lower(): value for name, _, value in (each.partition(": ") for each in headers)}, body


@asynccontextmanager
async def answering(answer: bytes) -> AsyncGenerator[tuple[str, Asked]]:
    """A server that answers every request with these bytes and closes; gives its URL and what it was asked."""
    asked = Asked()

    async def serve(stream: trio.SocketStream) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += await stream.receive_some(65536)
        head, _, body = request.partition(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        while len(body) < length:
            body += await stream.receive_some(65536)
        asked.append(head + b"\r\n\r\n" + body)
        await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), serve, 0)
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}", asked
        nursery.cancel_scope.cancel()


def http(body: bytes, kind: str = "application/json", status: str = "200 OK", length: int | None = None) -> bytes:
    """An answer; a stream is one without a length, that ends with the connection."""
    size = b"" if length == -1 else b"Content-Length: %d\r\n" % len(body)
    return (
        b"HTTP/1.1 %b\r\nContent-Type: %b\r\nConnection: close\r\n%b\r\n" % (status.encode(), kind.encode(), size)
        + body
    )


def events(*pairs: tuple[str, object]) -> bytes:
    """An answer that is a stream of these events, each with its data, and then the end."""
    body = b": heartbeat\n\n"
    body += b"".join(b"event: %b\ndata: %b\n\n" % (name.encode(), json.dumps(data).encode()) for name, data in pairs)
    return http(body, "text/event-stream", length=-1)


def progress(step: str, message: str, bytes: int = 0, total: int | None = None) -> tuple[str, object]:
    return "progress", {"agent": "pi", "step": step, "message": message, "bytes": bytes, "totalBytes": total}


ARTIFACT = {"kind": "agent_process", "path": "/data/pi-acp", "source": "fallback", "version": "1.2.3"}
OUTCOME = {"already_installed": False, "artifacts": [ARTIFACT]}


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
                done = await run("api", "acp", *arguments, "--server-id", "s", *endpoint)
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
        done = await run("api", "acp", "post", "--server-id", "s", "--json", message, "-e", f"{url}/below/")
    line, headers, body = asked.last
    assert (line, body) == ("POST /below/v1/acp/s HTTP/1.1", message.encode())
    assert headers["content-type"] == "application/json"
    assert "authorization" not in headers
    assert done == (0, '{\n  "z": 1e3,\n  "y": 12345678901234567890123\n}\n', "")


async def test_a_server_that_is_not_there_or_no_server_of_ours_is_told_in_a_sentence() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = await run("api", "agents", "list", "-e", url)
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
            done = await run("api", "agents", "list", "-e", url)
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr.startswith(f"sandbox-agent: {sentence}")
        assert done.stderr.count("\n") == 1
        assert "\x1b" not in done.stderr


async def test_a_proxy_of_the_environment_does_not_see_what_is_said_on_this_machine() -> None:
    async with answering(http(b'{"agents":[]}')) as (url, asked), answering(http(b"{}")) as (proxy, proxied):
        env = {"http_proxy": proxy, "HTTP_PROXY": proxy, "ALL_PROXY": proxy}
        assert (await run("api", "agents", "list", "-e", url, "-t", "s3cret", env=env)).code == 0
        assert asked.last[1]["authorization"] == "Bearer s3cret"
        assert proxied == []
        away = await run("api", "agents", "list", "-e", "http://sandbox.example", env=env)
        assert "the answer is not as expected" in away.stderr
        assert len(proxied) == 1


async def test_a_token_that_no_header_can_carry_is_refused() -> None:
    for token in ("", "two words", "line\nbreak"):
        done = await run("api", "agents", "list", "--token", token)
        assert (done.code, done.stdout) == (1, "")
        assert done.stderr.startswith("sandbox-agent: the token cannot be sent in a header")


LISTING: Mapping[str, Any] = {
    "agents": [
        {
            "id": "claude",
            "installed": True,
            "credentialsAvailable": False,
            "capabilities": {"planMode": False},
            "serverStatus": {"status": "running", "uptimeMs": 5},
            "configOptions": [
                {
                    "id": "model",
                    "category": "model",
                    "name": "Model",
                    "type": "select",
                    "currentValue": "sonnet",
                    "options": [{"value": "sonnet", "name": "Sonnet"}, {"value": "haiku", "name": "Haiku"}],
                },
                {
                    "id": "mode",
                    "name": "Mode",
                    "currentValue": "ask",
                    "options": [
                        {"name": "Careful", "options": [{"value": "plan", "name": "Plan"}]},
                        {"name": "Bold", "options": [{"value": "ask"}]},
                    ],
                },
                {"id": "thought_level", "type": "boolean", "currentValue": True},
                {"id": "other", "category": "other", "currentValue": "x", "options": []},
            ],
        },
        {"id": "[red]pi", "installed": False, "credentialsAvailable": True, "configError": "it hangs"},
    ]
}


async def test_agents_are_listed_as_a_table_and_as_the_server_s_own_document() -> None:
    async with answering(http(json.dumps(LISTING).encode())) as (url, asked):
        shown = await run("api", "agents", "list", "-e", url)
        assert asked.last[0] == "GET /v1/agents HTTP/1.1"
        told = await run("api", "agents", "list", "--json", "-e", url)
    assert (shown.code, shown.stderr) == (0, "")
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["AGENT", "INSTALLED", "CREDENTIALS", "PROCESS"],
        ["claude", "yes", "no", "running"],
        ["[red]pi", "no", "yes", "-"],
    ]
    assert (told.code, json.loads(told.stdout)) == (0, LISTING)


async def test_the_report_has_models_modes_and_thought_levels_sorted_by_value() -> None:
    async with answering(http(json.dumps(LISTING).encode())) as (url, asked):
        done = await run("api", "agents", "report", "-e", url)
        assert asked.last[0] == "GET /v1/agents?config=true HTTP/1.1"
    report = json.loads(done.stdout)
    assert (done.code, report["endpoint"]) == (0, url)
    assert report["generatedAtMs"] > 1_700_000_000_000
    nothing: dict[str, object] = {"currentValue": None, "values": []}
    assert report["agents"] == [
        {
            "id": "claude",
            "installed": True,
            "models": {
                "currentValue": "sonnet",
                "values": [{"value": "haiku", "name": "Haiku"}, {"value": "sonnet", "name": "Sonnet"}],
            },
            "modes": {
                "currentValue": "ask",
                "values": [{"value": "ask", "name": "ask"}, {"value": "plan", "name": "Plan"}],
            },
            "thoughtLevels": nothing,
        },
        {
            "id": "[red]pi",
            "installed": False,
            "configError": "it hangs",
            "models": nothing,
            "modes": nothing,
            "thoughtLevels": nothing,
        },
    ]


async def test_an_install_shows_its_steps_on_stderr_and_what_it_made_on_stdout() -> None:
    steps = (progress("checking", "node"), progress("installing", "pi@1", 5), progress("installing", "pi@1", 9))
    async with answering(events(*steps, ("installed", OUTCOME))) as (url, asked):
        shown = await run("api", "agents", "install", "pi", "-e", url, "-r", "--agent-process-version", "1")
        line, headers, body = asked.last
        told = await run("api", "agents", "install", "pi", "-e", url, "--json")
    assert line == "POST /v1/agents/pi/install HTTP/1.1"
    assert json.loads(body) == {"reinstall": True, "agentProcessVersion": "1"}
    assert headers["accept"].startswith("text/event-stream")
    assert (shown.code, shown.stderr) == (0, "pi: checking node\npi: installing pi@1\n")
    assert [row.split() for row in shown.stdout.splitlines()] == [
        ["INSTALLED", "VERSION", "SOURCE", "PATH"],
        ["agent_process", "1.2.3", "fallback", "/data/pi-acp"],
    ]
    assert (told.code, json.loads(told.stdout)) == (0, OUTCOME)


async def test_an_install_without_a_stream_or_with_nothing_to_do_is_told_as_well() -> None:
    for answer in (http(json.dumps(OUTCOME).encode()), events(("installed", OUTCOME))):
        async with answering(answer) as (url, _):
            done = await run("api", "agents", "install", "pi", "-e", url, "--json")
        assert (done.code, json.loads(done.stdout), done.stderr) == (0, OUTCOME, "")
    async with answering(http(b'{"already_installed":true,"artifacts":[]}')) as (url, _):
        assert await run("api", "agents", "install", "pi", "-e", url) == (0, "pi is already installed\n", "")


async def test_an_install_that_fails_or_is_cut_ends_with_a_sentence_and_code_1() -> None:
    problem = json.dumps({**UNSUPPORTED, "detail": "unsupported agent: nope"}).encode()
    for answer, sentence in (
        (http(problem, PROBLEM, "400 Bad Request"), "unsupported agent: nope"),
        (events(("failed", {"detail": "install failed: pi: no network"})), "install failed: pi: no network"),
        (events(), "the server stopped before the install had ended; ask again once it runs"),
    ):
        async with answering(answer) as (url, _):
            done = await run("api", "agents", "install", "nope", "-e", url, "--json")
        assert done == (1, "", f"sandbox-agent: {sentence}\n")


async def test_a_daemon_of_ours_installs_and_tells_how_far_it_is(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with open_registries() as registries:
            url = registries.file("program", SHELL_AGENT.encode())
            way = {name: {"archive": url, "cmd": "program"} for name in ("linux-x86_64", "linux-aarch64")}
            agents = tmp_path / "agents.json"
            agents.write_text(json.dumps({"agents": {"tool": {"version": "1.0", "distribution": {"binary": way}}}}))
            async with started(tmp_path, env={"SANDBOX_AGENT_AGENTS": str(agents)}) as server:
                endpoint = ("-e", server.url)
                first = await run("api", "agents", "install", "tool", *endpoint)
                assert (first.code, first.stdout.split()[4:7]) == (0, ["agent_process", "1.0", "fallback"])
                assert first.stderr.splitlines()[-1].startswith("tool: verifying")
                again = await run("api", "agents", "install", "tool", *endpoint)
                assert again == (0, "tool is already installed\n", "")
                for agent, sentence in (("tool/../x", "unsupported agent"), ("nope", "unsupported agent: nope")):
                    wrong = await run("api", "agents", "install", agent, *endpoint)
                    assert (wrong.code, wrong.stdout) == (1, "")
                    assert sentence in wrong.stderr
                version = await run("api", "agents", "install", "tool", "--agent-process-version", "9 9", *endpoint)
                assert (version.code, version.stderr.count("\n")) == (1, 1)
                listed = await run("api", "agents", "list", *endpoint)
                assert ["tool", "yes"] in [row.split()[:2] for row in listed.stdout.splitlines()]
                report = json.loads((await run("api", "agents", "report", *endpoint)).stdout)
                assert [agent["installed"] for agent in report["agents"] if agent["id"] == "tool"] == [True]
                await server.stop()


async def test_an_interrupt_ends_the_command_without_a_word() -> None:
    silent = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"http://127.0.0.1:{silent[0].socket.getsockname()[1]}"
    with trio.fail_after(WITHIN):
        process = await trio.lowlevel.open_process(
            [COMMAND, "api", "agents", "install", "pi", "-e", url],
            env=clean_environment({}),
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        stream = await silent[0].accept()  # it has asked, and waits
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        assert await process.stderr.receive_some() == b""
        for resource in (process.stderr, stream, *silent):
            await resource.aclose()


async def test_a_terminal_gets_a_bar_and_stdout_none_of_it() -> None:
    terminal, other_end = os.openpty()
    answer = events(progress("downloading", "pi.tar.gz", 5_000_000, 10_000_000), ("installed", OUTCOME))
    async with answering(answer) as (url, _), trio.open_nursery() as nursery:
        drawn = bytearray()

        async def look() -> None:
            while True:
                try:
                    drawn.extend(await trio.to_thread.run_sync(os.read, terminal, 65536, abandon_on_cancel=True))
                except OSError:  # the other end is closed
                    return

        nursery.start_soon(look)
        with trio.fail_after(WITHIN):
            done = await trio.run_process(
                [COMMAND, "api", "agents", "install", "pi", "-e", url, "--json"],
                env=clean_environment({"TERM": "xterm", "COLUMNS": "120"}),
                stderr=other_end,
                capture_stdout=True,
            )
            os.close(other_end)
    os.close(terminal)
    assert json.loads(done.stdout) == OUTCOME
    assert b"downloading pi.tar.gz" in drawn
    assert b"5.0/10.0 MB" in drawn


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    body = 'data: {"a":"\u2028\x85"}\r\n\r\n: note\nevent: progress\ndata:one\ndata: two\nid: 5\n\n'.encode()
    body += b"event: none\n\ndata: cut\n"
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    assert list(server_events(pieces)) == [
        ServerEvent("message", '{"a":"\u2028\x85"}'.encode()),
        ServerEvent("progress", b"one\ntwo"),
    ]
