"""One question of an agent's that a person, or a rule, has to answer: a request for permission, or an elicitation.

Sources: ACP protocol version 1, `session/request_permission` and `elicitation/create`. Options are told apart by their
kind: what their ids are, and in which order and number they come, every agent has in its own way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import msgspec
from msgspec import UNSET, Raw, UnsetType

from ..envelope import Json, as_line
from ..errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..envelope import Head

__all__ = [
    "ELICITATION",
    "PERMISSION",
    "Answer",
    "Kind",
    "OpenPermission",
    "Option",
    "Permission",
    "answer_of",
    "options_of",
]

PERMISSION = "session/request_permission"
ELICITATION = "elicitation/create"

Kind: TypeAlias = Literal["permission", "elicitation"]

ALLOWS = ("allow_once", "allow_always")
REJECTS = ("reject_once", "reject_always")
ALWAYS = {"allow_always": "allow", "reject_always": "deny"}


class Option(msgspec.Struct, frozen=True, rename="camel"):
    """One way to answer. Its kind is one of ACP's four, or whatever the agent says."""

    option_id: str
    name: str = ""
    kind: str = ""


class Permission(msgspec.Struct, rename="camel", omit_defaults=True):
    """See the module.

    Attributes:
      request_id: of the agent's JSON-RPC request.
      session_id: of the ACP session; None for an elicitation that belongs to none.
      tool_call: as the agent tells it; UNSET for an elicitation.
      elicitation: the params of one: `mode`, `message`, `requestedSchema` or `url`; UNSET for a permission.
      expires_ms: when it is settled unless somebody answers; Unix time in milliseconds.
      outcome: None while it is open; then `selected` or `cancelled`, or for an elicitation `accept`, `decline`,
        `cancel`. `failed`: a client answered with an error; `unknown`: with what ACP does not know.
      option_id: which was selected.
      by: who decided.
    """

    id: str
    kind: Kind
    request_id: Raw
    session_id: str | None
    asked_ms: int
    options: tuple[Option, ...] = ()
    tool_call: Raw | UnsetType = UNSET
    elicitation: Raw | UnsetType = UNSET
    expires_ms: int | None = None
    outcome: str | None = None
    option_id: str | None = None
    by: str | None = None
    resolved_ms: int | None = None

    @property
    def size(self) -> int:
        """Bytes that it keeps, about."""
        return sum(len(bytes(raw)) for raw in (self.tool_call, self.elicitation) if isinstance(raw, Raw))

    @property
    def cancelled(self) -> Answer:
        """What settles it when nobody wants the answer any more."""
        return Answer("cancelled" if self.kind == "permission" else "cancel")

    def option(self, id: str) -> Option:
        """An option that is offered. Raises `InvalidRequest` if it is not."""
        for option in self.options:
            if option.option_id == id:
                return option
        offered = ", ".join(repr(option.option_id) for option in self.options) or "none"
        raise InvalidRequest(f"the agent does not offer the option {id!r}; options: {offered}")

    def allowing(self) -> Answer | None:
        """Let it happen, this once if the agent knows the difference; None where there is no such option."""
        return self._first(ALLOWS)

    def denying(self) -> Answer:
        """Do not let it happen."""
        if self.kind == "elicitation":
            return Answer("decline")
        return self._first(REJECTS) or self.cancelled

    def chosen(self, option: str | None, outcome: str | None, content: Raw | None) -> Answer:
        """The answer that a client gives.

        Args:
          option: the id of one that is offered.
          outcome: in its place: `cancelled`, or the kind of an option; for an elicitation its action.
          content: of an elicitation that is accepted.

        Raises:
          InvalidRequest: that is no answer to this.
        """
        if self.kind == "elicitation":
            if option is not None or outcome not in ("accept", "decline", "cancel"):
                raise InvalidRequest("an elicitation is answered with the action accept, decline or cancel")
            return Answer(outcome, content=_content(content, accepted=outcome == "accept"))
        if content is not None or (option is None) == (outcome is None):
            raise InvalidRequest("a permission is answered with one of its options, or with an outcome")
        if option is not None:
            return Answer("selected", self.option(option).option_id)
        if outcome == "cancelled":
            return self.cancelled
        if outcome not in (*ALLOWS, *REJECTS):
            kinds = ", ".join((*ALLOWS, *REJECTS))
            raise InvalidRequest(f"the outcome of a permission is cancelled, or the kind of an option: {kinds}")
        answer = self._first((outcome,))
        if answer is None:
            raise InvalidRequest(f"the agent does not offer an option of the kind {outcome}")
        return answer

    def always(self, answer: Answer) -> str | None:
        """What is to be decided from now on, where the answer says so: `allow` or `deny`."""
        kinds = [option.kind for option in self.options if option.option_id == answer.option_id]
        return ALWAYS.get(kinds[0]) if kinds else None

    def _first(self, kinds: tuple[str, ...]) -> Answer | None:
        for kind in kinds:
            for option in self.options:
                if option.kind == kind:
                    return Answer("selected", option.option_id)
        return None


class OpenPermission(msgspec.Struct):
    """What a later daemon must know of one that was open when this one died."""

    id: str
    kind: Kind
    request_id: Raw
    session_id: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """How a permission is settled. The words are those of `Permission`."""

    outcome: str
    option_id: str | None = None
    content: Raw | None = None

    def envelope(self, permission: Permission) -> bytes:
        """The JSON-RPC response that tells the agent."""
        if permission.kind == "elicitation":
            result: Json = {"action": self.outcome}
            if self.content is not None:
                result["content"] = self.content
        elif self.option_id is not None:
            result = {"outcome": {"outcome": self.outcome, "optionId": self.option_id}}
        else:
            result = {"outcome": {"outcome": self.outcome}}
        # As a line: the content is a client's own text, which may be of several.
        return as_line(msgspec.json.encode({"jsonrpc": "2.0", "id": permission.request_id, "result": result}))


def answer_of(permission: Permission, head: Head) -> Answer:
    """What a JSON-RPC response of a client's means. It has reached the agent as it is, whatever it means."""
    if not isinstance(head.result, Raw):
        return Answer("failed")
    if permission.kind == "elicitation":
        action = head.member("result", "action")
        return Answer(action if isinstance(action, str) else "unknown")
    match head.member("result", "outcome"):
        case {"outcome": "selected", "optionId": str(option)}:
            return Answer("selected", option)
        case {"outcome": "cancelled"}:
            return Answer("cancelled")
        case _:
            return Answer("unknown")


def options_of(told: Json) -> tuple[Option, ...]:
    """The options of a request; what is none is left out."""
    options: list[Option] = []
    for item in cast("Sequence[Json]", told) if isinstance(told, list) else ():
        members = cast("dict[str, Json]", item) if isinstance(item, dict) else {}
        id, name, kind = (members.get(member) for member in ("optionId", "name", "kind"))
        if isinstance(id, str):
            options.append(Option(id, name if isinstance(name, str) else id, kind if isinstance(kind, str) else ""))
    return tuple(options)


def _content(content: Raw | None, *, accepted: bool) -> Raw | None:
    if content is None:
        return None
    if not accepted:
        raise InvalidRequest("only an elicitation that is accepted has content")
    try:
        msgspec.json.decode(content, type=dict[str, Json])
    except (msgspec.MsgspecError, RecursionError):
        raise InvalidRequest("content must be an object, with a member for each field of the form") from None
    return Raw(bytes(content))
