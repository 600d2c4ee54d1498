"""The image of the Dockerfile: what is in it, and how it runs."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from support.docker_container import Container, container_of
from support.docker_image import IMAGE

if TYPE_CHECKING:
    from pathlib import Path

    from support.docker_engine import Engine

pytestmark = pytest.mark.xdist_group("docker")

SECOND = 10**9
"""In the engine's unit."""

HEALTHY_WITHIN = 30.0
"""Seconds; a check each second."""

USER = 1000
"""That the server runs as."""

STATE = "/home/sandbox/.local/state/sandbox-agent"


def healthy(container: Container) -> str:
    """The state of health, as soon as it is decided."""
    deadline = time.monotonic() + HEALTHY_WITHIN
    while (status := container.state["Health"]["Status"]) == "starting" and time.monotonic() < deadline:
        time.sleep(0.1)
    return str(status)


def test_without_a_token_it_refuses_and_says_what_to_do(engine: Engine) -> None:
    with container_of(engine, start=False, environment={}) as container:
        container.it.start()
        assert container.ended(within=30) == 1
        assert container.said.startswith("sandbox-agent: refusing to listen on 0.0.0.0 without a token")
        assert "Set SANDBOX_AGENT_TOKEN" in container.said


def test_the_image_says_how_it_is_run(engine: Engine) -> None:
    config: dict[str, Any] = engine.client.images.get(IMAGE).attrs["Config"]
    assert config["User"] == "1000"  # a number: Kubernetes wants to see that it is not root
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["ExposedPorts"]) == ["2468/tcp"]
    assert (config["Entrypoint"], config["Cmd"]) == (["sandbox-agent"], ["server"])


@pytest.mark.parametrize("by", ["variable", "file", "tokens file"])
def test_it_becomes_healthy_however_the_token_is_given(engine: Engine, tmp_path: Path, by: str) -> None:
    (tmp_path / "token").write_text("of-the-file\n")
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"tokens": [{"name": "a", "token": "one-of-many-tokens", "scopes": ["admin"]}]}')
    tokens.chmod(0o600)
    os.chown(tokens, USER, USER)
    tmp_path.chmod(0o755)
    given = {
        "variable": {"SANDBOX_AGENT_TOKEN": "of-the-variable"},
        "file": {"SANDBOX_AGENT_TOKEN_FILE": "/given/token"},
        "tokens file": {"SANDBOX_AGENT_TOKENS_FILE": "/given/tokens.json"},
    }[by]
    often = {"interval": SECOND, "timeout": 10 * SECOND, "retries": 3, "start_period": 20 * SECOND}
    options: dict[str, Any] = {"environment": given, "healthcheck": often, "volumes": [f"{tmp_path}:/given:ro"]}
    with container_of(engine, start=False, **options) as container:
        container.it.start()
        assert healthy(container) == "healthy", (container.state["Health"], container.said)


def test_a_server_that_hangs_becomes_unhealthy(engine: Engine) -> None:
    often = {"interval": SECOND, "timeout": 5 * SECOND, "retries": 1, "start_period": 0}
    with container_of(engine, healthcheck=often) as container:
        assert healthy(container) == "healthy", container.state["Health"]
        container.it.kill("SIGSTOP")
        deadline = time.monotonic() + HEALTHY_WITHIN
        while container.state["Health"]["Status"] != "unhealthy":
            assert time.monotonic() < deadline, container.state["Health"]
            time.sleep(0.1)


def test_nothing_that_only_the_build_needs_is_in_it(engine: Engine) -> None:
    with container_of(engine) as container:
        there = container.do("ls", "-A", "/", "/opt", "/opt/sandbox-agent/bin").split()
        assert "source" not in there
        assert not [name for name in there if "pip" in name]
        container.do("sh", "-c", "for tool in pip gcc cc make; do ! command -v $tool || exit 1; done")
        # Agents and their users get the system's Python, not the one whose packages are the server's.
        assert container.do("sh", "-c", "command -v python3") == "/usr/bin/python3\n"


def test_it_runs_on_a_root_file_system_that_is_read_only(engine: Engine) -> None:
    volume = engine.client.volumes.create()
    try:
        options: dict[str, Any] = {
            "read_only": True,
            "volumes": [f"{volume.name}:/home/sandbox"],
            "tmpfs": {"/tmp": ""},
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
        }
        with container_of(engine, **options) as container:
            assert container.ask("POST", "/v1/sessions", {"agent": "mock", "id": "talk"}).status_code == 201
            turn = container.ask("POST", "/v1/sessions/talk/prompt?wait=true", {"content": "still here"}).json()
            assert "still here" in turn["text"], turn
            assert container.run("touch", "/var/lib/sandbox-agent/x")["exitCode"] == 1
    finally:
        volume.remove()


def test_a_volume_of_the_home_directory_keeps_the_sessions_for_the_next_container(engine: Engine) -> None:
    volume = engine.client.volumes.create()
    try:
        options: dict[str, Any] = {"volumes": [f"{volume.name}:/home/sandbox"]}
        with container_of(engine, **options) as container:
            assert container.ask("POST", "/v1/sessions", {"agent": "mock", "id": "talk"}).status_code == 201
            container.ask("POST", "/v1/sessions/talk/prompt?wait=true", {"content": "keep this"})
            assert container.do("stat", "--format", "%U %a", STATE).split() == ["sandbox", "700"]
        with container_of(engine, **options) as container:
            assert "keep this" in container.ask("GET", "/v1/sessions/talk/transcript").text
    finally:
        volume.remove()
