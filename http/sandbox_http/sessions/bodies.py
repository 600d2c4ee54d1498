"""What clients send to the native API, as it stands on the wire, and what the domain makes of it."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType
from quart import request

from sandbox_actors.envelope import as_line
from sandbox_actors.errors import InvalidRequest
from sandbox_actors.native import Changes, Setup
from sandbox_actors.permissions.policy import Policy, Preset, policy_of

from ..problems import Problem
from ..requests import require_json

__all__ = [
    "AnswerBody",
    "CancelBody",
    "ForkBody",
    "PatchBody",
    "PromptBody",
    "SessionBody",
    "body",
    "body_if_any",
    "idempotency_key",
]

T = TypeVar("T")

Milliseconds = Annotated[int, Meta(ge=0, le=10 * 365 * 86_400_000)]
QueueLimit = Annotated[int, Meta(ge=0, le=1000)]
Id = Annotated[str, Meta(min_length=1, max_length=256)]
Short = Annotated[str, Meta(max_length=1024)]
Path = Annotated[str, Meta(min_length=1, max_length=4095)]
Tags = Annotated[dict[Annotated[str, Meta(min_length=1, max_length=128)], Short], Meta(max_length=64)]
Config = Annotated[dict[Id, Short | bool], Meta(max_length=128)]
Environment = Annotated[dict[str, str], Meta(max_length=1024)]

LONGEST_KEY = 256
Key = Annotated[str, Meta(min_length=1, max_length=LONGEST_KEY)]


class _Terms(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """What can be said when a session is made, and later."""

    mode: Id | UnsetType | None = UNSET
    model: Id | UnsetType | None = UNSET
    config: Config | UnsetType = UNSET
    permission_policy: Preset | Policy | UnsetType = UNSET
    title: Short | UnsetType | None = UNSET
    tags: Tags | UnsetType = UNSET
    idle_limit_ms: Milliseconds | UnsetType | None = UNSET
    turn_deadline_ms: Milliseconds | UnsetType | None = UNSET
    queue_limit: QueueLimit | UnsetType | None = UNSET


class SessionBody(_Terms, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/sessions`."""

    agent: Id
    id: Id | None = None
    cwd: Path | None = None
    mcp_servers: list[Raw] | UnsetType = UNSET
    env: Environment = {}
    resume: Id | None = None

    def setup(self) -> Setup:
        """Raises `InvalidRequest` if it makes no sense."""
        servers = self.mcp_servers
        if servers is not UNSET:
            if any(bytes(server)[:1] != b"{" for server in servers):
                raise InvalidRequest("mcpServers: expected a list of objects, as ACP has them")
            servers = [Raw(bytes(server)) for server in servers]
        return Setup(
            native=True,
            cwd=self.cwd,
            mcp_servers=servers,
            env=self.env,
            mode=self.mode or None,
            model=self.model or None,
            config=self.config or {},
            policy=Policy() if self.permission_policy is UNSET else policy_of(self.permission_policy),
            title=self.title or None,
            tags=self.tags or {},
            idle_limit=None if self.idle_limit_ms is UNSET else _seconds(self.idle_limit_ms),
            turn_deadline=None if self.turn_deadline_ms is UNSET else _seconds(self.turn_deadline_ms),
            queue_limit=None if self.queue_limit is UNSET else self.queue_limit,
            resume=self.resume,
        )


class PatchBody(_Terms, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """`PATCH /v1/sessions/{id}`: what is not named stays as it is."""

    def changes(self) -> Changes:
        """Raises `InvalidRequest` if it makes no sense."""
        if self.mode is None or self.model is None:
            raise InvalidRequest("mode and model can be changed, not taken back")
        policy, idle, deadline = self.permission_policy, self.idle_limit_ms, self.turn_deadline_ms
        return Changes(
            mode=self.mode,
            model=self.model,
            config=self.config,
            policy=UNSET if policy is UNSET else policy_of(policy),
            title=self.title,
            tags=self.tags,
            idle_limit=UNSET if idle is UNSET else _seconds(idle),
            turn_deadline=UNSET if deadline is UNSET else _seconds(deadline),
            queue_limit=self.queue_limit,
        )


class ForkBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True, kw_only=True):
    """`POST /v1/sessions/{id}/fork`: what is not named is as in the session that is forked."""

    id: Id | None = None
    mode: Id | UnsetType = UNSET
    model: Id | UnsetType = UNSET
    config: Config | UnsetType = UNSET
    title: Short | UnsetType | None = UNSET
    tags: Tags | UnsetType = UNSET

    def changes(self) -> Changes:
        return Changes(mode=self.mode, model=self.model, config=self.config, title=self.title, tags=self.tags)


class PromptBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """`POST /v1/sessions/{id}/prompt`. `content` is a text, or content blocks."""

    content: Raw
    acp_session_id: Id | None = None


class CancelBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """`POST /v1/sessions/{id}/cancel`. Without a turn it is the running one and all that wait."""

    turn_id: Id | None = None


class AnswerBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """How a permission, or an elicitation, is answered: `optionId`, or `outcome`, or `action` with `content`."""

    option_id: str | None = None
    outcome: str | None = None
    action: str | None = None
    content: Raw | UnsetType = UNSET

    def decided(self) -> tuple[str | None, str | None, Raw | None]:
        """The option, the outcome and the content. Raises `InvalidRequest` if it is not one answer."""
        if sum(part is not None for part in (self.option_id, self.outcome, self.action)) != 1:
            raise InvalidRequest("expected one of optionId, outcome and action")
        content = None if self.content is UNSET or bytes(self.content) == b"null" else Raw(bytes(self.content))
        return self.option_id, self.outcome or self.action, content


async def body(shape: type[T]) -> T:
    """The body of the request.

    Raises:
      Problem: it is no JSON, or not of this shape.
    """
    require_json()
    return _decoded(bytes(await request.body), shape)


async def body_if_any(shape: type[T]) -> T:
    """The body of a request that need not have one: an empty one says nothing. Raises as `body`."""
    given = bytes(await request.body)
    if given.strip():
        require_json()
    return _decoded(given if given.strip() else b"{}", shape)


def _decoded(text: bytes, shape: type[T]) -> T:
    try:
        # What is Raw in it goes on as it stands: to the agent and into the journal, where a line feed would end it.
        return msgspec.json.decode(as_line(text), type=shape)
    except msgspec.ValidationError as error:
        raise Problem("invalid_request", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("invalid_request", f"the body is not JSON: {error}") from None


def idempotency_key() -> str | None:
    """The key of the present request, under which it is done once.

    Raises:
      Problem: it is too long to be kept, or empty.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not 0 < len(key) <= LONGEST_KEY:
        raise Problem("invalid_request", f"Idempotency-Key must have between 1 and {LONGEST_KEY} characters")
    return key


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
