"""The events of a session as they come, over as many connections as it takes: none is lost, none comes twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .errors import SandboxAgentError, SessionDeleted
from .events import event_of, gap_of
from .following import Following

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .events import Event, Gap
    from .transport import Params, Transport

__all__ = ["EventStream"]

EPOCH = "Sandbox-Agent-Epoch"
"""The header that names the journal, from which the numbers are."""


class EventStream:
    """See the module. Use it as an async context manager, and iterate over it in one task.

    The stream holds a number, no queue: who reads slowly loses nothing.

    Args:
      path: of the session's events.
      after: the number of the last event that was seen.
      epoch: of the journal that it is of; None: of the one there is.
      follow: whether to go on with what comes, behind what there is.

    Attributes:
      seq: everything up to here was told, or looked at; None before the first frame of a stream from the oldest on.
      epoch: of the journal that `seq` is of. Keep both to go on later.

    Raises:
      SessionDeleted: it was deleted, this was all.
      SessionNotFound: there is none.
      SandboxAgentError: as `Following`.
    """

    def __init__(
        self,
        transport: Transport,
        path: str,
        after: int | None = None,
        *,
        epoch: str | None = None,
        kinds: Sequence[str] = (),
        turn: str | None = None,
        follow: bool = True,
    ) -> None:
        self.seq = after
        self.epoch = epoch
        self._path = path
        self._query: Params = {"kind": list(kinds), "turn": turn, "follow": None if follow else False}
        self._following = Following(transport, self._where)
        self._endless = follow
        self._ended = False

    async def __aenter__(self) -> EventStream:
        await self._following.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._following.__aexit__(*exc_info)

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event | Gap:
        while not self._ended:
            frame = await anext(self._following)
            if self.epoch is None:
                self.epoch = self._following.headers.get(EPOCH)
            text = frame.data.encode()
            match frame.event:
                case "event":
                    event = event_of(text)
                    self.seq = event.seq
                    return event
                case "gap":
                    gap = gap_of(text)
                    self.seq, self.epoch = gap.next - 1, gap.epoch or self.epoch
                    return gap
                case "heartbeat":
                    self.seq = _seq_of(text)
                case "replay_complete":
                    self.seq = _seq_of(text)
                    self._ended = not self._endless
                case "deleted":
                    raise SessionDeleted(404, {"detail": "the session was deleted"})
                case _:  # `stopping`: what comes next is the end of this connection
                    pass
        raise StopAsyncIteration

    def _where(self) -> tuple[str, Params]:
        return self._path, {**self._query, "after": self.seq, "epoch": self.epoch}


class _Heartbeat(msgspec.Struct):
    seq: int


def _seq_of(text: bytes) -> int:
    try:
        return msgspec.json.decode(text, type=_Heartbeat).seq
    except msgspec.MsgspecError as error:
        raise SandboxAgentError(f"the event stream has a frame that makes no sense: {error}") from None
