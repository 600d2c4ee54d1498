"""`/v1/processes`: commands of clients, run to their end or kept, with their input, signals and output."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import msgspec
import trio
from quart import Blueprint, Response, request

from .problems import Problem
from .process_answers import config_members, record_members, result_pieces
from .process_bodies import ConfigBody, CreateBody, InputBody, RunBody, SignalBody, SizeBody, body, number
from .process_logs import log_response
from .requests import path_part

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from sandbox_actors.envelope import Json
    from sandbox_actors.processes import Process, Processes

__all__ = ["process_routes"]

STOP_WITHIN_MS = 2000
"""For how long a stop and a kill wait, where the client does not say."""

BLOCK = 256 << 10
"""Bytes of a long answer that are sent at once: enough to be worth it, and no copy of the whole."""

OWNERS = ("user", "desktop", "system")


def process_routes(processes: Processes) -> Blueprint:
    """The routes of this module."""
    routes = Blueprint("processes", __name__)

    def found(process_id: str) -> Process:
        return processes.get(path_part(process_id, "id"))

    @routes.get("/v1/processes/config")
    async def get_config() -> Response:
        return _json(config_members(processes.config))

    @routes.post("/v1/processes/config")
    async def set_config() -> Response:
        processes.config = (await body(ConfigBody)).config(processes.config)
        return _json(config_members(processes.config))

    @routes.post("/v1/processes/run")
    async def run() -> Response:
        asked = await body(RunBody)
        spec, limit = asked.spec(), processes.config.max_output_bytes
        result = await processes.run(
            spec,
            timeout=processes.config.run_seconds(asked.timeout_ms),
            limit=limit if asked.max_output_bytes is None else min(asked.max_output_bytes, limit),
        )
        return _in_pieces(result_pieces(result, spec.limits))

    @routes.post("/v1/processes")
    async def create() -> Response:
        return _json(record_members(await processes.create((await body(CreateBody)).spec())))

    @routes.get("/v1/processes")
    async def list_processes() -> Response:
        owner = request.args.get("owner", "user")
        if owner not in OWNERS:
            raise Problem("invalid_request", f"unknown owner {owner!r}, expected one of {', '.join(OWNERS)}")
        shown = processes.all() if owner == "user" else []
        return _json({"processes": [record_members(process) for process in shown]})

    @routes.get("/v1/processes/<process_id>")
    async def get(process_id: str) -> Response:
        return _json(record_members(found(process_id)))

    @routes.delete("/v1/processes/<process_id>")
    async def delete(process_id: str) -> Response:
        processes.delete(path_part(process_id, "id"))
        response = Response(b"", 204)
        del response.headers["Content-Type"]
        return response

    async def ended(process_id: str, by: int) -> Response:
        within, kill_after = number("waitMs"), number("killAfterMs")
        process = found(process_id)
        await process.stop(
            by,
            (STOP_WITHIN_MS if within is None else within) / 1000,
            None if kill_after is None else kill_after / 1000,
        )
        return _json(record_members(process))

    @routes.post("/v1/processes/<process_id>/stop")
    async def stop(process_id: str) -> Response:
        return await ended(process_id, signal.SIGTERM)

    @routes.post("/v1/processes/<process_id>/kill")
    async def kill(process_id: str) -> Response:
        return await ended(process_id, signal.SIGKILL)

    @routes.post("/v1/processes/<process_id>/signal")
    async def send_signal(process_id: str) -> Response:
        chosen = (await body(SignalBody)).decided()
        process = found(process_id)
        await process.signal(chosen)
        return _json(record_members(process))

    @routes.get("/v1/processes/<process_id>/logs")
    async def logs(process_id: str) -> Response:
        return log_response(found(process_id))

    @routes.post("/v1/processes/<process_id>/input")
    async def give_input(process_id: str) -> Response:
        asked = await body(InputBody)
        data, largest = asked.decided(), processes.config.max_input_bytes_per_request
        if len(data or b"") > largest:
            message = f"input payload exceeds maxInputBytesPerRequest ({largest})"
            raise Problem("invalid_request", message, status=413, title="Payload Too Large")
        process = found(process_id)
        if data is not None:
            await process.write(data)
        if asked.eof:
            await process.end_input()
        return _json({"bytesWritten": len(data or b"")})

    @routes.post("/v1/processes/<process_id>/terminal/resize")
    async def resize(process_id: str) -> Response:
        asked = await body(SizeBody)
        size = asked.decided()
        await found(process_id).resize(size)
        return _json({"cols": size.cols, "rows": size.rows})

    return routes


def _json(document: Json) -> Response:
    return Response(msgspec.json.encode(document), content_type="application/json")


def _in_pieces(pieces: Sequence[bytes | memoryview]) -> Response:
    """A JSON document in pieces."""
    length = sum(map(len, pieces))
    if length <= BLOCK:
        return Response(b"".join(pieces), content_type="application/json")
    response = Response(_blocks(pieces), content_type="application/json")
    response.headers["Content-Length"] = str(length)
    return response


async def _blocks(pieces: Sequence[bytes | memoryview]) -> AsyncIterator[bytes]:
    block: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        block.append(piece)
        size += len(piece)
        if size >= BLOCK:
            yield b"".join(block)
            block, size = [], 0
            # Hypercorn's send returns without a checkpoint once the peer is gone.
            await trio.lowlevel.checkpoint()
    yield b"".join(block)
