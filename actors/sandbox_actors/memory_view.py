"""What can be shown of a session beside its events: what its agent says of itself and of the ACP sessions in it.

Values are the agent's own JSON. Nothing in here is secret: what a client gave with the session is not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from msgspec import Raw, UnsetType

    from .acp_session import AcpSession
    from .memory import Memory

__all__ = ["AcpSessionView", "MemoryView"]


@dataclass(frozen=True, slots=True)
class AcpSessionView:
    """One ACP session.

    Attributes:
      id: as clients know it.
      cwd: the JSON text of what it was opened with.
      modes, models, config_options: as the agent told them last; UNSET where it has told none.
      mode, model: what is set, where anybody knows.
      config: the current values of the config options.
    """

    id: str
    cwd: Raw | None
    modes: Raw | UnsetType
    models: Raw | UnsetType
    config_options: Raw | UnsetType
    mode: str | None
    model: str | None
    config: Mapping[str, str | bool]

    @classmethod
    def of(cls, id: str, known: AcpSession) -> AcpSessionView:
        told = known.told
        options = {one.id: one.current_value for one in told.options if one.current_value is not None}
        by_category = {one.category: one.current_value for one in reversed(told.options)}
        mode, model = by_category.get("mode"), by_category.get("model")
        return cls(
            id,
            known.params.get("cwd"),
            told.modes,
            told.models,
            told.config_options,
            told.mode or (mode if isinstance(mode, str) else None) or known.mode,
            told.model or (model if isinstance(model, str) else None) or known.model,
            {**known.config, **options},
        )


@dataclass(frozen=True, slots=True)
class MemoryView:
    """See the module.

    Attributes:
      main: the ACP session that prompts go to.
      sessions: oldest first.
      agent: members of the agent's last answer to `initialize`: `agentCapabilities`, `agentInfo`, `authMethods`.
    """

    main: str | None
    sessions: tuple[AcpSessionView, ...]
    agent: Mapping[str, Raw]

    @classmethod
    def of(cls, memory: Memory) -> MemoryView:
        sessions = tuple(AcpSessionView.of(id, known) for id, known in memory.sessions.items())
        return cls(memory.target, sessions, memory.agent)

    @property
    def target(self) -> AcpSessionView | None:
        """The ACP session that prompts go to."""
        return next((session for session in self.sessions if session.id == self.main), None)
