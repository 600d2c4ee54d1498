"""Credentials: which providers' API keys and logins this machine has, and what an agent is given of them."""

from .credential import Credential, Credentials, Kind, Secret
from .discovery import discover, home_of
from .providers import PROVIDERS, Provider

__all__ = ["PROVIDERS", "Credential", "Credentials", "Kind", "Provider", "Secret", "discover", "home_of"]
