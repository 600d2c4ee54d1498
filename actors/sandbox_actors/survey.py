"""What is known of each agent: from the catalog, from its install, and from what the agent says of itself.

An agent that is installed can be asked for the modes and models that it has today. That costs a process and seconds, so
the answer is kept until the agent changes; whoever asks meanwhile waits for the same answer.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, cast

import msgspec
import trio

from sandbox_supervisor import Cookie

from .catalog.catalog import MOCK
from .catalog.config_options import static_options
from .credentials import discover, home_of
from .errors import ShuttingDown
from .installer import is_installed
from .probe import Greeting, ProbeFailed, probe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from msgspec import Raw

    from sandbox_supervisor import Reaper

    from .catalog import Agent, Catalog
    from .credentials import Credentials
    from .envelope import Json
    from .installer import Installer
    from .session import Session

__all__ = ["Survey"]

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

PROBE_WITHIN = 60.0
"""Seconds for `initialize` and `session/new`: the slowest real agent took 6 together, and 30 beside many others."""

FAILURE_KEPT = 60.0
"""Seconds for which a failure is told again without asking: by then somebody may have logged in."""

PROBES_AT_ONCE = 2
"""Agents that are asked at the same time: each is a process of some hundred megabytes."""

Description: TypeAlias = "dict[str, Json]"

Fingerprint: TypeAlias = "tuple[str | int, ...]"


@dataclass(slots=True)
class _Asked:
    """What came of asking an agent once."""

    of: Fingerprint
    greeting: Greeting | None
    error: str | None
    at: float = field(default_factory=trio.current_time)

    def holds(self, fingerprint: Fingerprint) -> bool:
        return self.of == fingerprint and (self.error is None or trio.current_time() < self.at + FAILURE_KEPT)


@dataclass(slots=True, eq=False)
class Survey:
    """See the module.

    Attributes:
      owner, run: of the cookie that a probe's process carries.
    """

    catalog: Catalog
    installer: Installer
    owner: str
    run: str
    reaper: Reaper | None = None
    _asked: dict[str, _Asked] = field(default_factory=dict[str, _Asked])
    _asking: dict[str, trio.Lock] = field(default_factory=dict[str, trio.Lock])
    _limit: trio.CapacityLimiter = field(default_factory=lambda: trio.CapacityLimiter(PROBES_AT_ONCE))
    _probes: int = 0
    _describing: set[trio.CancelScope] = field(default_factory=set[trio.CancelScope])
    _closed: bool = False

    async def describe(
        self, ids: Sequence[str], sessions: Sequence[Session], *, config: bool = False, fresh: bool = False
    ) -> list[Description]:
        """Describe agents, in the shape of the public wire's `AgentInfo` and with some members more.

        Args:
          sessions: all of the daemon's, to tell which agents run.
          config: whether to tell version, path and options; agents that are installed are asked for these.
          fresh: ask also those that were asked before.

        Raises:
          UnsupportedAgent: an id is unknown.
          ShuttingDown: the survey was closed before all agents had answered.
        """
        agents = [self.catalog.agent(id) for id in ids]
        credentials = await trio.to_thread.run_sync(self._credentials)
        descriptions: dict[str, Description] = {}

        async def describe(agent: Agent) -> None:
            descriptions[agent.id] = await self._describe(agent, credentials, sessions, config=config, fresh=fresh)

        with trio.CancelScope() as scope:
            self._describing.add(scope)
            try:
                if self._closed:
                    scope.cancel()
                async with trio.open_nursery() as nursery:
                    for agent in agents:
                        nursery.start_soon(describe, agent)
            finally:
                self._describing.discard(scope)
        if scope.cancelled_caught:
            raise ShuttingDown
        return [descriptions[agent.id] for agent in agents]

    def close(self) -> None:
        """Ask no more agents: whoever waits for one is told at once."""
        self._closed = True
        for scope in self._describing:
            scope.cancel()

    def _credentials(self) -> Credentials:
        return discover(home_of(self.catalog.environment), self.catalog.environment)

    async def _describe(
        self, agent: Agent, credentials: Credentials, sessions: Sequence[Session], *, config: bool, fresh: bool
    ) -> Description:
        argv = self.catalog.command(agent.id) if is_installed(self.catalog, agent.id) else None
        asked = self._asked.get(agent.id)
        if config and argv is not None:
            asked = await self._ask(agent, argv, fresh=fresh)
        known = self._initialize(agent, asked)
        described: Description = {
            "id": agent.id,
            "installed": argv is not None,
            "credentialsAvailable": credentials.available(agent.credentials),
        }
        if config and argv is not None:
            if (version := self._version(agent, known)) is not None:
                described["version"] = version
            if (path := self._path(agent, argv)) is not None:
                described["path"] = path
        described["capabilities"] = _capabilities(agent, known)
        if (status := _server_status(agent, sessions)) is not None:
            described["serverStatus"] = status
        if config:
            described.update(_options(agent, asked))
        described["name"] = agent.name
        if agent.description:
            described["description"] = agent.description
        if (progress := self.installer.progress(agent.id)) is not None:
            described["installing"] = progress.told()
        if known is not None:
            described["acp"] = {
                name: known[name]
                for name in ("protocolVersion", "agentInfo", "agentCapabilities", "authMethods")
                if name in known
            }
        return described

    # -- asking

    async def _ask(self, agent: Agent, argv: Sequence[str], *, fresh: bool) -> _Asked:
        fingerprint = _fingerprint(argv)
        before = self._asked.get(agent.id)
        async with self._asking.setdefault(agent.id, trio.Lock()):
            now = self._asked.get(agent.id)
            if now is not None and now.holds(fingerprint) and (not fresh or now is not before):
                return now
            async with self._limit:
                self._asked[agent.id] = now = await self._probe(agent, fingerprint)
            return now

    async def _probe(self, agent: Agent, fingerprint: Fingerprint) -> _Asked:
        self._probes += 1
        cookie = Cookie(self.owner, self.run, f"probe/{self._probes}/{agent.id}")
        launch = self.catalog.launch(agent.id)
        folder = await trio.to_thread.run_sync(lambda: tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        try:
            greeting = await probe(
                launch, cookie=cookie, reaper=self.reaper, cwd=folder.name, session=True, within=PROBE_WITHIN
            )
        except ProbeFailed as failure:
            told = ": ".join([str(failure), *failure.stderr[-1:]])
            return _Asked(fingerprint, None, self.catalog.redactor().redact(told, cut=True))
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(folder.cleanup)
        refusal = greeting.refusal  # such as "invalid API key", with the key
        return _Asked(fingerprint, greeting, None if refusal is None else self.catalog.redactor().redact(refusal))

    def _initialize(self, agent: Agent, asked: _Asked | None) -> Mapping[str, Json] | None:
        """What the agent answered to `initialize`, lately or when it was installed."""
        greeting: Raw | None = None
        if asked is not None and asked.greeting is not None:
            greeting = asked.greeting.initialize
        elif (installed := self.installer.installed(agent.id)) is not None:
            greeting = installed.greeting
        return None if greeting is None else _object(greeting)

    def _version(self, agent: Agent, initialize: Mapping[str, Json] | None) -> str | None:
        if (installed := self.installer.installed(agent.id)) is not None:
            return installed.version
        if agent.id == MOCK:
            return agent.version
        version = _member(_member(initialize, "agentInfo"), "version")
        return version if isinstance(version, str) else None

    def _path(self, agent: Agent, argv: Sequence[str]) -> str | None:
        installed = self.installer.installed(agent.id)
        if installed is not None:
            return installed.native or installed.program
        program = agent.native.program if agent.native is not None else argv[0]
        return shutil.which(program, path=self.catalog.environment.get("PATH")) or argv[0]


def _fingerprint(argv: Sequence[str]) -> Fingerprint:
    try:
        status = os.stat(argv[0])
    except OSError:
        return tuple(argv)
    return (*argv, status.st_mtime_ns, status.st_size, status.st_ino)


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


def _options(agent: Agent, asked: _Asked | None) -> Description:
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
