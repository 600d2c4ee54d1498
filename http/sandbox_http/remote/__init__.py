"""`/acp`: the Agent Client Protocol's own remote transport, so that any of its clients connects unchanged."""

from .connections import Connections, open_connections
from .routes import remote_routes

__all__ = ["Connections", "open_connections", "remote_routes"]
