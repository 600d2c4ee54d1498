"""One credential that was found, and all of them in the order in which they count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

__all__ = ["Credential", "Credentials", "Kind", "Secret"]

Kind: TypeAlias = Literal["api_key", "oauth"]

SHOWN_FROM = 20
"""Characters from which a secret may show its ends: eight of fewer would be too much of it."""


class Secret:
    """A text that shows itself only to who asks for it by name: never in a log, a traceback or a format string."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    @property
    def redacted(self) -> str:
        """Enough to tell two of them apart, on one line: `abcd...wxyz`, or `****` for a short one."""
        if len(self._value) < SHOWN_FROM:
            return "****"
        ends = f"{self._value[:4]}...{self._value[-4:]}"
        return "".join(character if character.isprintable() else "?" for character in ends)

    def __repr__(self) -> str:
        return "Secret(****)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str:
        raise TypeError("a secret is not written anywhere")


@dataclass(frozen=True, slots=True)
class Credential:
    """What lets an agent use a provider.

    Attributes:
      source: who keeps it: `environment`, or the program whose login it is.
      where: the variable's name, or the file's path.
      expires: None where it does not, or does not say.
      refreshable: whether its owner can renew it without a person.
    """

    provider: str
    kind: Kind
    source: str
    where: str
    secret: Secret
    expires: datetime | None = None
    refreshable: bool = False

    def expired(self, now: datetime) -> bool:
        return self.expires is not None and self.expires <= now


@dataclass(frozen=True, slots=True)
class Credentials:
    """All that count, the first of each provider before its others.

    Attributes:
      problems: what was there and could not be used, each a sentence without secrets.
    """

    all: tuple[Credential, ...] = ()
    problems: tuple[str, ...] = ()

    def find(self, provider: str) -> Credential | None:
        """The one that an agent of this provider should use."""
        return next((credential for credential in self.all if credential.provider == provider), None)

    def available(self, providers: Sequence[str]) -> bool:
        """Whether an agent that works with any one of these providers can; an agent that needs none always can."""
        return not providers or any(self.find(provider) is not None for provider in providers)

    @property
    def providers(self) -> list[str]:
        """Those that something was found for, in order."""
        return list(dict.fromkeys(credential.provider for credential in self.all))
