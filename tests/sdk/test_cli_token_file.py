"""`--token-file`: the token as containers mount secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from support.command import run, run_here, started
from support.daemon import free_port
from support.processes import command_of
from support.wire import exchange

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file as many editors leave one, which everybody may read."""
    file = tmp_path / "secret"
    file.write_text("\n  t0ken-of-a-file \n")
    return file


@pytest.mark.parametrize("way", ["option", "option of the whole", "environment"])
async def test_the_server_takes_the_token_in_a_file_and_no_command_line_has_it(
    tmp_path: Path, secret: Path, way: str
) -> None:
    arguments = ["--token-file", str(secret)] if way == "option" else []
    env = {} if way == "option" else {"SANDBOX_AGENT_TOKEN_FILE": str(secret)}
    async with started(tmp_path, *arguments, env=env, token="t0ken-of-a-file") as server:
        assert (await exchange(server.port, "GET", "/v1/health", server.headers)).status == 200
        assert (await exchange(server.port, "GET", "/v1/health")).status == 401
        assert "t0ken-of-a-file" not in command_of(server.pid)
        assert "t0ken-of-a-file" not in server.stderr


async def test_other_commands_take_it_as_well(tmp_path: Path, secret: Path) -> None:
    port = str(free_port())
    env = {
        "SANDBOX_AGENT_PORT": port,
        "SANDBOX_AGENT_DATA_DIR": str(tmp_path / "data"),
        "SANDBOX_AGENT_TOKEN_FILE": str(secret),
        "SANDBOX_AGENT_ENDPOINT": f"http://127.0.0.1:{port}",
    }
    begun = await run("daemon", "start", env=env, within=60)
    try:
        assert begun.code == 0, begun.stderr
        assert (await run_here("daemon", "start", env=env)).stderr.startswith("daemon already running")
        assert '"mock"' in (await run_here("api", "agents", "list", "--json", env=env)).stdout
        bare = {**env, "SANDBOX_AGENT_TOKEN_FILE": ""}
        assert (await run_here("api", "agents", "list", env=bare)).code == 1
        assert (await run_here("--token-file", str(secret), "api", "agents", "list", env=bare)).code == 0
        assert (await run_here("api", "agents", "list", "--token-file", str(secret), env=bare)).code == 0
    finally:
        assert (await run_here("daemon", "stop", env=env)).code == 0


WRONG = {
    "is empty": b" \n",
    "it is no text": b"\xff\xfe",
    "cannot be sent in a header": b"two\nlines\n",
}


@pytest.mark.parametrize("said", WRONG)
async def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, said: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(WRONG[said])
    done = await run_here("server", "--port", "0", "--token-file", str(file))
    assert (done.code, said in done.stderr) == (1, True), done.stderr
    assert done.stderr.startswith("sandbox-agent: ")


async def test_a_file_that_cannot_be_read_and_a_second_token_are_refused(tmp_path: Path, secret: Path) -> None:
    for file, reason in ((tmp_path / "nowhere", "No such file or directory"), (tmp_path, "Is a directory")):
        done = await run_here("server", "--token-file", str(file))
        assert done == (1, "", f"sandbox-agent: cannot read --token-file {file}: {reason}\n")
    both = await run_here("server", "--token-file", str(secret), env={"SANDBOX_AGENT_TOKEN": "another"})
    assert both == (1, "", f"sandbox-agent: there is a token, and a --token-file {secret} as well: give one of them\n")
    unset = await run_here("server", "--port", "0", env={"SANDBOX_AGENT_TOKEN_FILE": ""})
    assert unset.code == 1
    assert "the token is empty" in unset.stderr
