"""Answers that may take minutes: an agent is installed, or works.

Clients give up after 300 s without a head, proxies after 30 to 60 s without a byte. So what takes long gets its head
with the status of a success and, from then on, blanks: JSON may begin with blanks. From there on a refusal cannot have
a status of its own any more: the body is `{"error": problem}`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import trio
from quart import Response

from sandbox_actors.errors import as_refusal
from sandbox_supervisor import ActorError

from ..exchange import BLANK_EVERY, HEAD_WITHIN
from ..problems import of_refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

__all__ = ["Answer", "Attempt", "answered"]

Attempt: TypeAlias = "Callable[[], Awaitable[Answer]]"


@dataclass(frozen=True, slots=True)
class Answer:
    """What there is to tell. Status and headers are of use only while the head has not been sent."""

    document: object
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def body(self) -> bytes:
        return msgspec.json.encode(self.document)

    def response(self) -> Response:
        response = Response(self.body, self.status, content_type="application/json")
        response.headers.update(self.headers)
        return response


def _nothing() -> None:
    pass


async def answered(
    attempt: Attempt,
    late: Callable[[], Answer] | None = None,
    within: float = math.inf,
    abandon: Callable[[], None] = _nothing,
) -> Response:
    """The response, at once or in the end.

    Args:
      attempt: waits for what it takes, and may be cancelled there and made again.
      late: the response where it takes longer than `within` seconds.
      abandon: called when nobody waits any more, also where there was an answer.

    Raises:
      ActorError: a refusal that came in time to be told by its status.
    """
    deadline = trio.current_time() + within
    try:
        with trio.move_on_at(min(deadline, trio.current_time() + HEAD_WITHIN)):
            return (await attempt()).response()
    except BaseException:
        abandon()
        raise
    if late is not None and trio.current_time() >= deadline:
        return late().response()
    response = Response(_slowly(attempt, late, deadline, abandon), content_type="application/json")
    response.timeout = None
    return response


async def _slowly(
    attempt: Attempt, late: Callable[[], Answer] | None, deadline: float, abandon: Callable[[], None]
) -> AsyncIterator[bytes]:
    answer: Answer | None = None
    try:
        while answer is None:
            yield b" "
            with trio.move_on_at(min(deadline, trio.current_time() + BLANK_EVERY)):
                answer = await attempt()
            if answer is None and late is not None and trio.current_time() >= deadline:
                answer = late()
        yield answer.body
    except ActorError as error:
        yield b'{"error":%b}' % of_refusal(as_refusal(error)).body
    finally:
        abandon()
