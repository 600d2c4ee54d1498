"""What a request that has failed is raised as: by what the answer says, or by how the connection broke."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, cast

import httpx
import msgspec

from .errors import ConnectionFailed, RequestTimeout, Unavailable, UnsupportedByServer, api_error

if TYPE_CHECKING:
    from .errors import ApiError, SandboxAgentError

__all__ = ["BROKEN", "UNSENT", "failure_of", "problem_in", "raise_for_status"]

BROKEN = (httpx.TransportError, httpx.DecodingError)
"""There was no answer, or none that can be read."""

UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
"""There was no connection on which a request could have gone."""

UNANSWERED = frozenset({502, 504})
"""With these statuses a gateway says that it passed the request on, or tried to, and got no answer."""

UNKNOWN_ROUTE = "urn:sandbox-agent:error:invalid_request"
"""With status 404: the public wire answers so where it has no such route."""


def raise_for_status(response: httpx.Response) -> None:
    """Raise what an answer that is no success says."""
    if response.is_success:
        return
    problem = _object(response.content)
    asked = f"{response.request.method} {response.url.path}"
    if response.status_code == 404 and problem.get("type") == UNKNOWN_ROUTE:
        there = (
            "sandbox.acp() is there" if response.url.path.startswith("/v1/sessions") else "this package's server has it"
        )
        raise UnsupportedByServer(f"the server at {response.url.netloc.decode()} has no {asked}; {there}")
    if not problem:
        problem = {"detail": f"{asked}: {response.status_code} {response.text[:200]}".rstrip()}
    raise api_error(response.status_code, problem, _retry_after(response.headers))


def problem_in(content: bytes) -> ApiError | None:
    """The refusal in an answer whose head was sent before the server knew; None: there is none."""
    problem = _object(content).get("error")
    if not isinstance(problem, dict) or "type" not in problem:
        return None
    told = cast("dict[str, Any]", problem)
    status = told.get("status")
    return api_error(status if isinstance(status, int) else 500, told)


def failure_of(error: Exception, url: str, *, twice: bool) -> SandboxAgentError:
    """The error of ours. `twice`: it does no harm to ask again, so nobody need know whether it has happened."""
    if isinstance(error, Unavailable):
        if twice or error.type or error.status not in UNANSWERED:
            return error
        return ConnectionFailed(f"{error}; it may have happened")
    said = str(error) or type(error).__name__
    doubt = "" if twice or isinstance(error, UNSENT) else "; it may have happened"
    if isinstance(error, httpx.TimeoutException):
        return RequestTimeout(f"{url} has gone silent ({type(error).__name__}){doubt}")
    return ConnectionFailed(f"the connection to {url} failed: {said}{doubt}")


def _object(content: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(content)
    except ValueError:
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds. Our server says those; gateways may say a date, by their own clock."""
    said = headers.get("Retry-After", "")
    try:
        seconds = float(said)
    except ValueError:
        if (then := _date(said)) is None:
            return None
        return max(0.0, (then - (_date(headers.get("Date", "")) or datetime.now(UTC))).total_seconds())
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _date(said: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(said)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
