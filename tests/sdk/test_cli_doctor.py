"""`sandbox-agent doctor`: on this machine, on one without tools, and where something is broken."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import trio

from support.command import COMMAND, clean_environment, invoke, run
from support.daemon import free_port
from support.registries import NODE_AGENT, open_registries
from support.serving import TOKEN, serving

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WITHIN = 60

Findings = dict[str, dict[str, Any]]


class Diagnosis:
    """What the doctor has found, by name; of several findings of one name the worst."""

    def __init__(self, code: int, stdout: str) -> None:
        self.code = code
        told = json.loads(stdout)
        assert told["ok"] == (code == 0)
        order = ["ok", "warning", "failed"]
        self.findings: Findings = {}
        for finding in sorted(told["checks"], key=lambda each: order.index(each["status"])):
            self.findings[finding["name"]] = finding
            assert finding["message"]
            assert (finding["hint"] is None) == (finding["status"] == "ok")

    def __getitem__(self, name: str) -> tuple[str, str]:
        return self.findings[name]["status"], self.findings[name]["message"]

    def hint(self, name: str) -> str:
        hint: str = self.findings[name]["hint"]
        return hint


class Patient:
    """A machine with a home of its own, and programs of which the tests say how they are."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.bin = home / "bin"
        self.data = home / "data"
        self.launchers = self.data / "bin" / "agent_processes"
        for directory in (self.bin, home / "home"):
            directory.mkdir(parents=True)
        self.port = free_port()
        # All that shell scripts need, and no tool that the doctor looks for.
        for program in ("sh", "cat"):
            (self.bin / program).symlink_to(shutil.which(program) or "/bin/sh")

    def program(self, name: str, script: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def tools(self) -> None:
        """Everything that a healthy machine has."""
        self.program("node", "echo v24.21.0")
        self.program("npm", "echo 11.0.0")
        self.program("git", "exit 0")

    def launcher(self, id: str, script: str, mode: int = 0o755) -> None:
        self.launchers.mkdir(parents=True, exist_ok=True)
        path = self.launchers / f"{id}-acp"
        path.write_text(script)
        path.chmod(mode)

    @property
    def env(self) -> dict[str, str]:
        return {
            "PATH": str(self.bin),
            "HOME": str(self.home / "home"),
            "SANDBOX_AGENT_DATA_DIR": str(self.data),
            "SANDBOX_AGENT_PORT": str(self.port),
        }

    def examined(self, *arguments: str, env: Mapping[str, str] | None = None) -> Diagnosis:
        inherited = dict.fromkeys(("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "XDG_DATA_HOME"), "")
        done = invoke("doctor", "--json", *arguments, env={**inherited, **self.env, **(env or {})})
        assert done.stderr == ""
        return Diagnosis(done.code, done.stdout)

    async def examined_apart(self, *arguments: str, env: Mapping[str, str] | None = None) -> Diagnosis:
        """The doctor in a process of its own, beside what runs in this one."""
        done = await run("doctor", "--json", *arguments, env={**self.env, **(env or {})}, within=WITHIN)
        assert done.stderr == ""
        return Diagnosis(done.code, done.stdout)


@pytest.fixture
def patient(tmp_path: Path) -> Patient:
    return Patient(tmp_path)


async def test_a_machine_without_node_is_told_what_to_install(patient: Patient) -> None:
    found = await patient.examined_apart()
    assert found.code == 1
    assert found["Node.js"] == ("failed", "there is no 'node' on PATH: agents of npm cannot be installed")
    assert found["npm"] == ("failed", "there is no 'npm' on PATH: agents of npm cannot be installed")
    assert found["git"][0] == "warning"
    for name in ("Node.js", "npm"):
        assert "install Node.js 22 or later with npm" in found.hint(name)
    shown = await run("doctor", env=patient.env, within=WITHIN)
    assert (shown.code, shown.stderr) == (1, "")
    lines = shown.stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("failed   Node.js "))
    assert lines[place + 1].split(maxsplit=1) == ["→", found.hint("Node.js")]
    assert lines[-1] == "2 failed, 1 to look at"


def test_a_healthy_machine_is_well_and_left_as_it_was(patient: Patient) -> None:
    patient.tools()
    found = patient.examined()
    assert found.code == 0
    assert {finding["status"] for finding in found.findings.values()} == {"ok"}
    assert found["Node.js"] == ("ok", f"version 24 at {patient.bin}/node")
    assert found["npm"] == ("ok", f"version 11.0.0 at {patient.bin}/npm")
    assert found["data directory"] == ("ok", f"{patient.data} will be made in {patient.home}")
    assert found["port"] == ("ok", f"{patient.port} on 127.0.0.1 is free")
    assert found["agent mock"] == ("ok", "built in")
    assert "claude" in found["other agents"][1]
    assert sorted(path.name for path in patient.home.iterdir()) == ["bin", "home"]
    assert invoke("doctor", env=patient.env).stdout.endswith("\nall is well\n")


@pytest.mark.parametrize(
    ("node", "npm", "status", "message"),
    [
        ("echo v20.1.0", "echo 11", ("warning", "ok"), "version 20 at {bin}/node is too old for some agents"),
        ("echo hello", "echo 11", ("failed", "ok"), "{bin}/node does not tell its version"),
        ("exit 127", "exit 127", ("failed", "failed"), "{bin}/node does not tell its version"),
    ],
)
def test_tools_that_are_old_or_do_not_run_are_told_apart_from_none(
    patient: Patient, node: str, npm: str, status: tuple[str, str], message: str
) -> None:
    patient.tools()
    patient.program("node", node)
    patient.program("npm", npm)
    found = patient.examined()
    assert (found["Node.js"][0], found["npm"][0]) == status
    assert found["Node.js"][1].startswith(message.format(bin=patient.bin))


def test_a_data_directory_that_cannot_be_used_is_a_failure(patient: Patient) -> None:
    patient.tools()
    (patient.home / "file").touch()
    found = patient.examined("--data-dir", str(patient.home / "file" / "data"))
    assert found["data directory"] == ("failed", f"{patient.home}/file is no directory")
    patient.data.mkdir()
    patient.data.chmod(0o777)
    found = patient.examined()
    assert (found.code, found["data directory"][0]) == (0, "warning")
    assert found.hint("data directory") == f"chmod go-w {patient.data}"


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("unshare") is None, reason="root alone can stop being root")
async def test_a_directory_that_must_not_be_looked_into_is_a_failure(patient: Patient) -> None:
    (patient.home / "closed").mkdir(mode=0)
    done = await trio.run_process(
        ["unshare", "--user", COMMAND, "doctor", "--json", "--data-dir", str(patient.home / "closed" / "data")],
        env=clean_environment({**patient.env, "PATH": os.environ["PATH"]}),
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    if b"unshare" in done.stderr:
        pytest.skip("this sandbox has no user namespaces")
    found = Diagnosis(done.returncode, done.stdout.decode())
    path = patient.home / "closed" / "data"
    assert found["data directory"] == ("failed", f"{path} cannot be looked at: Permission denied")
    assert found["agents"][0] == "failed"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
def test_a_small_disk_that_runs_no_programs_is_a_failure(patient: Patient) -> None:
    patient.tools()
    patient.data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "noexec,size=1m,mode=0700", "none", str(patient.data)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("this sandbox does not let us mount")
    try:
        found = patient.examined()
        assert found["programs"][0] == "failed"
        assert "noexec" in found.hint("programs")
        assert found["disk"][0] == "failed"
        subprocess.run(["mount", "-o", "remount,ro", str(patient.data)], check=True)
        found = patient.examined()
        assert found["data directory"] == ("failed", f"nothing can be written to {patient.data}: Read-only file system")
    finally:
        subprocess.run(["umount", str(patient.data)], check=True)


async def test_a_server_that_answers_and_others_on_its_port_are_told_apart(patient: Patient) -> None:
    patient.tools()
    async with serving(patient.home / "server", token=TOKEN) as daemon:
        patient.port = daemon.port
        found = await patient.examined_apart("--token", TOKEN)
        assert found["port"] == ("ok", f"a server answers at {daemon.url}")
        assert found["token"] == ("ok", "given")
        found = await patient.examined_apart(env={"SANDBOX_AGENT_TOKEN": "another-token-of-some-length"})
        assert found["port"] == ("warning", f"a server answers at {daemon.url}, and takes another token")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        patient.port = taken.getsockname()[1]
        found = await patient.examined_apart()
        assert found.code == 1
        assert found["port"] == ("failed", f"cannot listen on 127.0.0.1 port {patient.port}: Address already in use")


def test_a_token_and_an_address_that_would_not_be_safe_are_told(patient: Patient) -> None:
    patient.tools()
    for arguments, env, status, message in (
        (["-H", "0.0.0.0"], {}, "failed", "refusing to listen on 0.0.0.0 without a token"),
        ([], {"SANDBOX_AGENT_TOKEN": ""}, "failed", "the token is empty"),
        (["-t", "line\nbreak"], {}, "failed", "the token cannot be sent in a header"),
        (["-t", "short"], {}, "warning", "shorter than 16 characters"),
    ):
        found = patient.examined(*arguments, env=env)
        assert found["token"][0] == status
        assert found["token"][1].startswith(message)
        assert found.code == int(status == "failed")


def test_journals_that_are_open_to_others_or_damaged_are_told(patient: Patient) -> None:
    patient.tools()
    state = patient.data / "daemons" / "127-0-0-1-2468"
    state.mkdir(parents=True)
    state.chmod(0o755)
    found = patient.examined()
    assert found["journals"] == ("warning", f"others can look into {state}, where conversations are")
    state.chmod(0o700)
    (state / "journal.db").write_bytes(b"no database")
    assert (patient.examined())["journals"] == ("warning", f"{state}/journal.db is damaged")
    (state / "journal.db").write_bytes(b"SQLite format 3\0 and so on")
    assert (patient.examined())["journals"] == ("ok", "all 1 private, readable and whole")
    (state / "journal.db.damaged-20260101").touch()
    assert "was put aside" in (patient.examined())["journals"][1]


def test_definitions_that_are_not_valid_are_told_and_the_rest_is_looked_at(patient: Patient) -> None:
    patient.tools()
    agents = patient.home / "agents.toml"
    agents.write_text("[agents.mine]\ncommand = 7\n")
    patient.data.mkdir(mode=0o700)
    (patient.data / "registry.json").write_text("no JSON")
    found = patient.examined("--agents", str(agents), env={"SANDBOX_AGENT_AGENT_OTHER": "unclosed '"})
    assert found.code == 1
    for name, hint in (
        ("agents file", "mend it: the server does not start with it"),
        ("registry document", "sandbox-agent agents refresh --clear"),
        ("agents by environment", "mend the variable: the server does not start with it"),
    ):
        assert found[name][0] == "failed"
        assert found.hint(name) == hint
    assert found["agent mock"][0] == "ok"


def test_agents_that_cannot_run_are_failures_and_missing_credentials_are_not(patient: Patient) -> None:
    patient.tools()
    agents = patient.home / "agents.json"
    mine = {
        "gone": {"command": ["/nowhere/agent"]},
        "needy": {"command": ["sh"], "needs": {"vendors-tool": "Get it from the vendor."}},
        "good": {"command": ["sh"], "credentials": ["anthropic"]},
    }
    agents.write_text(json.dumps({"agents": mine}))
    patient.launcher("script", "#!/no/such/interpreter\n")
    patient.launcher("locked", "#!/bin/sh\n", 0o644)
    patient.launcher("pi", "#!/bin/sh\n# sandbox-agent: generation 20260101T000000-00000000\nexec /nowhere\n")
    found = patient.examined("--agents", str(agents))
    assert found["agent gone"] == ("failed", "/nowhere/agent is not there, or may not be run")
    assert found["agent needy"][0] == "failed"
    assert found.hint("agent needy") == "Get it from the vendor."
    assert found["agent script"][1].endswith("needs /no/such/interpreter, which is not there")
    assert found["agent locked"][0] == "failed"
    assert found["agent pi"][0] == "failed"
    assert found.hint("agent pi") == "sandbox-agent install-agent pi --reinstall"
    assert found["agent good"] == ("warning", "sh; no credentials for anthropic")
    found = patient.examined("--agents", str(agents), env={"ANTHROPIC_API_KEY": "sk-canary-1234567890"})
    assert found["agent good"] == ("ok", "sh; credentials: anthropic (environment)")
    assert "canary" not in json.dumps(found.findings)


def test_a_login_that_cannot_be_read_is_told_without_what_is_in_it(patient: Patient) -> None:
    patient.tools()
    login = patient.home / "home" / ".codex" / "auth.json"
    login.parent.mkdir()
    login.write_text('{"OPENAI_API_KEY": "sk-canary')
    found = patient.examined()
    assert found["credentials"][0] == "warning"
    assert str(login) in found["credentials"][1]
    assert "canary" not in json.dumps(found.findings)


def test_agents_are_started_when_asked_and_only_then(patient: Patient) -> None:
    patient.tools()
    said = patient.home / "started"
    answer = '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1}}'
    patient.launcher("good", f"#!/bin/sh\n> {said}\nread -r line\necho '{answer}'\nexec cat >/dev/null\n")
    patient.launcher("bad", '#!/bin/sh\necho "no licence for $ANTHROPIC_API_KEY" >&2\nexit 3\n')
    key = {"ANTHROPIC_API_KEY": "sk-canary-1234567890"}
    found = patient.examined(env=key)
    assert (found.code, found["agent bad"][0], said.exists()) == (0, "ok", False)
    found = patient.examined("--probe", env=key)
    assert (found.code, found["agent good"][0], said.exists()) == (1, "ok", True)
    assert found["agent mock"][0] == "ok"
    assert found["agent bad"][0] == "failed"
    assert "it exited with code 3" in found["agent bad"][1]
    assert found["agent bad"][1].endswith("its last words: no licence for [redacted]")


async def test_an_agent_that_was_installed_is_told_with_its_version(patient: Patient) -> None:
    with trio.fail_after(WITHIN):
        async with open_registries() as registries:
            package = registries.npm_agent("tool", "1.2.3", NODE_AGENT)
            agents = patient.home / "agents.json"
            agents.write_text(json.dumps({"agents": {"tool": {"distribution": {"npx": {"package": package}}}}}))
            env = {**patient.env, **registries.environment, "npm_config_cache": f"{patient.home}/cache"}
            env |= {"SANDBOX_AGENT_AGENTS": str(agents), "PATH": os.environ["PATH"]}
            assert (await run("install-agent", "tool", env=env, within=WITHIN)).code == 0
            found = await patient.examined_apart("--agents", str(agents), env={"PATH": os.environ["PATH"]})
    status, message = found["agent tool"]
    assert status == "ok"
    assert message.startswith(f"1.2.3 at {patient.launchers}/tool/")


async def test_few_open_files_are_a_warning(patient: Patient) -> None:
    patient.tools()
    done = await trio.run_process(
        ["/bin/sh", "-c", 'ulimit -Sn 256; exec "$0" doctor --json', COMMAND],
        env=clean_environment(patient.env),
        capture_stdout=True,
    )
    found = Diagnosis(0, done.stdout.decode())
    assert found["open files"] == ("warning", "at most 256: few sessions at once")
