"""Who answers at an address: a healthy server of ours, one with another token, somebody else, or nobody."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Health", "look", "url_of"]

Health: TypeAlias = Literal["healthy", "other token", "stranger", "silent", "absent"]

ANSWER_WITHIN = 2.0
"""Seconds: the answer costs the server nothing."""

EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""Addresses to listen on that are none to call."""


def url_of(host: str, port: int) -> str:
    """The URL of a server that listens there."""
    host = EVERYWHERE.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def look(url: str, token: str | None) -> Health:
    """Ask a server for its health."""
    import httpx

    # The server is on this machine: no proxy of the environment is asked.
    headers = {} if token is None else {b"Authorization": b"Bearer " + token.encode("utf-8", "surrogateescape")}
    try:
        answer = httpx.get(f"{url}/v1/health", headers=headers, timeout=ANSWER_WITHIN, trust_env=False)
    except httpx.ConnectError:
        return "absent"
    except httpx.TimeoutException:
        return "silent"
    except httpx.RequestError:
        return "stranger"  # it speaks something else than HTTP
    if answer.is_success and answer.headers.get("content-type", "").startswith("application/json"):
        ours = b'"ok"' in answer.content or b'"awaiting_init"' in answer.content
        return "healthy" if ours else "stranger"
    return "other token" if b"urn:sandbox-agent:error:token_invalid" in answer.content else "stranger"
