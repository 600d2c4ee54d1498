"""What a provider is: the thing that makes a sandbox and boots the server in it.

A provider of your own is a class with four methods:

    class Mine(Provider):
        name = "mine"

        async def create(self, token: str) -> str: ...          # a sandbox with the server in it, gives its id
        async def endpoint(self, sandbox_id: str) -> Endpoint: ...
        async def ensure_server(self, sandbox_id: str) -> None: ...
        async def destroy(self, sandbox_id: str) -> None: ...

`sandbox_agent.providers.conformance` tells whether it keeps to what is said here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import urlsplit

from ..errors import UnsupportedByProvider

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Mapping

__all__ = ["Endpoint", "Provider"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a sandbox's server is reached.

    Attributes:
      url: without a slash at its end.
      token: of the server; None where the provider does not know it (the application has to).
      headers: further ones that every request needs, say those of a router.
      token_header: `Authorization` (as a bearer token), or another one where something in between strips that.
      tls: what to trust, where it is not what the machine trusts.

    Raises:
      ValueError: the URL is none of HTTP; the token or a header cannot be sent.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    token_header: str = "Authorization"
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.url:
            _check_url(self.url)
        # What cannot be sent would be told by those who cannot send it, in words that have the secret.
        for name, value in {**self.headers, self.token_header: self.token or ""}.items():
            if not is_sendable(value):
                said = "has a line break, a blank around it, or what is no ASCII character"
                raise ValueError(f"the value for the header {name} {said}")


def is_sendable(value: str) -> bool:
    """Whether it can be the value of a header."""
    return value.isascii() and value.isprintable() and value == value.strip()


def _check_url(url: str) -> None:
    if not url.lower().startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no URL of a server: it begins with http:// or https://")
    try:
        there = urlsplit(url)
        _ = there.port  # looked at when it is asked for
    except ValueError as error:
        raise ValueError(f"{url!r} is no URL of a server: {error}") from None
    if not (there.hostname and url.isprintable()):
        raise ValueError(f"{url!r} is no URL of a server: it names no host, or has a character that nobody sees")


class Provider(ABC):
    """Makes sandboxes, and looks after the server in them. One object may look after many.

    A sandbox id is the provider's own, without its name. All methods may be called again, and from several tasks.
    What goes wrong is a `ProviderError` in the provider's words, without a secret; no other error gets out but
    cancellation. Whatever a cancelled or failed `create` has made is destroyed again.
    """

    name: ClassVar[str]
    """The first part of `SandboxAgent.id`: lower case, no slash."""

    default_cwd: str | None = None
    """Where sessions work that name no directory; None: the server's home directory."""

    @abstractmethod
    async def create(self, token: str) -> str:
        """Make a sandbox whose server takes this token, and boot it; gives the sandbox's id.

        The token gets there by a file or the environment, never by a command line. The server need not answer yet.
        """

    @abstractmethod
    async def endpoint(self, sandbox_id: str) -> Endpoint:
        """Where the server is. Addresses may change: it is asked again after each recovery.

        Raises:
          SandboxDestroyed: there is no such sandbox any more.
        """

    @abstractmethod
    async def ensure_server(self, sandbox_id: str) -> None:
        """See to it that a server runs in the sandbox: the one that is there, if it answers, else a new one.

        Idempotent; returns once it is started. The new one has the old one's port, token and state.

        Raises:
          SandboxDestroyed: there is no such sandbox any more.
        """

    @abstractmethod
    async def destroy(self, sandbox_id: str) -> None:
        """End the sandbox, with all that is in it. One that is gone already is no error."""

    async def reconnect(self, sandbox_id: str) -> None:
        """Get a sandbox ready that was made earlier: wake it if it is paused, boot its server if it does not run.

        Raises:
          SandboxDestroyed: there is no such sandbox any more.
        """
        await self.ensure_server(sandbox_id)

    async def pause(self, sandbox_id: str) -> None:
        """Put the sandbox to rest, so that `reconnect` brings it back with its files."""
        raise UnsupportedByProvider(f"{self.name} cannot pause a sandbox: destroy it, or leave it running")

    async def kill(self, sandbox_id: str) -> None:
        """End the sandbox at once, without regard to what runs in it."""
        await self.destroy(sandbox_id)

    @asynccontextmanager
    async def reach(self, sandbox_id: str) -> AsyncGenerator[Endpoint]:
        """The endpoint, for as long as the block runs: for those that hold a connection open, as a port forward."""
        yield await self.endpoint(sandbox_id)
