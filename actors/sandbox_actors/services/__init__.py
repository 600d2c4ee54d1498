"""What the daemon does for agents in the place of their clients."""

from .services import Services

__all__ = ["Services"]
