"""Sandboxes that are containers of a Docker engine."""

from __future__ import annotations

from .provider import DockerProvider

__all__ = ["DockerProvider"]
