"""The tokens: who may come in, under which name, for what, and until when.

Several hold at once, so that one can be replaced while its users still change over. They come from three sides:

    start    the one of `--token`, and those of `POST /v1/init`: they are kept nowhere
    file     those of `--tokens-file`, read again on SIGHUP
    made     those of `POST /v1/tokens`: their digests are kept in the state directory

Nobody here knows a token's text but for the moment in which it is made and told. One that is taken back stays so, also
where the start or the file brings it again.

What was opened with a token ends with it: `lasting` gives the scope in which a stream lives.
"""

from __future__ import annotations

import hmac
import math
import re
import secrets
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

from .problems import HttpError
from .scopes import SCOPES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from .scopes import ScopeName
    from .token_store import TokenStore

__all__ = [
    "ALL_SCOPES",
    "DEFAULT",
    "NAME",
    "BadToken",
    "Grant",
    "NameTaken",
    "NoSuchToken",
    "Source",
    "Token",
    "Tokens",
]

Source: TypeAlias = Literal["start", "file", "made"]
_Changed: TypeAlias = "tuple[tuple[Token, ...], dict[bytes, float]]"

DEFAULT = "default"
"""The name of the token that the daemon is started with."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

PREFIX = "sat_"
"""In front of every token that is made here: programs that look for secrets know it by that."""

ALL_SCOPES: frozenset[ScopeName] = frozenset(SCOPES)


class BadToken(HttpError):
    """What was asked for makes no sense. The message says what to change."""


class NameTaken(HttpError):
    """There is such a token already, or there must be one."""


class NoSuchToken(HttpError):
    """No token has this name."""


@dataclass(frozen=True, slots=True)
class Token:
    """See the module.

    Attributes:
      digest: SHA-256 of its text.
      expires, created: in seconds of Unix time.
    """

    name: str
    digest: bytes
    scopes: frozenset[ScopeName] = ALL_SCOPES
    source: Source = "start"
    expires: float | None = None
    created: float | None = None

    @classmethod
    def of(cls, text: str, name: str = DEFAULT) -> Token:
        """One that holds for ever, and for everything."""
        return cls(name, sha256(text.encode()).digest())


@dataclass(frozen=True, slots=True)
class Grant:
    """What a request came in with.

    Attributes:
      name: of the token; None where there is none to have.
      digest: of the token.
    """

    name: str | None
    scopes: frozenset[ScopeName]
    digest: bytes = b""

    def may(self, needed: frozenset[ScopeName]) -> bool:
        """Whether it is enough for one of these."""
        return not needed.isdisjoint(self.scopes)


ANYBODY = Grant(None, ALL_SCOPES)


class Tokens:
    """See the module.

    Args:
      started: those that the daemon was started with.
      filed: those of the user's file.
      store: keeps what is made and taken back; None: nothing is kept.
      guarded: whether a token is needed at all.

    Attributes:
      guarded: as above.
    """

    def __init__(
        self,
        started: Iterable[Token] = (),
        filed: Iterable[Token] = (),
        store: TokenStore | None = None,
        *,
        guarded: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.guarded = guarded
        self._clock = clock
        self._started = tuple(started)
        self._filed = tuple(filed)
        self._store = store
        kept = None if store is None else store.kept
        self._made: tuple[Token, ...] = () if kept is None else kept.tokens
        self._retired: dict[bytes, float] = {} if kept is None else dict(kept.retired)
        self._known: dict[bytes, Token] = {}
        self._used: dict[bytes, float] = {}
        self._lasting: dict[bytes, set[trio.CancelScope]] = {}
        self._changing = trio.Lock()
        self._gather()

    def grant(self, given: Sequence[bytes]) -> Grant | None:
        """What a request may that came with these texts; None: they are no tokens of ours."""
        if not self.guarded:
            return ANYBODY
        now = self._clock()
        digests = [sha256(text).digest() for text in given]
        found: Token | None = None
        for token in self._known.values():  # all of them, always: the time tells nothing
            for digest in digests:
                if hmac.compare_digest(digest, token.digest) and _holds(token, now):
                    found = found or token
        if found is None:
            return None
        self._used[found.digest] = now
        return _grant(found)

    def find(self, is_it: Callable[[bytes], bool]) -> Grant | None:
        """What the token may whose digest this is true of, if it holds still."""
        if not self.guarded:
            return ANYBODY
        now = self._clock()
        found = (token for token in self._known.values() if is_it(token.digest) and _holds(token, now))
        return next(map(_grant, found), None)

    def knows(self, text: bytes) -> bool:
        """Whether a text is a token of ours, be it one that holds no more."""
        digest = sha256(text).digest()
        return any(hmac.compare_digest(digest, known) for known in self._known)

    def listed(self) -> list[tuple[Token, float | None]]:
        """All that hold, each with the time of its last use in this run."""
        now = self._clock()
        return [(token, self._used.get(token.digest)) for token in self._known.values() if _holds(token, now)]

    async def make(self, name: str, scopes: frozenset[ScopeName], expires_in: float | None) -> tuple[Token, str]:
        """A new token, with its text.

        Raises:
          NameTaken: there is one of that name.
          OSError: it cannot be kept.
        """
        async with self._changing:
            if name == DEFAULT or self._named(name):
                raise NameTaken(f"there is a token {name!r} already: rotate it, or take another name")
            return await self._add(name, scopes, expires_in)

    async def rotate(self, name: str, overlap: float, expires_in: float | None) -> tuple[Token, str]:
        """A new token in the place of one, which holds for `overlap` seconds still.

        Args:
          expires_in: seconds; None: as the one before.

        Raises:
          NoSuchToken: there is none of that name.
          OSError: it cannot be kept.
        """
        async with self._changing:
            olds = self._named(name)
            if not olds:
                raise NoSuchToken(f"there is no token {name!r}")
            newest = olds[-1]
            now = self._clock()
            if expires_in is None and newest.expires is not None:
                expires_in = max(0.0, newest.expires - now)
            return await self._add(name, newest.scopes, expires_in, self._without(olds, now + overlap))

    async def revoke(self, name: str) -> None:
        """Take a token back, at once, also from those who are connected with it.

        Raises:
          NoSuchToken: there is none of that name.
          NameTaken: nobody else could make a new one.
          OSError: it holds no more, but that could not be kept.
        """
        async with self._changing:
            olds = self._named(name)
            if not olds:
                raise NoSuchToken(f"there is no token {name!r}")
            if not any("admin" in token.scopes and token.name != name for token, _ in self.listed()):
                raise NameTaken(f"{name!r} is the last token of scope 'admin': make another one first")
            # At once, and kept after that: a full disk must not keep a door open.
            self._made, self._retired = self._without(olds, self._clock())
            self._gather()
            await self._keep(self._made, self._retired)

    def refile(self, filed: Iterable[Token]) -> None:
        """The user's file says something else now. What was opened with a token that may less now ends."""
        before = self._known
        self._filed = tuple(filed)
        self._gather()
        for digest, scopes in self._lasting.items():
            old, new = before.get(digest), self._known.get(digest)
            if old is not None and new is not None and not old.scopes <= new.scopes:
                for scope in scopes:
                    scope.cancel()

    @contextmanager
    def lasting(self, grant: Grant) -> Generator[trio.CancelScope]:
        """What runs in the block is cancelled as soon as the token holds no more."""
        with trio.CancelScope() as scope:
            if not self.guarded:
                yield scope
                return
            self._lasting.setdefault(grant.digest, set()).add(scope)
            self._bound(grant.digest, scope)
            try:
                yield scope
            finally:
                scopes = self._lasting[grant.digest]
                scopes.remove(scope)
                if not scopes:
                    del self._lasting[grant.digest]

    async def _add(
        self, name: str, scopes: frozenset[ScopeName], expires_in: float | None, others: _Changed | None = None
    ) -> tuple[Token, str]:
        now = self._clock()
        text = PREFIX + secrets.token_urlsafe(32)
        expires = None if expires_in is None else now + expires_in
        token = Token(name, sha256(text.encode()).digest(), scopes, "made", expires, now)
        made, retired = others or (self._made, self._retired)
        made = tuple(old for old in made if _holds(old, now))  # each is compared with what every request brings
        # On disk first: what is told must not be gone after a restart.
        await self._keep((*made, token), retired)
        self._made, self._retired = (*made, token), retired
        self._gather()
        return token, text

    def _without(self, olds: list[Token], end: float) -> _Changed:
        """What is made and what is taken back, once these hold no longer than that."""
        ends = {old.digest: end for old in olds}
        retired = {old.digest: min(end, self._retired.get(old.digest, end)) for old in olds if old.source != "made"}
        return tuple(_until(token, ends.get(token.digest)) for token in self._made), {**self._retired, **retired}

    async def _keep(self, made: tuple[Token, ...], retired: dict[bytes, float]) -> None:
        if self._store is not None:
            now = self._clock()
            await self._store.keep(tuple(token for token in made if _holds(token, now)), retired)

    def _named(self, name: str) -> list[Token]:
        return [token for token, _ in self.listed() if token.name == name]

    def _gather(self) -> None:
        """Put together what holds by now, and cut off whoever came with what does not."""
        known: dict[bytes, Token] = {}
        for token in (*self._started, *self._filed, *self._made):
            if token.digest not in known:
                known[token.digest] = _until(token, self._retired.get(token.digest))
        self._known = known
        self._used = {digest: used for digest, used in self._used.items() if digest in known}
        for digest, scopes in self._lasting.items():
            for scope in scopes:
                self._bound(digest, scope)

    def _bound(self, digest: bytes, scope: trio.CancelScope) -> None:
        token = self._known.get(digest)
        if token is None:
            scope.cancel()
        else:
            ends_in = math.inf if token.expires is None else max(0.0, token.expires - self._clock())
            scope.deadline = trio.current_time() + ends_in


def _grant(token: Token) -> Grant:
    return Grant(token.name, token.scopes, token.digest)


def _holds(token: Token, now: float) -> bool:
    return token.expires is None or now < token.expires


def _until(token: Token, end: float | None) -> Token:
    if end is None or (token.expires is not None and token.expires <= end):
        return token
    return replace(token, expires=end)
