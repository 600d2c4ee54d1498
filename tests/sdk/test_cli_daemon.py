"""`sandbox-agent daemon`: started once, found again, stopped with all that it has started."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner

from sandbox_agent import __version__, cli
from sandbox_agent.cli.build import build_id
from support.clients import Session
from support.command import COMMAND, Finished, clean_environment, run, run_here, started
from support.daemon import Daemon, free_port
from support.processes import alive, command_of, eventually, processes_with
from support.wire import exchange

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

WITHIN = 60


class Background(Daemon):
    """A daemon that the command starts and stops, not we."""

    def __init__(self, home: Path) -> None:
        super().__init__(home, ())
        self.data = home / "data"
        self.mark = f"MOCK_AGENT_HOME={home}/"

    @property
    def env(self) -> dict[str, str]:
        return {
            "SANDBOX_AGENT_PORT": str(self.port),
            "SANDBOX_AGENT_DATA_DIR": str(self.data),
            "SANDBOX_AGENT_TOKEN": self.token,
            "MOCK_AGENT_HOME": f"{self.home}/agent",
        }

    def file(self, suffix: str) -> Path:
        return self.data / "daemon" / f"daemon-127-0-0-1-{self.port}.{suffix}"

    @property
    def its_pid(self) -> int:
        return int(self.file("pid").read_text())

    async def command(self, *arguments: str, **env: str) -> Finished:
        environment = {**self.env, **env}
        if arguments[0] == "start":  # its child is to be nobody's
            return await run("daemon", *arguments, env=environment, within=WITHIN)
        return await run_here("daemon", *arguments, env=environment)

    async def status(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((await self.command("status", "--json")).stdout)
        return told

    async def health(self) -> int:
        return (await exchange(self.port, "GET", "/v1/health", self.headers)).status


@asynccontextmanager
async def background(home: Path) -> AsyncGenerator[Background]:
    """An address and a home for a daemon; whatever is left of it at the end is killed."""
    daemon = Background(home)
    try:
        with trio.fail_after(WITHIN):
            yield daemon
    finally:
        for pid in processes_with(daemon.mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


async def test_a_daemon_is_started_once_told_of_and_stopped_with_its_agents(tmp_path: Path) -> None:
    async with background(tmp_path) as daemon:
        assert await daemon.command("status") == (0, "", "Daemon not running\n")
        assert await daemon.command("stop") == (0, "", "daemon is not running (no PID file)\n")
        first = await daemon.command("start")
        pid = daemon.its_pid
        assert first == (
            0,
            "",
            f"starting daemon at {daemon.url}\ndaemon started (PID {pid}, logs: {daemon.file('log')})\n",
        )
        assert await daemon.health() == 200
        again = await daemon.command("start")
        assert (again.code, again.stdout) == (0, "")
        assert again.stderr.startswith(f"daemon already running at {daemon.url}")
        assert daemon.its_pid == pid
        session = Session(daemon, "s")
        await session.open("mock")
        build = daemon.file("version").read_text().strip()
        told = await daemon.command("status")
        assert (told.code, told.stdout) == (0, "")
        assert told.stderr.startswith(f"Daemon running (PID {pid}, build {build}, logs: {daemon.file('log')})")
        status = await daemon.status()
        del status["outdated"]
        assert status == {
            "running": True,
            "healthy": True,
            "pid": pid,
            "build": build,
            "url": daemon.url,
            "log": str(daemon.file("log")),
        }
        stopped = await daemon.command("stop")
        assert stopped == (0, "", f"stopping daemon (PID {pid})...\ndaemon stopped\n")
        assert not alive(pid)
        await eventually(lambda: not processes_with(daemon.mark))  # init collects it when it likes
        assert not daemon.file("pid").exists()
        assert "event=stopped" in daemon.file("log").read_text()
        assert (await daemon.status())["running"] is False


async def test_its_files_are_private_and_the_token_is_in_no_file_and_no_command_line(tmp_path: Path) -> None:
    async with background(tmp_path) as daemon:
        assert (
            await run("-t", daemon.token, "daemon", "start", env={**daemon.env, "SANDBOX_AGENT_TOKEN": ""})
        ).code == 0
        assert await daemon.health() == 200
        processes = processes_with(daemon.mark)
        assert daemon.its_pid in processes
        assert [pid for pid in processes if daemon.token in command_of(pid)] == []
        assert [
            path for path in daemon.data.rglob("*") if path.is_file() and daemon.token in path.read_text("latin-1")
        ] == []
        assert stat.S_IMODE((daemon.data / "daemon").stat().st_mode) == 0o700
        assert stat.S_IMODE(daemon.file("log").stat().st_mode) == 0o600
        assert (await daemon.command("stop")).code == 0


async def test_it_outlives_the_terminal_and_the_process_group_of_who_started_it(tmp_path: Path) -> None:
    async with background(tmp_path) as daemon:
        shell = await trio.lowlevel.open_process(
            ["/bin/sh", "-c", '"$0" daemon start && read -r line', COMMAND],
            env=clean_environment(daemon.env),
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        await eventually(lambda: daemon.file("pid").exists())
        while (await daemon.status())["healthy"] is False:  # noqa: ASYNC110 (another process starts it)
            await trio.sleep(0.05)
        os.killpg(shell.pid, signal.SIGHUP)
        await shell.wait()
        assert shell.stdin is not None
        await shell.stdin.aclose()
        assert await daemon.health() == 200
        assert (await daemon.command("stop")).code == 0


async def test_two_starts_at_once_start_one(tmp_path: Path) -> None:
    async with background(tmp_path) as daemon:
        ended: list[Finished] = []

        async def start() -> None:
            ended.append(await daemon.command("start"))

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(start)
        assert [done.code for done in ended] == [0, 0, 0]
        assert sorted(done.stderr.split(" at ")[0] for done in ended) == [
            "daemon already running",
            "daemon already running",
            "starting daemon",
        ]
        assert (await daemon.command("stop")).code == 0


async def test_an_upgrade_restarts_a_daemon_of_another_build_and_no_other(tmp_path: Path) -> None:
    async with background(tmp_path) as daemon:
        await daemon.command("start", "--upgrade")
        pid = daemon.its_pid
        daemon.file("version").write_text("0.0.1-0\n")
        status = await daemon.status()
        assert (status["build"], status["outdated"]) == ("0.0.1-0", True)
        assert (await daemon.command("status")).stderr.endswith(" [outdated, restart recommended]\n")
        kept = await daemon.command("start")
        assert kept.stderr == f"daemon already running at {daemon.url} [outdated, restart recommended]\n"
        assert daemon.its_pid == pid
        restarted = await daemon.command("start", "--upgrade")
        assert restarted.code == 0
        assert restarted.stderr.startswith("daemon outdated (build 0.0.1-0 -> 0.")
        assert "restarting...\nstarting daemon" in restarted.stderr
        assert daemon.its_pid != pid
        assert not alive(pid)
        assert await daemon.health() == 200
        assert (await daemon.command("stop")).code == 0


def test_the_build_is_the_version_and_a_fingerprint_that_stays() -> None:
    assert build_id().startswith(f"{__version__}-")
    assert len(build_id()) == len(__version__) + 11


async def test_a_server_that_somebody_else_started_is_told_of_and_left_alone(tmp_path: Path) -> None:
    async with started(tmp_path, token="t0ken", env={"SANDBOX_AGENT_TOKEN": "t0ken"}) as server:
        daemon = Background(tmp_path)
        daemon.port, daemon.token = server.port, "t0ken"
        others = "it was not started by 'sandbox-agent daemon start' with this data directory, so its PID is unknown"
        shown = await daemon.command("status", "--exit-code")
        assert shown == (0, "", f"Daemon running at {daemon.url}; {others}\n")
        status = await daemon.status()
        assert (status["running"], status["pid"], status["outdated"]) == (True, None, None)
        assert (await daemon.command("start")).stderr == f"daemon already running at {daemon.url}\n"
        sentence = f"sandbox-agent: a server runs at {daemon.url} and cannot be"
        assert await daemon.command("start", "--upgrade") == (1, "", f"{sentence} restarted: {others}\n")
        assert await daemon.command("stop") == (1, "", f"{sentence} stopped from here: {others}\n")
        wrong = await daemon.command("start", SANDBOX_AGENT_TOKEN="wrong")
        assert wrong == (1, "", f"sandbox-agent: a server that takes another token runs at {daemon.url}\n")
        assert await daemon.health() == 200


async def test_a_daemon_that_cannot_start_says_why_at_once(tmp_path: Path) -> None:
    async with background(tmp_path) as daemon:
        refused = await run("daemon", "start", "-H", "0.0.0.0", env={**daemon.env, "SANDBOX_AGENT_TOKEN": ""})
        assert (refused.code, refused.stdout) == (1, "")
        assert "\nsandbox-agent: the token is empty: " in refused.stderr
        odd = await daemon.command("start", SANDBOX_AGENT_LOG_LEVEL="loud")
        assert odd.code == 1
        assert "'loud' is not one of" in odd.stderr
        assert odd.stderr.endswith(f"sandbox-agent: the daemon ended with code 2; its log: {daemon.file('log')}\n")
        (tmp_path / "file").touch()
        nowhere = await daemon.command("start", SANDBOX_AGENT_DATA_DIR=f"{tmp_path}/file/data")
        assert nowhere.code in (1, 2)
        assert "Traceback" not in nowhere.stderr
        assert processes_with(daemon.mark) == []
        assert not daemon.file("pid").exists()


async def test_every_address_needs_a_token_here_too(tmp_path: Path) -> None:
    async with background(tmp_path) as daemon:
        env = {name: value for name, value in daemon.env.items() if name != "SANDBOX_AGENT_TOKEN"}
        done = await run("daemon", "start", "--host", "0.0.0.0", env=env)
        assert (done.code, done.stdout) == (1, "")
        assert "\nsandbox-agent: refusing to listen on 0.0.0.0 without a token" in done.stderr


async def test_a_port_that_somebody_else_has_is_told(tmp_path: Path) -> None:
    async with background(tmp_path) as daemon, trio.open_nursery() as nursery:

        async def talk(stream: trio.SocketStream) -> None:
            await stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n")

        listeners = await trio.open_tcp_listeners(daemon.port, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, talk, listeners)
        done = await daemon.command("start")
        assert done.code == 1
        assert f"sandbox-agent: cannot listen on 127.0.0.1 port {daemon.port}: Address already in use" in done.stderr
        assert (await daemon.status())["running"] is False
        nursery.cancel_scope.cancel()


async def test_a_pid_file_of_a_process_that_is_another_by_now_is_stale(tmp_path: Path) -> None:
    async with background(tmp_path) as daemon:
        (daemon.data / "daemon").mkdir(parents=True)
        bystander = await trio.lowlevel.open_process(["/bin/cat"], stdin=subprocess.PIPE)
        for content in (str(bystander.pid), str(os.getpid()), "0", "-1", "99999999", "x", ""):
            daemon.file("pid").write_text(content)
            shown = CliRunner().invoke(cli.main, ["daemon", "status", "--exit-code"], env=daemon.env)
            assert (shown.exit_code, shown.stderr) == (3, "Daemon not running\n")
        assert (await daemon.command("stop")).stderr == "daemon is not running (no PID file)\n"
        assert not daemon.file("pid").exists()
        assert bystander.poll() is None
        bystander.kill()
        await bystander.wait()
        assert bystander.stdin is not None
        await bystander.stdin.aclose()


async def test_a_daemon_that_does_not_answer_is_told_of_and_killed_by_stop_with_its_agents(tmp_path: Path) -> None:
    async with background(tmp_path) as daemon:
        await daemon.command("start")
        pid = daemon.its_pid
        session = Session(daemon, "s")
        await session.open("mock")
        os.kill(pid, signal.SIGSTOP)
        sentence = f"sandbox-agent: the daemon (PID {pid}) does not answer at {daemon.url}"
        async with trio.open_nursery() as nursery:  # each waits for an answer

            async def start() -> None:
                assert (await daemon.command("start")).stderr.startswith(sentence)

            nursery.start_soon(start)
            shown = await daemon.command("status", "--exit-code")
        assert (shown.code, f"but it does not answer at {daemon.url}" in shown.stderr) == (0, True)
        stopped = await daemon.command("stop", SANDBOX_AGENT_GRACE="0.1")
        assert (stopped.code, stopped.stderr.splitlines()[-1]) == (0, "daemon stopped")
        await eventually(lambda: not processes_with(daemon.mark))


async def test_the_log_grows_over_lives_and_a_large_one_is_put_aside(tmp_path: Path) -> None:
    async with background(tmp_path) as daemon:
        (daemon.data / "daemon").mkdir(parents=True)
        daemon.file("log").write_text("an earlier life\n")
        await daemon.command("start")
        await daemon.command("stop")
        assert daemon.file("log").read_text().startswith("an earlier life\n")
        with daemon.file("log").open("r+b") as log:
            log.truncate(11 << 20)
        await daemon.command("start")
        await daemon.command("stop")
        assert daemon.file("log").stat().st_size < 10_000
        assert daemon.file("log.1").stat().st_size == 11 << 20


async def test_what_lies_in_the_current_directory_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "click.py").write_text("raise SystemExit('not this one')\n")
    async with background(tmp_path) as daemon:
        done = await trio.run_process(
            [COMMAND, "daemon", "start"],
            env=clean_environment(daemon.env),
            cwd=tmp_path / "here",
            capture_stderr=True,
            check=False,
        )
        assert (done.returncode, done.stderr.count(b"daemon started")) == (0, 1)
        assert (await daemon.command("stop")).code == 0


@pytest.mark.parametrize("arguments", [("start", "-p", "0"), ("status", "-p", "x"), ("stop", "now"), ("restart",)])
def test_arguments_that_make_no_sense_are_usage_errors(arguments: tuple[str, ...]) -> None:
    done = CliRunner().invoke(cli.main, ["daemon", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")


async def test_an_interrupted_start_leaves_nothing(tmp_path: Path) -> None:
    async with background(tmp_path) as daemon:
        # A server that never answers: its agents file is a pipe that nobody writes to.
        os.mkfifo(tmp_path / "agents.toml")
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "sandbox_agent", "daemon", "start"],
            env=clean_environment({**daemon.env, "SANDBOX_AGENT_AGENTS": str(tmp_path / "agents.toml")}),
            stderr=subprocess.DEVNULL,
        )
        await eventually(lambda: daemon.file("pid").exists())
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 130
        await eventually(lambda: not processes_with(daemon.mark))
        assert not daemon.file("pid").exists()


def test_an_address_of_every_interface_is_asked_on_this_machine() -> None:
    from sandbox_agent.cli.health import url_of

    assert url_of("0.0.0.0", 1) == "http://127.0.0.1:1"
    assert url_of("::", 1) == "http://[::1]:1"
    assert url_of("localhost", free_port()).startswith("http://localhost:")
