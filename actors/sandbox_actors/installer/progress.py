"""What an install tells while it is under way, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

__all__ = ["Artifact", "Outcome", "Progress", "Step"]

Step: TypeAlias = Literal["waiting", "checking", "downloading", "unpacking", "installing", "finishing", "verifying"]
"""waiting: another process installs the same agent. checking: what it needs. downloading, unpacking: an archive.
installing: npm, uv or pip is at work. finishing: the agent's own step afterwards. verifying: its first `initialize`."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Where an install is.

    Attributes:
      message: a few words for a person, such as the package that is installed.
      bytes: what was downloaded in this step, or lies in the install's directory by now.
      total_bytes: what there will be, where that is known.
    """

    agent: str
    step: Step
    message: str = ""
    bytes: int = 0
    total_bytes: int | None = None

    def told(self) -> dict[str, str | int | None]:
        """As it is told on the wire."""
        return {
            "agent": self.agent,
            "step": self.step,
            "message": self.message,
            "bytes": self.bytes,
            "totalBytes": self.total_bytes,
        }


@dataclass(frozen=True, slots=True)
class Artifact:
    """One thing that an install has made (wire of 0.4, `POST /v1/agents/{id}/install`)."""

    kind: Literal["native_agent", "agent_process"]
    path: str
    source: Literal["registry", "fallback", "local_path", "builtin"]
    version: str | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an install ended.

    Attributes:
      already_installed: there was nothing to do, and so there are no artifacts.
    """

    already_installed: bool
    artifacts: tuple[Artifact, ...] = ()
