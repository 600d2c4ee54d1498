"""The installer: agents are brought into the data directory, once, whole, and as pinned."""

from .installer import Installer, open_installer
from .job import is_installed
from .place import Installed
from .progress import Artifact, Outcome, Progress, Step

__all__ = ["Artifact", "Installed", "Installer", "Outcome", "Progress", "Step", "is_installed", "open_installer"]
