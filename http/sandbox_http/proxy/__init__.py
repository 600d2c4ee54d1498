"""The way through to what listens in the sandbox: HTTP and WebSocket, to loopback and nowhere else."""

from .layer import Proxy, is_proxied

__all__ = ["Proxy", "is_proxied"]
