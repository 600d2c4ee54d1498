"""`POST /v1/sessions/{id}/prompt`: a prompt is taken at once; a client may also wait for what becomes of it."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import msgspec
from quart import request

from ..requests import flag
from .answers import PromptView, turn_view
from .bodies import PromptBody, body, idempotency_key
from .exports import said_in
from .owner import generation
from .slowly import Answer, answered

if TYPE_CHECKING:
    from quart import Response

    from sandbox_actors.native_turns import Turn
    from sandbox_actors.session import Session

    from ..streams import Streams
    from .doing import Doing

__all__ = ["prompt_response"]

WAIT = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6})\"?(?=$|[,;\s])", re.IGNORECASE)
"""RFC 7240, section 4.3."""


async def prompt_response(session: Session, doing: Doing, streams: Streams) -> Response:
    """The answer to the present request. `?wait=true` waits for the turn's end, `Prefer: wait=SECONDS` not longer.

    Raises:
      Problem, ActorError: the prompt is not taken.
    """
    asked, key = await body(PromptBody), idempotency_key()
    within = math.inf if flag("wait") else 0.0
    if (preferred := WAIT.search(request.headers.get("Prefer", ""))) is not None:
        within = float(preferred[1])
    turn = await doing.prompt(session, asked.content, key, asked.acp_session_id, generation())

    def taken() -> Answer:
        return Answer(turn_view(turn), 202)

    if not within:
        return taken().response()

    async def ended() -> Answer:
        await turn.ended.wait()
        view = await _told(session, turn)
        await streams.level(session.log)  # whoever has the answer shall have had the updates before it
        return Answer(view)

    return await answered(ended, taken, within)


async def _told(session: Session, turn: Turn) -> PromptView:
    text, truncated = await said_in(session, turn)
    return PromptView(**msgspec.structs.asdict(turn_view(turn)), text=text, text_truncated=truncated)
