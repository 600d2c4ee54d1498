"""A daemon that is called over HTTP, as the commands of `sandbox-agent api` do."""

from __future__ import annotations

import ipaddress
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from .options import Failure, env

if TYPE_CHECKING:
    from collections.abc import Generator

    import httpx

__all__ = ["calling", "endpoint_option", "is_loopback"]

CONNECT_WITHIN = 10.0
"""Seconds. How long an answer may take is another matter: a prompt may run for hours."""


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _endpoint(_context: click.Context, _parameter: click.Parameter, given: str) -> str:
    wrong = click.BadParameter("give the server's URL, such as http://127.0.0.1:2468")
    try:
        parts = urlsplit(given)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:
            raise wrong
    except ValueError:  # a port or an IPv6 address that is none
        raise wrong from None
    if parts.username is not None or parts.password is not None:
        raise click.BadParameter("no user name or password here: give the token by SANDBOX_AGENT_TOKEN")
    return parts._replace(query="", fragment="").geturl().rstrip("/")


endpoint_option = click.option(
    "-e", "--endpoint", default="http://127.0.0.1:2468", show_default=True, callback=_endpoint, **env("ENDPOINT"),
    help="URL of the server.",
)  # fmt: skip


@contextmanager
def calling(endpoint: str, token: str | None, *, silence: float | None = None) -> Generator[httpx.Client]:
    """A client of the daemon; what goes wrong on the way to it is told in a sentence.

    Args:
      silence: seconds without a byte after which the daemon is taken for dead; None: it may think for ever.

    Raises:
      Failure: the daemon cannot be reached, or the connection broke.
    """
    import httpx

    if token is not None and (not token.isprintable() or token.split() != [token]):
        raise Failure("the token cannot be sent in a header: it is empty, or has blanks or control characters")
    headers = {} if token is None else {b"Authorization": b"Bearer " + token.encode("utf-8", "surrogateescape")}
    # A proxy of the environment is for the network outside. It must not see what is said on this machine.
    proxies = not is_loopback(urlsplit(endpoint).hostname or "")
    try:
        with httpx.Client(
            base_url=endpoint,
            headers=headers,
            timeout=httpx.Timeout(silence, connect=CONNECT_WITHIN),
            trust_env=proxies,
        ) as client:
            yield client
    except httpx.ConnectTimeout:
        raise Failure(f"cannot reach {endpoint}: no answer within {CONNECT_WITHIN:g} seconds") from None
    except httpx.ConnectError as error:
        hint = "" if proxies else "; is the server running? 'sandbox-agent daemon start' starts one"
        raise Failure(f"cannot reach {endpoint}: {_reason(error)}{hint}") from None
    except httpx.TimeoutException:
        raise Failure(f"{endpoint} has gone silent") from None
    except httpx.RequestError as error:
        raise Failure(f"the connection to {endpoint} broke: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    text = str(error)
    # "[Errno 111] Connection refused": the number says nothing to a person.
    return text.partition("] ")[2] if text.startswith("[Errno") else text or type(error).__name__
