"""Real coding agents as our own installer brings them, and how each is pointed at a model on loopback.

An agent is installed once, by the command, into a data directory in a cache, and is then used as it is. How it is
configured is written into a home of its own, and told by variables of the daemon's environment, as users do it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from interop.cache import CACHE, may_install
from sandbox_actors.credentials import PROVIDERS
from sandbox_actors.installer.place import Place
from support.command import run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

__all__ = ["AGENTS_DIR", "REAL_AGENTS", "RealAgent", "environment_of"]

AGENTS_DIR = CACHE / "agents"
"""The data directory of all daemons whose agents are real."""

INSTALL_WITHIN = 300.0
"""Seconds: 10 to 35 are usual."""


@dataclass(frozen=True, slots=True)
class RealAgent:
    """One agent.

    Attributes:
      configure: writes its configuration for the model at a URL into a home, and gives the variables that belong to it.
      asks: whether it asks before it writes.
      takes_files: whether a prompt may have files embedded.
      fails: whether its turn fails when the model refuses; else it ends as any other, with the model's words.
    """

    id: str
    configure: Callable[[Path, str], dict[str, str]]
    asks: bool = True
    takes_files: bool = True
    fails: bool = True

    async def provide(self) -> str | None:
        """Have it installed; gives why it cannot be, where this machine lacks what it needs or nothing may be done."""
        if Place(AGENTS_DIR / "bin" / "agent_processes", self.id).installed() is not None:
            return None
        if not may_install():
            return "not installed, and SANDBOX_AGENT_TEST_INSTALL is 0"
        command = ("install-agent", self.id, "--data-dir", str(AGENTS_DIR))
        done = await run(*command, env={"UV_PYTHON_DOWNLOADS": "never"}, within=INSTALL_WITHIN)
        if done.code and (lacks := re.search(r"install failed: \w+: (it needs .*)", done.stderr)):
            return lacks[1]
        assert done.code == 0, done.stderr
        return None

    def environment(self, home: Path, model_url: str) -> dict[str, str]:
        """Configure it in this home; gives the daemon's environment."""
        home.mkdir(parents=True, exist_ok=True)
        return {**environment_of(home), **self.configure(home, model_url)}


def environment_of(home: Path) -> dict[str, str]:
    """A home of one's own, quiet, and without the credentials of whoever runs the tests."""
    return {
        **{variable: "" for provider in PROVIDERS.values() for variable in provider.secrets},
        "HOME": str(home),
        **{f"XDG_{kind}_HOME": str(home / f".{kind.lower()}") for kind in ("CONFIG", "DATA", "STATE", "CACHE")},
        "NO_PROXY": "127.0.0.1,localhost",
        **dict.fromkeys(("DO_NOT_TRACK", "CI", "NO_BROWSER", "NO_COLOR"), "1"),
    }


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _write_json(path: Path, document: Mapping[str, object]) -> None:
    _write(path, json.dumps(document, indent=2))


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
        "IS_SANDBOX": "1",  # it refuses some modes to root elsewhere
        **dict.fromkeys(switches, "1"),
    }


def _configure_codex(home: Path, model_url: str) -> dict[str, str]:
    _write(
        home / ".codex/config.toml",
        f"""\
model = "gpt-5.5"  # one that it knows: another costs it tools, and earns a warning in every turn
model_provider = "fake"

[model_providers.fake]
name = "Scripted"
base_url = "{model_url}/v1"
wire_api = "responses"
env_key = "OPENAI_API_KEY"
request_max_retries = 0
stream_max_retries = 0
requires_openai_auth = false
supports_websockets = false

[analytics]
enabled = false

[otel]
exporter = "none"
""",
    )
    return {
        "CODEX_HOME": str(home / ".codex"),
        "OPENAI_API_KEY": "unused",
        "MODEL_PROVIDER": "fake",
        "INITIAL_AGENT_MODE": "workspace-write",
    }


def _configure_pi(home: Path, model_url: str) -> dict[str, str]:
    model = {"id": "scripted", "name": "Scripted", "reasoning": False, "input": ["text"]}
    provider = {
        "baseUrl": f"{model_url}/v1",
        "api": "openai-completions",
        "apiKey": "unused",
        "models": [{**model, "contextWindow": 200_000, "maxTokens": 8_192}],
    }
    _write_json(home / ".pi/agent/models.json", {"providers": {"fake": provider}})
    settings = {"defaultProvider": "fake", "defaultModel": "scripted", "quietStartup": True}
    _write_json(home / ".pi/agent/settings.json", settings)
    _write(home / ".npmrc", "offline=true\n")  # its adapter asks npm for a newer version in every session
    return {"PI_OFFLINE": "1", "PI_SKIP_VERSION_CHECK": "1", "PI_TELEMETRY": "0"}


def _configure_qwen(home: Path, model_url: str) -> dict[str, str]:
    _write_json(
        home / ".qwen/settings.json",
        {
            "general": {"disableAutoUpdate": True, "enableAutoUpdate": False},
            "privacy": {"usageStatisticsEnabled": False},
            "security": {"auth": {"selectedType": "openai"}},
            "telemetry": {"enabled": False},
            "tools": {"approvalMode": "default"},
        },
    )
    return {"OPENAI_BASE_URL": f"{model_url}/v1", "OPENAI_API_KEY": "unused", "OPENAI_MODEL": "scripted"}


def _configure_gemini(home: Path, model_url: str) -> dict[str, str]:
    _write_json(
        home / ".gemini/settings.json",
        {
            "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
            "privacy": {"usageStatisticsEnabled": False},
            "security": {"auth": {"selectedType": "gemini-api-key"}},
            "telemetry": {"enabled": False},
        },
    )
    return {
        "GEMINI_API_KEY": "unused",
        "GEMINI_CLI_NO_RELAUNCH": "true",
        "GEMINI_CLI_TRUST_WORKSPACE": "true",
        "GEMINI_MODEL": "gemini-2.5-pro",  # else it asks a model which model to ask
        "GEMINI_SANDBOX": "false",
        "GOOGLE_GEMINI_BASE_URL": model_url,
    }


def _configure_kimi(home: Path, model_url: str) -> dict[str, str]:
    _write(
        home / ".kimi/config.toml",
        f"""\
default_model = "scripted"

[providers.fake]
type = "openai_legacy"
base_url = "{model_url}/v1"
api_key = "unused"

[models.scripted]
provider = "fake"
model = "scripted"
max_context_size = 200000
""",
    )
    return {"PYTHONDONTWRITEBYTECODE": ""}  # where it is set, every start takes twice as long


def _configure_hermes(home: Path, model_url: str) -> dict[str, str]:
    model = {
        "provider": "custom",
        "default": "scripted",
        "base_url": f"{model_url}/v1",
        "api_key": "unused",
        "context_length": 200_000,
    }
    # Its YAML is JSON, too.
    _write_json(home / ".hermes/config.yaml", {"model": model, "approvals": {"mode": "manual"}})
    return {"HERMES_HOME": str(home / ".hermes"), "PYTHONDONTWRITEBYTECODE": ""}


REAL_AGENTS = {
    agent.id: agent
    for agent in (
        RealAgent("opencode", _configure_opencode),
        RealAgent("claude", _configure_claude),
        RealAgent("codex", _configure_codex, fails=False),
        RealAgent("pi", _configure_pi, asks=False, takes_files=False),
        RealAgent("qwen", _configure_qwen),
        RealAgent("gemini", _configure_gemini),
        RealAgent("hermes", _configure_hermes, takes_files=False),
        RealAgent("kimi", _configure_kimi, takes_files=False),
    )
}
