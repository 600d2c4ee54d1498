"""`/v1/agents`: which agents there are, what each can do, and how one is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import trio
from quart import Blueprint, Response, request

from sandbox_actors.errors import as_refusal
from sandbox_supervisor import ActorError

from .problems import Problem, of_refusal
from .requests import accepts, flag, path_part, require_json
from .streams import HEARTBEAT, HEARTBEAT_COMMENT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sandbox_actors.description import Description
    from sandbox_actors.envelope import Json
    from sandbox_actors.installer import Installer, Outcome, Progress
    from sandbox_actors.sessions import Sessions
    from sandbox_actors.survey import Survey
    from sandbox_supervisor import Reply

    from .streams import Streams

__all__ = ["InstallBody", "agent_routes"]


class InstallBody(msgspec.Struct, rename="camel"):
    """The body of an install request."""

    reinstall: bool | None = None
    agent_version: str | None = None
    agent_process_version: str | None = None


def agent_routes(survey: Survey, installer: Installer, sessions: Sessions, streams: Streams) -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("agents", __name__)

    async def described(ids: list[str]) -> list[Description]:
        return await survey.describe(ids, sessions.all(), config=flag("config"), fresh=flag("no_cache"))

    def resolved(agent: str) -> str:
        return survey.catalog.resolve(path_part(agent, "agent"))

    @routes.get("/v1/agents")
    async def list_agents() -> Response:
        return _json({"agents": await described(survey.catalog.known())})

    @routes.get("/v1/agents/<agent>")
    async def get_agent(agent: str) -> Response:
        (description,) = await described([resolved(agent)])
        return _json(description)

    @routes.post("/v1/agents/<agent>/install")
    async def install(agent: str) -> Response:
        require_json()
        wanted = _wanted(bytes(await request.body))
        id = resolved(agent)
        outcome = installer.begin(
            id,
            reinstall=wanted.reinstall or False,
            agent_version=wanted.agent_version,
            process_version=wanted.agent_process_version,
        )
        if "text/event-stream" in request.headers.get("Accept", ""):
            return _stream(_install_events(installer, id, outcome, streams))
        return _json(_told(await outcome.wait()))

    @routes.get("/v1/agents/<agent>/install")
    async def progress(agent: str) -> Response:
        id = resolved(agent)
        if not accepts("text/event-stream"):
            raise Problem("not_acceptable", "accept must allow text/event-stream")
        return _stream(_install_events(installer, id, installer.under_way(id), streams))

    return routes


def _wanted(body: bytes) -> InstallBody:
    try:
        return msgspec.json.decode(body, type=InstallBody)
    except msgspec.ValidationError as error:
        raise Problem("invalid_request", str(error), status=422) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem("invalid_request", f"the body is not JSON: {error}; send {{}} for the defaults") from None


async def _install_events(
    installer: Installer, id: str, outcome: Reply[Outcome] | None, streams: Streams
) -> AsyncIterator[bytes]:
    """An install as it goes: `progress` events, and at last `installed` or `failed`; `idle` where none is under way.

    Only the latest progress is told: a reader that lags misses steps, and holds up nothing.
    """
    yield HEARTBEAT_COMMENT
    told: Progress | None = None
    while outcome is not None and not outcome.settled and not streams.draining:
        progress = installer.progress(id)
        if progress is not None and progress != told:
            told = progress
            yield _event("progress", progress.told())
        else:
            with trio.move_on_after(HEARTBEAT) as silence:
                await installer.changed(id)
            if silence.cancelled_caught:
                yield HEARTBEAT_COMMENT
    if outcome is None:
        yield _event("idle", {"agent": id})
    elif outcome.settled:
        try:
            yield _event("installed", _told(await outcome.wait()))
        except ActorError as error:
            yield _event("failed", of_refusal(as_refusal(error)).members)


def _told(outcome: Outcome) -> dict[str, Json]:
    return {
        "already_installed": outcome.already_installed,
        "artifacts": [msgspec.to_builtins(artifact) for artifact in outcome.artifacts],
    }


def _event(name: str, data: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


def _json(document: Json) -> Response:
    return Response(msgspec.json.encode(document), content_type="application/json")


def _stream(events: AsyncIterator[bytes]) -> Response:
    response = Response(events, content_type="text/event-stream")
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"
    response.timeout = None
    return response
