"""Sandboxes that are pods of a Kubernetes cluster."""

from __future__ import annotations

from .provider import KubernetesProvider

__all__ = ["KubernetesProvider"]
