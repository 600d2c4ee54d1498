"""What a process is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from sandbox_supervisor import Request

if TYPE_CHECKING:
    from .terminal import Size

__all__ = ["EndInput", "Message", "Resize", "Signal", "Write"]


@dataclass(frozen=True, slots=True)
class Write(Request[None]):
    """Input; answered when it is taken over whole."""

    data: bytes


@dataclass(frozen=True, slots=True)
class EndInput(Request[None]):
    """No more input follows."""


@dataclass(frozen=True, slots=True)
class Resize(Request[None]):
    """Its terminal has another size."""

    size: Size


@dataclass(frozen=True, slots=True)
class Signal(Request[None]):
    """A signal.

    Attributes:
      last: whether it is meant to be its end: then the whole tree gets it, and it is not started again. Otherwise the
        job in the foreground of its terminal gets it, or the group of the first process.
    """

    number: int
    last: bool = False


Message: TypeAlias = Write | EndInput | Resize | Signal
