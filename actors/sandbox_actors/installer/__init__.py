"""The installer: agents are brought into the data directory, once, whole, and as pinned."""

from .progress import Artifact, Outcome, Progress, Step

__all__ = ["Artifact", "Outcome", "Progress", "Step"]
