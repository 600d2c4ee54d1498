"""What clients do to a native session, and what befalls it, as values: hypothesis makes lists of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from hypothesis import strategies as st

from sandbox_actors.permissions.policy import PRESETS, Preset

__all__ = ["CLOSING", "OPERATION", "Cancel", "Change", "Decide", "Do", "NextDaemon", "Operation", "Say", "SayRaw"]

ELICITATION = '/ask-client elicitation/create {"mode":"form","message":"Who?","requestedSchema":{"type":"object"}}'
WORDS = (
    "hello",
    "/stream 5",
    "/permission execute: ls",
    "/permission read: a\n/permission execute: b",
    ELICITATION,
    "/hang",
    "/deaf",
    "/stream 3\n/crash 3",
    "/error -32603 no",
)


@dataclass(frozen=True, slots=True)
class Say:
    """A native prompt, perhaps under an idempotency key."""

    words: str
    key: str | None


@dataclass(frozen=True, slots=True)
class SayRaw:
    """A prompt of a client of the raw wire, in the same ACP session."""

    words: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cancel one of the open turns, counted round; None: all."""

    which: int | None


@dataclass(frozen=True, slots=True)
class Decide:
    """Answer the oldest permission that is open; `late`: one that is not open any more."""

    how: Literal["right", "raw", "wrong", "late"]


@dataclass(frozen=True, slots=True)
class Change:
    policy: Preset | None = None
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class Do:
    what: Literal["listen", "kill", "hibernate", "restart", "close"]


@dataclass(frozen=True, slots=True)
class NextDaemon:
    """The daemon is stopped, or killed, and the next one has its journal."""

    killed: bool


Operation: TypeAlias = Say | SayRaw | Cancel | Decide | Change | Do | NextDaemon

LISTEN = Do("listen")

OPERATION: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Say, st.sampled_from(WORDS), st.sampled_from((None, None, "a", "b"))),
    st.builds(Say, st.sampled_from(WORDS), st.none()),
    st.builds(SayRaw, st.sampled_from([words for words in WORDS if words != "/deaf"])),
    st.builds(Cancel, st.none() | st.integers(0, 3)),
    st.builds(Decide, st.sampled_from(("right", "raw", "wrong", "late"))),
    st.builds(Decide, st.sampled_from(("right", "raw"))),
    st.builds(Change, policy=st.sampled_from(PRESETS)),
    st.builds(Change, mode=st.sampled_from(("plan", "normal"))),
    st.just(LISTEN),
    st.just(LISTEN),
    st.just(LISTEN),
    st.just(LISTEN),
    st.builds(Do, st.sampled_from(("kill", "hibernate", "restart"))),
    st.builds(NextDaemon, st.booleans()),
)
CLOSING = st.sampled_from(([], [], [], [Do("close")]))
