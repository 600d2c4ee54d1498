"""Whatever a client sends, it is told what was wrong, and the daemon neither falls nor keeps anything of it.

Requests are made up by hypothesis for every route of the application, routes added later included. What is no HTTP at
all is listed by hand in `support.hostile`.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.hostile import (
    ACCEPTS,
    BODIES,
    EVENT_IDS,
    HOSTS,
    MALFORMED,
    METHODS,
    ORIGINS,
    PARAMETERS,
    QUERIES,
    TARGETS,
    TYPES,
)
from support.serving import TOKEN, Local, Resources, Route, routes, serving
from support.wire import Answer, Closed, WebSocket, exchange, exchange_bytes

if TYPE_CHECKING:
    from pathlib import Path

MAX_BODY = 4096

FUZZ = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # to shrink hundreds of requests would take hours
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
"""Each example is a daemon of its own and many requests at once; the same ones in every run."""

TOKENS = [f"Bearer {TOKEN}"] * 6
TOKENS += ["", "Bearer", f"bearer {TOKEN}", f"Bearer  {TOKEN}", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xff"]

Headers: TypeAlias = dict[str, str]


@dataclass(frozen=True)
class Sent:
    """What a client sends. `frames` is for a WebSocket, `body` for everything else."""

    route: Route | None
    method: str
    target: str
    headers: Headers
    body: bytes = b""
    chunk: int = 0
    frames: list[str | bytes] = field(default_factory=list)

    @property
    def may_enter(self) -> bool:
        """Whether the guard has to let it in: token and origin are right."""
        return self.headers.get("Authorization") == f"Bearer {TOKEN}" and self.headers.get("Origin") in (
            None,
            f"http://{self.headers.get('Host', '127.0.0.1')}",
        )

    @property
    def may_succeed(self) -> bool:
        """Whether a status below 400 may be the answer."""
        if self.method == "OPTIONS":
            return "Origin" not in self.headers or self.headers["Origin"] == "http://127.0.0.1"
        if self.route is None or not (self.may_enter or self.target.partition("?")[0] == "/"):
            return False
        if self.route.websocket:
            return True
        if self.method.upper() not in self.route.methods or len(self.body) > MAX_BODY:
            return False
        if self.method.upper() != "POST":
            return True
        return self.headers.get("Content-Type", "").partition(";")[0] == "application/json" and b"{" in self.body


def some(values: list[str]) -> st.SearchStrategy[str | None]:
    """Mostly nothing, else one of the values."""
    return st.none() | st.none() | st.sampled_from(values)


@st.composite
def sent(draw: st.DrawFn, every: list[Route]) -> Sent:
    """Some request to some route, with about two things wrong."""
    route = draw(st.none() | st.sampled_from(every) | st.sampled_from(every) | st.sampled_from(every))
    if route is None:
        target = draw(st.sampled_from(TARGETS) | st.text(max_size=20).map(lambda text: "/x" + quote(text)))
    else:
        target = route.path(draw(st.sampled_from(PARAMETERS) | st.binary(max_size=20).map(quote)).strip("/") or "x")
    if query := draw(st.sampled_from(QUERIES)):
        target += "?" + query
    headers = {"Authorization": draw(st.sampled_from(TOKENS))}
    wanted = {"Accept": ACCEPTS, "Last-Event-ID": EVENT_IDS, "Origin": ORIGINS, "Host": HOSTS}
    for name, values in wanted.items():
        if (value := draw(some(values))) is not None:
            headers[name] = value
    headers["Content-Type"] = draw(st.just("application/json") | st.sampled_from(TYPES))
    if route is not None and route.websocket:
        frames: list[str | bytes] = draw(
            st.lists(
                st.sampled_from(BODIES).map(lambda body: body.decode(errors="replace"))
                | st.text(max_size=40)
                | st.binary(max_size=40),
                max_size=4,
            )
        )
        return Sent(route, "GET", target, headers, frames=frames)
    methods = METHODS if route is None else [*route.methods * 4, *METHODS]
    return Sent(
        route,
        draw(st.sampled_from(methods)),
        target,
        headers,
        draw(st.sampled_from(BODIES) | st.binary(max_size=100)),
        draw(st.sampled_from([0, 0, 1000])),
    )


def judge(request: Sent, answer: Answer) -> None:
    """Fails unless this is a fair answer."""
    if answer.status < 400:
        assert request.may_succeed
    elif request.method.upper() == "HEAD":
        assert answer.status < 500
        assert answer.body == b""
    else:
        assert answer.status < 500
        assert answer.problem


async def send(daemon: Local, request: Sent, judged: list[str]) -> None:
    if request.route is not None and request.route.websocket:
        await converse(daemon, request)
    else:
        answer = await exchange(
            daemon.port, request.method, request.target, request.headers, request.body, chunk=request.chunk
        )
        judge(request, answer)
    judged.append(request.target)


async def converse(daemon: Local, request: Sent) -> None:
    """Shake hands, say all, and hear an answer to each frame that is no envelope."""
    with trio.fail_after(10):
        async with WebSocket.open(daemon.port, request.target, request.headers) as socket:
            if socket.refusal is not None:
                judge(request, socket.refusal)
                return
            assert request.may_succeed
            for frame in request.frames:
                try:
                    await socket.send(frame)
                except trio.BrokenResourceError:  # an earlier one was binary
                    break
            fatal = [code for frame in request.frames if (code := _closes(frame)) is not None]
            if fatal:
                # Several, or more behind the one: the connection may be reset before the reason has been read.
                assert (await socket.end()).code in {*fatal, 1006 if len(request.frames) > 1 else fatal[0]}
            elif broken := sum(not _is_object(str(frame)) for frame in request.frames):
                for _ in range(broken):
                    error = (await socket.until(id=None))["error"]
                    assert error["code"] == -32700


def _closes(frame: str | bytes) -> int | None:
    """The code that a frame closes the socket with; None for one that does not."""
    if isinstance(frame, bytes):
        return 1003
    return 1009 if len(frame.encode()) > MAX_BODY else None


def _is_object(text: str) -> bool:
    """Whether the server has to take it for an envelope; the lists above hold nothing that opinions differ on."""
    try:
        return isinstance(json.loads(text, parse_constant=float.fromhex), dict) and "\n" not in text.strip()
    except (ValueError, RecursionError):
        return False


async def delete_all(daemon: Local) -> None:
    """Delete every session: what is left then belongs to no client any more."""
    listed = await exchange(daemon.port, "GET", "/v1/acp", daemon.headers)
    for server in listed.json["servers"]:
        answer = await exchange(
            daemon.port, "DELETE", "/v1/acp/" + quote(server["serverId"], safe=""), daemon.headers, within=15
        )
        assert answer.status == 204


async def warm_up(daemon: Local) -> None:
    """Have everything open that stays open, such as the journal's second file."""
    envelope = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":1}}'
    headers = {**daemon.headers, "Content-Type": "application/json"}
    answer = await exchange(daemon.port, "POST", "/v1/acp/s?agent=mock", headers, envelope)
    assert answer.status == 200
    await exchange(daemon.port, "GET", "/v1/acp/s", daemon.headers)
    await delete_all(daemon)


@FUZZ
@given(data=st.data())
async def test_bad_requests_are_answered_with_problems_and_leave_nothing_behind(
    tmp_path: Path, data: st.DataObject
) -> None:
    every = routes(tmp_path)
    requests = data.draw(st.lists(sent(every), min_size=30, max_size=90))
    judged: list[str] = []
    async with serving(tmp_path / secrets.token_hex(4), token=TOKEN, max_body=MAX_BODY, request_timeout=1) as daemon:
        await warm_up(daemon)
        before = Resources.now()
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                for request in requests:
                    nursery.start_soon(send, daemon, request, judged)
            await delete_all(daemon)
            assert (await exchange(daemon.port, "GET", "/v1/ready", daemon.headers)).status == 200
        await before.back()
    assert len(judged) == len(requests)


async def test_no_body_ends_the_session_that_it_was_sent_to(tmp_path: Path) -> None:
    envelope = b'{"jsonrpc":"2.0","id":"well","method":"initialize","params":{"protocolVersion":1}}'
    async with serving(tmp_path, max_body=MAX_BODY, request_timeout=0.5) as daemon:
        headers = {"Content-Type": "application/json"}
        for body in [envelope, *BODIES]:
            for data in (body, envelope):
                answer = await exchange(daemon.port, "POST", "/v1/acp/s?agent=mock", headers, data)
                assert answer.status in ((200, 202) if data == envelope else (200, 202, 400, 413)), body
            assert answer.json["result"]["protocolVersion"] == 1, body


@FUZZ
@given(data=st.data())
async def test_frames_that_are_no_frames_end_the_socket_alone(tmp_path: Path, data: st.DataObject) -> None:
    noise = data.draw(st.lists(st.binary(min_size=1, max_size=60), min_size=5, max_size=15))

    async def shout(daemon: Local, bytes_: bytes) -> None:
        with trio.fail_after(10):
            async with WebSocket.open(daemon.port, "/v1/acp/s?agent=mock", daemon.headers) as socket:
                await socket.send_raw(bytes_ + b"\x88\x80\0\0\0\0" * 30)
                assert isinstance(await socket.end(), Closed)

    async with serving(tmp_path / secrets.token_hex(4), token=TOKEN, max_body=MAX_BODY, request_timeout=1) as daemon:
        await warm_up(daemon)
        before = Resources.now()
        async with trio.open_nursery() as nursery:
            for bytes_ in noise:
                nursery.start_soon(shout, daemon, bytes_)
        await delete_all(daemon)
        await before.back()


async def test_what_is_no_http_is_refused_or_hung_up_on_and_leaves_nothing_behind(tmp_path: Path) -> None:
    failures: dict[str, object] = {}

    async def send_malformed(daemon: Local, name: str, data: bytes, allowed: tuple[int | None, ...]) -> None:
        try:
            answer = await exchange_bytes(daemon.port, data)
        except trio.TooSlowError:
            failures[name] = "no answer"
            return
        if (None if answer is None else answer.status) not in allowed:
            failures[name] = answer

    async with serving(tmp_path) as daemon:
        await warm_up(daemon)
        before = Resources.now()
        async with trio.open_nursery() as nursery:
            for name, (data, allowed) in MALFORMED.items():
                nursery.start_soon(send_malformed, daemon, name, data, allowed)
        assert failures == {}
        assert (await exchange(daemon.port, "GET", "/v1/ready")).status == 200
        await delete_all(daemon)
        await before.back()


async def test_a_body_is_taken_up_to_the_limit_and_not_a_byte_further(tmp_path: Path) -> None:
    start = b'{"jsonrpc":"2.0","id":1,"method":"x","params":"'
    headers = {"Content-Type": "application/json"}
    async with serving(tmp_path, max_body=MAX_BODY) as daemon:
        for size, status in ((MAX_BODY, 200), (MAX_BODY + 1, 413)):
            body = start + b"x" * (size - len(start) - 2) + b'"}'
            for chunk in (0, 100):
                ask = partial(exchange, daemon.port, "POST", "/v1/acp/s?agent=mock", headers, body, chunk=chunk)
                assert (await ask()).status == status
