"""Providers: where a sandbox comes from. What each needs is imported with it, and not before.

from sandbox_agent.providers import DockerProvider, LocalProvider
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .boot import Install, Pip, Preinstalled, Server, Wheel
from .machine import Machine, Ran
from .provider import Endpoint, Provider

if TYPE_CHECKING:
    from .cloudflare import CloudflareProvider
    from .daytona import DaytonaProvider
    from .docker import DockerProvider
    from .e2b import E2BProvider
    from .kubernetes import KubernetesProvider
    from .local import LocalProvider
    from .modal import ModalProvider
    from .vercel import VercelProvider

__all__ = [
    "CloudflareProvider",
    "DaytonaProvider",
    "DockerProvider",
    "E2BProvider",
    "Endpoint",
    "Install",
    "KubernetesProvider",
    "LocalProvider",
    "Machine",
    "ModalProvider",
    "Pip",
    "Preinstalled",
    "Provider",
    "Ran",
    "Server",
    "VercelProvider",
    "Wheel",
]

_MODULES = {
    "CloudflareProvider": "cloudflare",
    "DaytonaProvider": "daytona",
    "DockerProvider": "docker",
    "E2BProvider": "e2b",
    "KubernetesProvider": "kubernetes",
    "LocalProvider": "local",
    "ModalProvider": "modal",
    "VercelProvider": "vercel",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
