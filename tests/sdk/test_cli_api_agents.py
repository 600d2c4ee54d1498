"""`sandbox-agent api agents`: what a server tells of its agents, and an install that it does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import trio

from support.answering import answering, events, http
from support.command import COMMAND, clean_environment, run_here, started
from support.registries import SHELL_AGENT, open_registries
from support.wire import PROBLEM

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WITHIN = 40

UNSUPPORTED = {"type": "urn:sandbox-agent:error:unsupported_agent", "title": "Unsupported Agent", "status": 400}

ARTIFACT = {"kind": "agent_process", "path": "/data/pi-acp", "source": "fallback", "version": "1.2.3"}
OUTCOME = {"already_installed": False, "artifacts": [ARTIFACT]}


def progress(step: str, message: str, bytes: int = 0, total: int | None = None) -> tuple[str, object]:
    return "progress", {"agent": "pi", "step": step, "message": message, "bytes": bytes, "totalBytes": total}


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
        shown = await run_here("api", "agents", "list", "-e", url)
        assert asked.last[0] == "GET /v1/agents HTTP/1.1"
        told = await run_here("api", "agents", "list", "--json", "-e", url)
    assert (shown.code, shown.stderr) == (0, "")
    assert [line.split() for line in shown.stdout.splitlines()] == [
        ["AGENT", "INSTALLED", "CREDENTIALS", "PROCESS"],
        ["claude", "yes", "no", "running"],
        ["[red]pi", "no", "yes", "-"],
    ]
    assert (told.code, json.loads(told.stdout)) == (0, LISTING)


async def test_the_report_has_models_modes_and_thought_levels_sorted_by_value() -> None:
    async with answering(http(json.dumps(LISTING).encode())) as (url, asked):
        done = await run_here("api", "agents", "report", "-e", url)
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
        shown = await run_here("api", "agents", "install", "pi", "-e", url, "-r", "--agent-process-version", "1")
        line, headers, body = asked.last
        told = await run_here("api", "agents", "install", "pi", "-e", url, "--json")
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
            done = await run_here("api", "agents", "install", "pi", "-e", url, "--json")
        assert (done.code, json.loads(done.stdout), done.stderr) == (0, OUTCOME, "")
    async with answering(http(b'{"already_installed":true,"artifacts":[]}')) as (url, _):
        assert await run_here("api", "agents", "install", "pi", "-e", url) == (0, "pi is already installed\n", "")


async def test_an_install_that_fails_or_is_cut_ends_with_a_sentence_and_code_1() -> None:
    problem = json.dumps({**UNSUPPORTED, "detail": "unsupported agent: nope"}).encode()
    for answer, sentence in (
        (http(problem, PROBLEM, "400 Bad Request"), "unsupported agent: nope"),
        (events(("failed", {"detail": "install failed: pi: no network"})), "install failed: pi: no network"),
        (events(), "the server stopped before the install had ended; ask again once it runs"),
    ):
        async with answering(answer) as (url, _):
            done = await run_here("api", "agents", "install", "nope", "-e", url, "--json")
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
                first = await run_here("api", "agents", "install", "tool", *endpoint)
                assert (first.code, first.stdout.split()[4:7]) == (0, ["agent_process", "1.0", "fallback"])
                assert first.stderr.splitlines()[-1].startswith("tool: verifying")
                again = await run_here("api", "agents", "install", "tool", *endpoint)
                assert again == (0, "tool is already installed\n", "")
                for agent, sentence in (("tool/../x", "unsupported agent"), ("nope", "unsupported agent: nope")):
                    wrong = await run_here("api", "agents", "install", agent, *endpoint)
                    assert (wrong.code, wrong.stdout) == (1, "")
                    assert sentence in wrong.stderr
                version = await run_here(
                    "api", "agents", "install", "tool", "--agent-process-version", "9 9", *endpoint
                )
                assert (version.code, version.stderr.count("\n")) == (1, 1)
                listed = await run_here("api", "agents", "list", *endpoint)
                assert ["tool", "yes"] in [row.split()[:2] for row in listed.stdout.splitlines()]
                report = json.loads((await run_here("api", "agents", "report", *endpoint)).stdout)
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
