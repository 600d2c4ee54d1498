"""`/v1/sessions`: sessions for clients that do not want to speak JSON-RPC. What raw clients opened is here, too."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from quart import Blueprint, Response

from sandbox_actors.messages import CloseSession, Hibernate, Patch, Restart

from ..requests import flag, path_part
from .answers import permission_view, session_view, turn_view
from .bodies import AnswerBody, CancelBody, ForkBody, PatchBody, SessionBody, body, body_if_any, idempotency_key
from .doing import Doing
from .events import events_response
from .exports import UsageBook, transcript_response
from .listing import listed
from .owner import generation
from .prompts import prompt_response
from .selection import select
from .slowly import Answer, answered
from .socket import converse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandbox_actors.files import FileSystem
    from sandbox_actors.journal import Journal
    from sandbox_actors.session import Session
    from sandbox_actors.sessions import Sessions

    from ..streams import Streams
    from .errands import Errands

__all__ = ["session_routes"]


def session_routes(
    sessions: Sessions, journal: Journal, streams: Streams, files: FileSystem, errands: Errands
) -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("sessions", __name__)
    doing = Doing(files)
    usages = UsageBook()

    def found(session_id: str) -> Session:
        return sessions.get(path_part(session_id, "session_id"))

    def shown(session: Session, status: int = 200) -> Answer:
        return Answer(session_view(session, files, journal.epoch), status)

    async def made(make: Callable[[], Awaitable[Session]], key: str | None) -> Response:
        asked_ms = time.time_ns() // 1_000_000
        errand = errands.begin(make)

        async def attempt() -> Answer:
            session = await errand.done.wait()
            row = session.log.row
            # The same key again: it was made before this was asked.
            status = 200 if key is not None and row.created_ms < asked_ms else 201
            location = f"/v1/sessions/{quote(row.id, safe='')}"
            return Answer(session_view(session, files, journal.epoch), status, {"Location": location})

        return await answered(attempt, abandon=errand.cancel)

    @routes.post("/v1/sessions")
    async def create() -> Response:
        asked, key = await body(SessionBody), idempotency_key()
        return await made(partial(sessions.create, asked.id, asked.agent, asked.setup(), key), key)

    @routes.get("/v1/sessions")
    async def list_sessions() -> Response:
        return Answer(listed(sessions.all(), files, journal.epoch)).response()

    @routes.get("/v1/sessions/<session_id>")
    async def get(session_id: str) -> Response:
        return shown(found(session_id)).response()

    @routes.patch("/v1/sessions/<session_id>")
    async def change(session_id: str) -> Response:
        changes = (await body(PatchBody)).changes()
        session = found(session_id)
        await session.fence.ask(Patch(changes), generation())
        return shown(session).response()

    @routes.delete("/v1/sessions/<session_id>")
    async def delete(session_id: str) -> Response:
        session = found(session_id)
        await sessions.delete(session.log.row.id, generation())
        response = Response(b"", 204)
        del response.headers["Content-Type"]
        return response

    # -- what can be done with one

    @routes.post("/v1/sessions/<session_id>/close")
    async def close(session_id: str) -> Response:
        session = found(session_id)
        await session.fence.ask(CloseSession(), generation())
        return shown(session).response()

    @routes.post("/v1/sessions/<session_id>/restart")
    async def restart(session_id: str) -> Response:
        session = found(session_id)
        await session.fence.ask(Restart(), generation())
        return shown(session, 202).response()

    @routes.post("/v1/sessions/<session_id>/hibernate")
    async def hibernate(session_id: str) -> Response:
        session = found(session_id)
        await session.fence.ask(Hibernate(), generation())
        return shown(session, 202).response()

    @routes.post("/v1/sessions/<session_id>/fork")
    async def fork(session_id: str) -> Response:
        id, key = path_part(session_id, "session_id"), idempotency_key()
        asked = await body_if_any(ForkBody)
        return await made(partial(sessions.fork, id, asked.id, asked.changes(), key, generation()), key)

    @routes.post("/v1/sessions/<session_id>/cancel")
    async def cancel(session_id: str) -> Response:
        asked = await body_if_any(CancelBody)
        ids = await doing.cancel(found(session_id), asked.turn_id, generation())
        return Answer({"turnIds": ids}, 202).response()

    # -- turns

    @routes.post("/v1/sessions/<session_id>/prompt")
    async def prompt(session_id: str) -> Response:
        return await prompt_response(found(session_id), doing, streams)

    @routes.get("/v1/sessions/<session_id>/turns")
    async def list_turns(session_id: str) -> Response:
        turns = found(session_id).turns
        return Answer({"turns": [turn_view(turn) for turn in (*turns.recent, *turns.open)]}).response()

    @routes.get("/v1/sessions/<session_id>/turns/<turn_id>")
    async def get_turn(session_id: str, turn_id: str) -> Response:
        return Answer(turn_view(found(session_id).turns.get(path_part(turn_id, "turn_id")))).response()

    # -- permissions

    @routes.get("/v1/sessions/<session_id>/permissions")
    async def list_permissions(session_id: str) -> Response:
        book = found(session_id).permissions
        shown = [*book.settled(), *book.pending()] if flag("all") else book.pending()
        return Answer({"permissions": [permission_view(one) for one in shown]}).response()

    @routes.post("/v1/sessions/<session_id>/permissions/<permission_id>")
    async def answer(session_id: str, permission_id: str) -> Response:
        decided = await body(AnswerBody)
        id = path_part(permission_id, "permission_id")
        settled = await doing.answer(found(session_id), id, decided, generation())
        return Answer(permission_view(settled)).response()

    # -- what was said

    @routes.get("/v1/sessions/<session_id>/events")
    async def events(session_id: str) -> Response:
        return await events_response(found(session_id), streams, journal.epoch)

    @routes.websocket("/v1/sessions/<session_id>/events")
    async def socket(session_id: str) -> Response | None:
        session = sessions.get(path_part(session_id, "session_id"))
        await converse(session, doing, select(session, None), streams, journal.epoch, generation())
        return None

    @routes.get("/v1/sessions/<session_id>/transcript")
    async def transcript(session_id: str) -> Response:
        return transcript_response(found(session_id))

    @routes.get("/v1/sessions/<session_id>/usage")
    async def usage(session_id: str) -> Response:
        return Answer(await usages.view(found(session_id))).response()

    return routes
