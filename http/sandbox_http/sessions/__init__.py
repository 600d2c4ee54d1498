"""Sessions over HTTP: the native API."""

from .errands import Errands, open_errands
from .routes import session_routes

__all__ = ["Errands", "open_errands", "session_routes"]
