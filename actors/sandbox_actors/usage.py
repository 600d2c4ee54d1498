"""What a session has used: tokens and money, by turn and in all, as its agents tell it.

Agents tell it in more than one way, and many not at all. Tokens of a turn are those that the answer to its prompt has
(`usage`; or what some put into `_meta`), else the sum of what came beside the turn's messages. Money and the state of
the context window come as updates; there the money is that of the whole ACP session so far, so what a turn cost is the
difference. Source: ACP, Session Usage.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from .envelope import Json, id_text, members_of
from .journal import Origin
from .kinds import glance, kind_of
from .moments import told
from .turn_spans import PROMPT, TurnSpans

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .journal import Event
    from .turn_spans import Span

__all__ = ["Context", "Tokens", "TurnUsage", "Usage", "UsageTotal"]

K = TypeVar("K")
V = TypeVar("V")

TURNS_KEPT = 1000
"""The newest turns that are told one by one. The total has all of them."""

SESSIONS_KEPT = 256
"""ACP sessions whose last update is known."""

MOST = 2**53
"""A count above this is no count, and no JavaScript reads it."""


class Tokens(msgspec.Struct, rename="camel", omit_defaults=True):
    """Counts of tokens; those that nobody tells are absent."""

    input: int = 0
    output: int = 0
    cached_read: int = 0
    cached_write: int = 0
    thought: int = 0
    total: int = 0

    def add(self, other: Tokens) -> None:
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class TurnUsage(msgspec.Struct, rename="camel", omit_defaults=True):
    """One turn.

    Attributes:
      seq: of the event it began with.
      cost: by currency.
    """

    seq: int
    at: str
    turn_id: str | None = None
    session_id: str | None = None
    tokens: Tokens | UnsetType = UNSET
    cost: dict[str, float] = {}


class Context(msgspec.Struct, rename="camel"):
    """How full the context window of an ACP session is, by its last update."""

    session_id: str | None
    used: int
    size: int


class UsageTotal(msgspec.Struct, rename="camel", omit_defaults=True):
    turns: int = 0
    tokens: Tokens | UnsetType = UNSET
    cost: dict[str, float] = {}


_WAYS: Mapping[str, tuple[str, ...]] = {
    "input": ("inputTokens", "input_tokens", "promptTokens", "prompt_tokens"),
    "output": ("outputTokens", "output_tokens", "completionTokens", "completion_tokens"),
    "cached_read": ("cachedReadTokens", "cached_read_tokens", "cacheReadInputTokens", "cache_read_input_tokens"),
    "cached_write": (
        "cachedWriteTokens",
        "cached_write_tokens",
        "cacheCreationInputTokens",
        "cache_creation_input_tokens",
    ),
    "thought": ("thoughtTokens", "thought_tokens", "reasoningTokens", "reasoning_tokens"),
    "total": ("totalTokens", "total_tokens"),
}
"""How agents name the counts: ACP, and the model providers whose answers some hand on."""


class Usage:
    """A fold over the events of a session.

    Attributes:
      seq: the last event that was taken in.
      complete: whether no event was missing.
    """

    def __init__(self) -> None:
        self.seq = 0
        self.complete = True
        self.total = UsageTotal()
        self._spans = TurnSpans()
        self._turns: OrderedDict[int, TurnUsage] = OrderedDict()
        self._open: dict[Span, TurnUsage] = {}
        self._cost: dict[tuple[str | None, str], float] = {}
        self._context: dict[str | None, Context] = {}

    @property
    def turns(self) -> list[TurnUsage]:
        """The newest ones, oldest first."""
        return list(self._turns.values())

    @property
    def context(self) -> list[Context]:
        return list(self._context.values())

    def gap(self, last: int) -> None:
        """Events are missing, up to this one."""
        self.seq = max(self.seq, last)
        self.complete = False
        self._spans = TurnSpans()
        self._open.clear()

    def add(self, event: Event) -> None:
        """Take in the next event."""
        self.seq = event.seq
        seen = glance(event.envelope)
        span = self._spans.of(event, seen)
        kind = kind_of(event.origin, seen)
        if kind == PROMPT and span is not None and event.origin is not Origin.AGENT:
            self._begin(event, span)
        turn = None if span is None else self._open.get(span)
        if turn is not None and turn.turn_id is None and span is not None:
            turn.turn_id = span.turn_id
        if kind == "usage_update":
            self._update(_update_of(event), seen.session_id, turn)
        elif seen.update and turn is not None and b'"_meta"' in event.envelope:
            self._beside(event, turn)
        elif kind == "turn.ended" and span is not None:
            self._open.pop(span, None)
        elif not seen.method and span is not None and isinstance(seen.id, Raw) and span.request_id == id_text(seen.id):
            self._answered(event, span)

    def _begin(self, event: Event, span: Span) -> None:
        turn = TurnUsage(event.seq, told(event.at_ms), span.turn_id, span.session_id)
        self._open[span] = turn
        self._turns[event.seq] = turn
        self.total.turns += 1
        while len(self._turns) > TURNS_KEPT:
            self._turns.popitem(last=False)

    def _answered(self, event: Event, span: Span) -> None:
        turn = self._open.pop(span, None)
        if turn is None:
            return
        result = members_of(members_of(Raw(event.envelope)).get("result"))
        tokens = _tokens(result.get("usage")) or _found(members_of(result.get("_meta")))
        if tokens is not None:
            turn.tokens = tokens
        if isinstance(turn.tokens, Tokens):
            if self.total.tokens is UNSET:
                self.total.tokens = Tokens()
            self.total.tokens.add(turn.tokens)

    def _beside(self, event: Event, turn: TurnUsage) -> None:
        """What comes with a message or a thought: what this piece of the turn has used."""
        if (tokens := _found(members_of(_update_of(event).get("_meta")))) is not None:
            if turn.tokens is UNSET:
                turn.tokens = Tokens()
            turn.tokens.add(tokens)

    def _update(self, update: dict[str, Raw], session: str | None, turn: TurnUsage | None) -> None:
        used, size = _count(update.get("used")), _count(update.get("size"))
        if used is not None and size is not None:
            _keep(self._context, session, Context(session, used, size))
        cost = members_of(update.get("cost"))
        amount, currency = _value(cost.get("amount")), _value(cost.get("currency"))
        if not isinstance(amount, int | float) or isinstance(amount, bool) or not 0 <= amount < MOST:
            return
        name = currency if isinstance(currency, str) and 0 < len(currency) <= 8 else "USD"
        before = self._cost.get((session, name), 0.0)
        # An agent that was started anew may count from nothing again.
        spent = amount - before if amount >= before else amount
        _keep(self._cost, (session, name), amount)
        places: list[UsageTotal | TurnUsage] = [self.total] if turn is None else [self.total, turn]
        for place in places:
            place.cost = {**place.cost, name: round(place.cost.get(name, 0.0) + spent, 9)}


def _update_of(event: Event) -> dict[str, Raw]:
    return members_of(members_of(members_of(Raw(event.envelope)).get("params")).get("update"))


def _keep(known: dict[K, V], key: K, value: V) -> None:
    known[key] = value
    while len(known) > SESSIONS_KEPT:
        del known[next(iter(known))]


def _tokens(raw: Raw | None) -> Tokens | None:
    members = members_of(raw)
    counts = {name: _first(members, ways) for name, ways in _WAYS.items()}
    given = {name: count for name, count in counts.items() if count is not None}
    if not given:
        return None
    tokens = Tokens(**given)
    tokens.total = tokens.total or sum(getattr(tokens, name) for name in _WAYS if name not in ("total", "thought"))
    return tokens


def _found(meta: dict[str, Raw]) -> Tokens | None:
    """The counts that agents put into `_meta`: as `usage`, or as the `token_count` of a `quota`."""
    return _tokens(meta.get("usage")) or _tokens(members_of(meta.get("quota")).get("token_count"))


def _first(members: dict[str, Raw], names: tuple[str, ...]) -> int | None:
    return next((count for name in names if (count := _count(members.get(name))) is not None), None)


def _count(raw: Raw | None) -> int | None:
    value = _value(raw)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MOST else None


def _value(raw: Raw | None) -> Json:
    try:
        return None if raw is None else msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError):
        return None
