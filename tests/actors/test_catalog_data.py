"""The agents that this release knows: what must be true of the data, whatever is in it."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import pytest

from sandbox_actors.catalog import static_options
from sandbox_actors.catalog.pins import main_pin, npm_pin
from sandbox_actors.catalog.sources import shipped_agents
from sandbox_actors.credentials import PROVIDERS
from sandbox_actors.description import CAPABILITIES

if TYPE_CHECKING:
    from sandbox_actors.catalog import Agent

AGENTS = shipped_agents()
INSTALLED = [agent for agent in AGENTS.values() if agent.distribution is not None]

PUBLIC = ["claude", "codex", "opencode", "amp", "pi", "cursor", "mock"]
"""The agents of the public wire, in its order."""

OTHERS = [
    "gemini", "qwen", "copilot", "cline", "kilo", "nanocoder", "vibe", "kimi", "hermes", "openhands", "droid", "auggie",
    "qoder",
]  # fmt: skip


def test_the_agents_of_the_public_wire_come_first_and_in_its_order() -> None:
    assert list(AGENTS) == PUBLIC + OTHERS


def test_no_alias_is_an_id_or_stands_for_two_agents() -> None:
    names = Counter([*AGENTS, *(alias for agent in AGENTS.values() for alias in agent.aliases)])
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize(
    ("registry", "ours"),
    [
        ("claude-acp", "claude"),
        ("claude-code-acp", "claude"),
        ("codex-acp", "codex"),
        ("amp-acp", "amp"),
        ("pi-acp", "pi"),
        ("cursor-agent", "cursor"),
        ("cursor-agent-acp", "cursor"),
        ("qwen-code", "qwen"),
        ("github-copilot-cli", "copilot"),
        ("mistral-vibe", "vibe"),
        ("factory-droid", "droid"),
    ],
)
def test_agents_are_known_by_the_ids_of_the_registry(registry: str, ours: str) -> None:
    assert registry in AGENTS[ours].aliases


@pytest.mark.parametrize("agent", INSTALLED, ids=lambda agent: agent.id)
def test_every_package_is_pinned_to_one_version(agent: Agent) -> None:
    pin = main_pin(agent.distribution)
    assert pin is not None
    assert pin.version == agent.version
    for version in (pin.version, *(_version(spec) for spec in agent.packages)):
        assert version is not None
        assert re.match(r"\d+\.\d+\.\d+", version)


def _version(spec: str) -> str | None:
    pin = npm_pin(spec)
    return None if pin is None else pin.version


@pytest.mark.parametrize("agent", INSTALLED, ids=lambda agent: agent.id)
def test_a_step_after_the_install_is_one_script_of_a_package_that_is_installed(agent: Agent) -> None:
    if agent.after_install is None:
        return
    node, script = agent.after_install
    assert node == "node"
    assert agent.distribution is not None
    npx = [] if agent.distribution.npx is None else [agent.distribution.npx.package]
    folders = [f"node_modules/{pin.name}/" for spec in [*npx, *agent.packages] if (pin := npm_pin(spec))]
    assert any(script.startswith(folder) for folder in folders)


@pytest.mark.parametrize("agent", INSTALLED, ids=lambda agent: agent.id)
def test_an_npm_agent_says_which_node_it_needs_and_a_pypi_agent_which_python(agent: Agent) -> None:
    assert agent.distribution is not None
    assert (agent.distribution.npx is None) == (agent.python is not None)
    assert agent.distribution.npx is None or agent.node is not None
    assert (agent.node or 24) <= 24  # what the installer can bring along


@pytest.mark.parametrize("agent", INSTALLED, ids=lambda agent: agent.id)
def test_a_native_program_comes_from_a_package_that_is_installed(agent: Agent) -> None:
    if agent.native is not None and agent.native.package is not None:
        assert agent.native.package in [pin.name for spec in agent.packages if (pin := npm_pin(spec))]


@pytest.mark.parametrize("agent", AGENTS.values(), ids=lambda agent: agent.id)
def test_capabilities_and_providers_are_those_that_there_are(agent: Agent) -> None:
    assert set(agent.lacks) <= set(CAPABILITIES)
    assert "sharedProcess" in agent.lacks
    assert set(agent.credentials) <= set(PROVIDERS)
    assert bool(agent.credentials) == (agent.id != "mock")


@pytest.mark.parametrize("agent", AGENTS.values(), ids=lambda agent: agent.id)
def test_no_agent_inherits_what_belongs_to_the_daemon_or_everything(agent: Agent) -> None:
    for pattern in agent.environment:
        assert re.fullmatch(r"[A-Z][A-Z0-9_]{2,}\*?", pattern)
        assert not pattern.startswith("SANDBOX_AGENT")
    assert agent.name
    assert agent.description


def test_platform_packages_are_those_of_this_machine() -> None:
    names = " ".join(package for agent in AGENTS.values() for package in agent.packages)
    assert "{" not in names
    assert re.search(r"@kilocode/cli-(linux|darwin)-(x64|arm64)@", names)


def test_parts_of_a_package_have_its_version() -> None:
    kilo, amp = AGENTS["kilo"], AGENTS["amp"]
    assert [_version(spec) for spec in kilo.packages] == [kilo.version]
    assert len({_version(spec) for spec in amp.packages}) == 1


# -- the table of options


def test_agents_of_the_public_wire_have_a_table_of_options_and_no_other_has() -> None:
    assert [id for id in [*AGENTS, "nobody"] if static_options(id) is not None] == PUBLIC


@pytest.mark.parametrize("id", PUBLIC)
def test_the_current_value_of_an_option_is_one_of_its_values(id: str) -> None:
    table = static_options(id)
    assert table is not None
    options = msgspec.json.decode(table)
    assert options[0]["id"] == "model"
    for option in options:
        assert list(option) == sorted(option) == ["category", "currentValue", "id", "name", "options", "type"]
        assert option["type"] == "select"
        assert option["currentValue"] in [each["value"] for each in option["options"]]
        assert all(list(each) == ["name", "value"] for each in option["options"])


def test_the_options_of_the_mock_agent_are_those_of_the_public_wire() -> None:
    table = static_options("mock")
    assert table is not None
    options = msgspec.json.decode(table)
    assert [(option["id"], option["currentValue"], len(option["options"])) for option in options] == [
        ("model", "mock", 2),
        ("mode", "normal", 2),
        ("thought_level", "low", 3),
    ]
