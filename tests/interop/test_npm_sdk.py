"""The npm package `sandbox-agent` 0.4.2, unchanged, is a client of our daemon.

Each test runs one program of `npm_sdk/`, and each program must end by itself, with status 0 and an empty stderr: the
package writes there whatever it cannot make sense of, and node whatever nobody has caught.
"""

from __future__ import annotations

import secrets
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import trio

from interop.cache import may_install
from interop.npm_script import Script, install, is_installed, script
from support.daemon import Daemon, running
from support.processes import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from interop.npm_script import Facts

INSTALL_SECONDS = 120.0
SCENARIO_SECONDS = 40.0  # 1 to 8 are usual; two cores may have other work
SDK_DELETE_SECONDS = 2.0  # then the SDK gives up its DELETE, and says nothing

FAILED_PROMPT = {"name": "AcpRpcError", "code": -32603}


@dataclass(frozen=True, slots=True)
class Stage:
    daemon: Daemon
    script: Script
    own: frozenset[int]
    """The daemon and what it has started for itself."""

    def agent_processes(self) -> set[int]:
        return set(self.daemon.processes()) - self.own


@asynccontextmanager
async def set_stage(name: str, folder: Path, *options: str) -> AsyncGenerator[Stage]:
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not on PATH")
    if not is_installed() and not may_install():
        pytest.skip("the npm package is not installed, and SANDBOX_AGENT_TEST_INSTALL is 0")
    with trio.fail_after(INSTALL_SECONDS):
        await install()
    with trio.fail_after(SCENARIO_SECONDS):
        async with running(folder / "daemon", *options) as daemon:
            own = frozenset(daemon.processes())
            async with script(name, daemon, folder / "app") as program:
                yield Stage(daemon, program, own)


def upto(count: int) -> list[int]:
    return list(range(1, count + 1))


def servers(listing: Facts) -> list[str]:
    return [server["serverId"] for server in listing["servers"]]


async def test_a_session_has_its_mode_streams_in_order_asks_for_permission_and_leaves_no_process(
    tmp_path: Path,
) -> None:
    async with set_stage("conversation", tmp_path) as stage:
        created = await stage.script.tells("created")
        assert created["modes"]["currentModeId"] == "plan"
        assert created["state"] | {"mode": "plan", "model": "mock-fast", "thought_level": "high"} == created["state"]
        assert created["state"]["cwd"] == str(tmp_path / "app")
        changed = await stage.script.tells("set")
        assert changed["modes"]["currentModeId"] == "normal"
        assert changed["state"] | {"mode": "normal", "model": "mock", "thought_level": "low"} == changed["state"]

        streamed = await stage.script.tells("streamed")
        assert streamed["stopReason"] == "end_turn"
        assert streamed["numbers"] == upto(200)
        assert streamed["indices"] == list(range(streamed["indices"][0], streamed["indices"][-1] + 1))

        assert await stage.script.tells("nobody listens") == {
            "stopReason": "end_turn",
            "said": ["permission: cancelled"],
        }
        for reply, kind in (("once", "allow_once"), ("always", "allow_always"), ("reject", "reject_once")):
            assert await stage.script.tells("asked") == {"replies": ["once", "always", "reject"], "title": "Go on"}
            assert await stage.script.tells(reply) == {"stopReason": "end_turn", "said": [f"permission: {kind}"]}

        odd = await stage.script.tells("odd")
        assert len(odd["said"][0]) > 900_000
        slow = await stage.script.tells("slow")  # its HTTP answer began with blanks
        assert slow["stopReason"] == "end_turn"

        assert len(servers(await stage.script.tells("before the end"))) == 1
        assert len(stage.agent_processes()) == 2  # the agent and its child
        await stage.script.is_told()
        disposed = await stage.script.tells("disposed")
        assert disposed["ms"] < SDK_DELETE_SECONDS * 1000
        assert stage.agent_processes() == set()


async def test_a_turn_is_cancelled_by_destroying_the_session_or_below_the_sdk(tmp_path: Path) -> None:
    async with set_stage("cancel", tmp_path) as stage:
        by_hand = await stage.script.tells("by hand")
        assert "Manual session/cancel calls are not allowed" in by_hand["message"]
        destroyed = await stage.script.tells("destroyed")
        assert (destroyed["stopReason"], destroyed["stamped"]) == ("cancelled", True)
        assert await stage.script.tells("alive") == {"stopReason": "end_turn", "said": ["x"]}

        own = await stage.script.tells("by an own request")
        assert (own["status"], own["stopReason"]) == (202, "cancelled")

        assert (await stage.script.tells("while it asked"))["stopReason"] == "cancelled"
        assert "not found" in (await stage.script.tells("too late"))["message"]

        low = await stage.script.tells("low level")
        assert (low["stopReason"], low["heard"][:4]) == ("cancelled", "#1/1")
        assert (await stage.script.tells("low level again"))["stopReason"] == "end_turn"
        await stage.script.ends_in_peace()
        assert stage.agent_processes() == set()


async def test_after_a_crash_of_the_agent_the_same_client_goes_on_with_the_same_session(tmp_path: Path) -> None:
    # The backoff is long enough for a prompt to fall into it, also on a busy machine.
    async with set_stage("crash", tmp_path, "--restart-backoff-ms", "800") as stage:
        crashed = await stage.script.tells("crashed")
        assert crashed | FAILED_PROMPT == crashed
        assert "the agent process exited with code 3" in crashed["message"]
        assert crashed["data"]["type"] == "urn:sandbox-agent:error:agent_process_exited"
        assert crashed["data"]["exitCode"] == 3

        refused = await stage.script.tells("refused")
        assert refused | FAILED_PROMPT == refused
        assert "about to be started again" in refused["message"]
        assert 0 < refused["data"]["retryAfterMs"] <= 800
        bystander = await stage.script.tells("bystander")
        assert bystander["message"] == crashed["message"]

        back = await stage.script.tells("back")
        before, after = back["before"], back["after"]
        assert before.pop("pid") != after.pop("pid")
        assert (before, after["mode"]) == (after, "plan")
        assert back["numbers"] == upto(100)
        assert [failed["reason"] for failed in back["failed"]] == ["agent_process_exited"]
        assert (await stage.script.tells("bystander is back"))["stopReason"] == "end_turn"

        killed = await stage.script.tells("killed")
        assert "the agent process was ended by signal 9" in killed["message"]
        (recited,) = (await stage.script.tells("memory"))["said"]
        assert "/echo sunflower" in recited
        assert len(servers(await stage.script.tells("listed"))) == 1
        await stage.script.ends_in_peace()
        assert stage.agent_processes() == set()


async def test_an_agent_that_was_given_up_is_started_again_by_the_same_client(tmp_path: Path) -> None:
    async with set_stage("given_up", tmp_path, "--restart-limit", "0") as stage:
        assert "exited with code 3" in (await stage.script.tells("crashed"))["message"]
        refused = await stage.script.tells("refused")
        assert refused | FAILED_PROMPT == refused
        assert "crashed too often; send initialize" in refused["message"]
        (recited,) = (await stage.script.tells("back"))["said"]
        assert "/echo sunflower" in recited


async def test_what_the_daemon_adds_to_the_stream_is_taken_without_a_word(tmp_path: Path) -> None:
    async with set_stage("notices", tmp_path) as stage:
        assert (await stage.script.tells("heard"))["methods"] == [
            "_adapter/agent_exited",
            "_adapter/invalid_stdout",
            "_sandboxagent/agent/restarted",
            "_sandboxagent/agent/restarting",
            "_sandboxagent/permission/requested",
            "_sandboxagent/permission/resolved",
            "_sandboxagent/request/resolved",
            "_sandboxagent/session/recovered",
            "_sandboxagent/turn/failed",
            "mock/echo",
        ]


async def test_a_session_is_resumed_by_a_second_client_and_destroyed_by_a_third(tmp_path: Path) -> None:
    async with set_stage("resume", tmp_path) as stage:
        assert "exited with code 3" in (await stage.script.tells("crashed"))["message"]
        resumed = await stage.script.tells("resumed")
        assert (resumed["stopReason"], resumed["sameId"], resumed["sameAgentSession"]) == ("end_turn", True, False)
        (recited,) = resumed["said"]
        assert "[context] Previous session history is replayed below" in recited
        assert "/echo sunflower" in recited
        assert "/crash 3" in recited

        beside = await stage.script.tells("resumed beside")
        assert [chunk.split("/")[0] for chunk in beside["said"]] == [f"#{number}" for number in upto(50)]
        assert len(servers(await stage.script.tells("servers"))) == 2
        assert (await stage.script.tells("outlives"))["said"] == beside["said"]
        kept = await stage.script.tells("kept")
        assert kept["destroyed"]
        assert kept["events"] > 100
        await stage.script.ends_in_peace()
        assert stage.agent_processes() == set()


async def test_two_clients_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    async with set_stage("two_clients", tmp_path) as stage:
        together = await stage.script.tells("together")
        assert together == {"stopReasons": ["end_turn", "end_turn"], "numbers": [upto(300), upto(300)]}
        assert "exited with code 3" in (await stage.script.tells("crashed"))["message"]
        assert len(servers(await stage.script.tells("listed"))) == 2
        undisturbed = await stage.script.tells("undisturbed")
        assert undisturbed == {"stopReason": "end_turn", "numbers": [*upto(300), *upto(300)]}
        assert len(servers(await stage.script.tells("left"))) == 1


async def test_a_client_that_waits_survives_a_restart_of_the_daemon(tmp_path: Path) -> None:
    async with set_stage("restart", tmp_path) as stage:
        await stage.script.tells("ready")
        await stage.daemon.stop()
        stage.daemon.token = secrets.token_hex(16)
        await stage.daemon.start()
        await stage.script.is_told(token=stage.daemon.token)
        stopped = await stage.script.tells("stopped")
        assert stopped | FAILED_PROMPT == stopped
        (recited,) = (await stage.script.tells("remembers"))["said"]
        assert "/echo sunflower" in recited
        assert await stage.script.tells("streamed") == {"numbers": [*upto(5), *upto(100)], "failed": 1}
        await stage.script.ends_in_peace()


async def test_an_agent_that_will_not_go_is_gone_when_dispose_returns_or_soon_after(tmp_path: Path) -> None:
    async with set_stage("stubborn", tmp_path) as stage:
        await stage.script.tells("ready")
        await stage.script.tells("disposed")
        with trio.fail_after(SDK_DELETE_SECONDS):
            await eventually(lambda: not stage.agent_processes())


async def test_agents_are_listed_described_and_installed_and_directories_are_configured(tmp_path: Path) -> None:
    async with set_stage("agents", tmp_path, "--offline") as stage:
        listed = await stage.script.tells("listed")
        assert listed["ids"][:7] == ["claude", "codex", "opencode", "amp", "pi", "cursor", "mock"]
        assert listed["plain"]
        mock = (await stage.script.tells("mock"))["mock"]
        assert (mock["installed"], mock["version"]) == (True, "builtin")
        assert [option["category"] for option in mock["configOptions"]] == ["model", "mode", "thought_level"]
        assert (await stage.script.tells("unknown"))["message"] == "Unsupported Agent"

        installed = await stage.script.tells("installed")
        assert installed["mock"] == {"already_installed": True, "artifacts": []}
        assert [artifact["kind"] for artifact in installed["again"]["artifacts"]] == ["agent_process"]
        assert (await stage.script.tells("refused"))["message"] == "Invalid Request"
        assert (await stage.script.tells("offline"))["message"] == "Install Failed"

        folder = str(tmp_path / "app")
        mcp = await stage.script.tells("mcp")
        assert mcp["files"] == {
            "type": "local",
            "command": "files-server",
            "args": ["--root", folder],
            "env": {"MODE": "read"},
        }
        assert mcp["issues"] == {
            "type": "remote",
            "url": "http://127.0.0.1:1/mcp",
            "headers": {"X-Team": "core"},
            "transport": "http",
        }
        assert mcp["none"]["message"] == "Session Not Found"
        skills = await stage.script.tells("skills")
        assert skills["house"] == {
            "sources": [{"type": "github", "source": "example/skills", "skills": ["review"], "ref": "main"}]
        }
        assert skills["none"]["message"] == "Session Not Found"

        assert (await stage.script.tells("session"))["state"]["mcpServers"] == ["files", "issues"]
        deleted = await stage.script.tells("deleted")
        assert deleted["mcp"]["message"] == deleted["skills"]["message"] == "Session Not Found"
