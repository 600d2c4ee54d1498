"""An agent in the shape of the public wire's `AgentInfo`, with some members more: told from what is known, unasked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

import msgspec

from .catalog import MOCK, static_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from msgspec import Raw

    from .catalog import Agent
    from .envelope import Json
    from .installer import Installed, Progress
    from .probe import Greeting
    from .session import Session

__all__ = ["Asked", "Description", "Fingerprint", "Found", "describe"]

Description: TypeAlias = "dict[str, Json]"

Fingerprint: TypeAlias = "tuple[str | int, ...]"
"""Of a program: another one is another agent, which has to be asked anew."""

CAPABILITIES = (
    "planMode",
    "permissions",
    "questions",
    "toolCalls",
    "toolResults",
    "textMessages",
    "images",
    "fileAttachments",
    "sessionLifecycle",
    "errorEvents",
    "reasoning",
    "status",
    "commandExecution",
    "fileChanges",
    "mcpTools",
    "streamingDeltas",
    "itemStarted",
    "sharedProcess",
)
"""In the order of the public wire."""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of an agent on this machine.

    Attributes:
      argv: the command that starts it; None where it is not installed.
      path: of the program behind that.
      installed: where it was installed here.
    """

    argv: tuple[str, ...] | None = None
    fingerprint: Fingerprint = ()
    path: str | None = None
    installed: Installed | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking an agent.

    Attributes:
      of: its fingerprint.
      error: why it did not answer, or opens no session.
      at: when, by Trio's clock.
    """

    of: Fingerprint
    greeting: Greeting | None
    error: str | None
    at: float


def describe(
    agent: Agent,
    found: Found,
    asked: Asked | None,
    sessions: Sequence[Session],
    progress: Progress | None,
    *,
    credentials: bool,
    config: bool,
) -> Description:
    """Describe an agent.

    Args:
      sessions: all of the daemon's, to tell whether it runs.
      progress: of its install that is under way.
      credentials: whether there are any for it.
      config: whether to tell version, path and options.
    """
    known = _initialize(found, asked)
    described: Description = {
        "id": agent.id,
        "installed": found.argv is not None,
        "credentialsAvailable": credentials,
    }
    if config and found.argv is not None:
        if (version := _version(agent, found, known)) is not None:
            described["version"] = version
        if found.path is not None:
            described["path"] = found.path
    described["capabilities"] = _capabilities(agent, known)
    if (status := _server_status(agent, sessions)) is not None:
        described["serverStatus"] = status
    if config:
        described.update(_options(agent, asked))
    described["name"] = agent.name
    if agent.description:
        described["description"] = agent.description
    if progress is not None:
        described["installing"] = progress.told()
    if known is not None:
        described["acp"] = {
            name: known[name]
            for name in ("protocolVersion", "agentInfo", "agentCapabilities", "authMethods")
            if name in known
        }
    return described


def _initialize(found: Found, asked: Asked | None) -> Mapping[str, Json] | None:
    """What the agent answered to `initialize`, lately or when it was installed."""
    if asked is not None and asked.greeting is not None:
        return _object(asked.greeting.initialize)
    return None if found.installed is None else _object(found.installed.greeting)


def _version(agent: Agent, found: Found, initialize: Mapping[str, Json] | None) -> str | None:
    if found.installed is not None:
        return found.installed.version
    if agent.id == MOCK:
        return agent.version
    version = _member(_member(initialize, "agentInfo"), "version")
    return version if isinstance(version, str) else None


def _capabilities(agent: Agent, initialize: Mapping[str, Json] | None) -> dict[str, bool]:
    capabilities = {name: name not in agent.lacks for name in CAPABILITIES}
    told = _member(initialize, "agentCapabilities")
    if told is not None:
        prompts = _member(told, "promptCapabilities")
        capabilities["images"] = _member(prompts, "image") is True
        capabilities["fileAttachments"] = _member(prompts, "embeddedContext") is True
        resume = _member(_member(told, "sessionCapabilities"), "resume")
        capabilities["sessionLifecycle"] = _member(told, "loadSession") is True or resume not in (None, False)
    return capabilities


def _server_status(agent: Agent, sessions: Sequence[Session]) -> Description | None:
    own = [session for session in sessions if session.log.row.agent == agent.id]
    if not own:
        return None
    if not any(session.state in ("starting", "ready") for session in own):
        return {"status": "stopped"}
    oldest = min(session.log.row.created_ms for session in own)
    return {"status": "running", "uptimeMs": max(0, int(time.time() * 1000) - oldest)}


def _options(agent: Agent, asked: Asked | None) -> Description:
    """`configOptions` as the agent tells them; those of the catalog where it cannot be asked, and which it was."""
    described: Description = {}
    if asked is not None and asked.greeting is not None and asked.greeting.session is not None:
        described["configOptions"] = _told_options(_object(asked.greeting.session))
        described["configSource"] = "agent"
    elif (static := static_options(agent.id)) is not None:
        described["configOptions"] = static
        described["configSource"] = "catalog"
    if asked is not None and asked.error is not None:
        described["configError"] = asked.error
    return described


def _told_options(session: Mapping[str, Json]) -> list[Json]:
    """The options of a new session; `modes` and `models`, by which some agents tell the same, count as options too."""
    options = _items(session.get("configOptions"))
    categories = [_member(option, "category") for option in options]
    for category, whole, available, current, key in (
        ("model", "models", "availableModels", "currentModelId", "modelId"),
        ("mode", "modes", "availableModes", "currentModeId", "id"),
    ):
        values = _items(_member(session.get(whole), available))
        if category not in categories and values:
            options.append(
                {
                    "category": category,
                    "currentValue": _member(session.get(whole), current),
                    "id": category,
                    "name": category.capitalize(),
                    "options": [{"name": _member(value, "name"), "value": _member(value, key)} for value in values],
                    "type": "select",
                }
            )
    return options


def _object(raw: Raw) -> Mapping[str, Json]:
    try:
        return msgspec.json.decode(raw, type=dict[str, object])
    except (msgspec.MsgspecError, RecursionError):
        return {}


def _items(value: Json) -> list[Json]:
    return [*cast("list[object]", value)] if isinstance(value, list) else []


def _member(whole: Json, name: str) -> Json:
    return cast("dict[str, Json]", whole).get(name) if isinstance(whole, dict) else None
