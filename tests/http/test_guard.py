"""Who may come in: Host, Origin and token, for every route there is, by HTTP and by WebSocket."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
import trio

from sandbox_http.config import BadConfig, Config, Cors
from support.serving import TOKEN, Local, routes, serving
from support.wire import Answer, WebSocket, exchange

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SAFE_HOSTS = [
    "localhost",
    "LocalHost",
    "localhost:2468",
    "localhost.",
    "app.localhost:80",
    "127.0.0.1",
    "127.0.0.1:65535",
    "127.0.0.1.",
    "127.9.9.9",
    "[::1]",
    "[::1]:2468",
    "[0:0:0:0:0:0:0:1]",
    "192.168.1.7:2468",
    "sandbox",
    "sandbox:2468",
]
UNSAFE_HOSTS = [
    "localhost.evil.com",
    "127.0.0.1.evil.com",
    "evil.com",
    "evil.com:2468",
    "localhost@evil.com",
    "localhost.evil.com.",
    "notlocalhost.example",
    "127.0.0.1x.evil",
    "0x7f.1",
    "[::1",
    "[::1].evil.com",
    "evil.com@localhost",
    "localhost:80:80",
    "",
    ":2468",
    "loc\xadhost.evil",
]
OWN_ORIGINS = [
    ("127.0.0.1:2468", "http://127.0.0.1:2468"),
    ("localhost", "https://localhost"),
    ("[::1]:8", "http://[::1]:8"),
]
FOREIGN_ORIGINS = [
    "null",
    "",
    "http://localhost.evil",
    "http://127.0.0.1.evil.com",
    "http://127.0.0.1:9999",
    "http://localhost",
    "https://evil.com",
    "http://127.0.0.1@evil.com",
    "http://127.0.0.1/",
    "http://127.0.0.1.",
    "127.0.0.1",
    "file://",
    "chrome-extension://abcdef",
    "ws://127.0.0.1",
    "http://[",
]
UNAUTHORIZED = {
    "type": "urn:sandbox-agent:error:token_invalid",
    "title": "Token Invalid",
    "status": 401,
    "detail": "token invalid",
    "details": {"message": "missing or invalid bearer token"},
}
WRONG_TOKENS: list[dict[str, str]] = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": TOKEN},
    {"Authorization": f"bearer {TOKEN}"},
    {"Authorization": f"BEARER {TOKEN}"},
    {"Authorization": f"Bearer  {TOKEN}"},
    {"Authorization": f"Bearer\t{TOKEN}"},
    {"Authorization": f"Bearer {TOKEN[:-1]}"},
    {"Authorization": f"Bearer {TOKEN}x"},
    {"Authorization": f"Bearer {TOKEN.upper()}"},
    {"Authorization": f"Bearer {TOKEN},Bearer {TOKEN}"},
    {"Authorization": f"Basic {TOKEN}"},
    {"Authorization": "Bearer \xff"},
    {"X-Sandbox-Agent-Token": ""},
    {"X-Sandbox-Agent-Token": f"Bearer {TOKEN}"},
    {"X-Token": TOKEN},
    {"Cookie": f"token={TOKEN}"},
    {"Sec-WebSocket-Protocol": TOKEN},
]


async def ask(daemon: Local, target: str, headers: Mapping[str, str], *, websocket: bool = False) -> Answer | None:
    """GET, or the handshake of a WebSocket; None where that was accepted."""
    if not websocket:
        return await exchange(daemon.port, "GET", target, headers)
    with trio.fail_after(10):
        async with WebSocket.open(daemon.port, target, headers) as socket:
            return socket.refusal


async def refused(daemon: Local, headers: Mapping[str, str]) -> bool:
    """Whether the guard refuses a request with these headers, which HTTP and WebSocket have to agree on."""
    answer = await ask(daemon, "/v1/health", headers)
    socket = await ask(daemon, "/v1/acp/s?agent=mock", headers, websocket=True)
    assert answer is not None
    if answer.status == 200:
        assert socket is None
        return False
    assert socket is not None
    assert answer.problem == socket.problem == "permission_denied"
    assert answer.status == socket.status == 403
    assert answer.body == socket.body
    return True


async def test_names_of_this_machine_are_taken_as_host_without_a_token(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        assert [host for host in SAFE_HOSTS if await refused(daemon, {"Host": host})] == []


async def test_names_that_somebody_could_register_are_refused_as_host_without_a_token(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        assert [host for host in UNSAFE_HOSTS if not await refused(daemon, {"Host": host})] == []


async def test_any_host_is_taken_with_the_token_for_proxies_have_names_of_their_own(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        for host in SAFE_HOSTS + UNSAFE_HOSTS:
            answer = await ask(daemon, "/v1/health", {**daemon.headers, "Host": host})
            assert answer is not None
            assert answer.status == 200, host


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_pages_of_other_origins_are_refused_with_and_without_a_token(tmp_path: Path, token: str | None) -> None:
    async with serving(tmp_path, token=token) as daemon:
        own = {**daemon.headers, "Host": "127.0.0.1:2468"}
        taken = [origin for origin in FOREIGN_ORIGINS if not await refused(daemon, {**own, "Origin": origin})]
        assert taken == []


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_the_own_page_may_call_by_the_name_and_port_that_it_came_from(tmp_path: Path, token: str | None) -> None:
    async with serving(tmp_path, token=token) as daemon:
        for host, origin in OWN_ORIGINS:
            assert not await refused(daemon, {**daemon.headers, "Host": host, "Origin": origin})
            assert await refused(daemon, {**daemon.headers, "Host": host, "Origin": origin + "1"})


async def test_a_rebound_page_is_refused_though_its_origin_is_its_host(tmp_path: Path) -> None:
    headers = {"Host": "evil.com:2468", "Origin": "http://evil.com:2468"}
    async with serving(tmp_path / "open") as daemon:
        assert await refused(daemon, headers)
    async with serving(tmp_path / "closed", token=TOKEN) as daemon:
        assert await refused(daemon, {**daemon.headers, **headers})


async def test_listed_origins_may_call_and_only_exactly_those(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN, cors=Cors(("https://app.example", "http://a.b:1"))) as daemon:
        for origin in ("https://app.example", "http://a.b:1"):
            assert not await refused(daemon, {**daemon.headers, "Origin": origin})
        for origin in (
            "http://app.example",
            "https://app.example:1",
            "https://app.example.evil",
            "https://x.app.example",
        ):
            assert await refused(daemon, {**daemon.headers, "Origin": origin})


@pytest.mark.parametrize("header", ["Authorization", "authorization", "X-Sandbox-Agent-Token", "x-sandbox-agent-token"])
async def test_the_token_is_taken_from_two_headers(tmp_path: Path, header: str) -> None:
    value = TOKEN if "agent" in header.lower() else f"Bearer {TOKEN}"
    async with serving(tmp_path, token=TOKEN) as daemon:
        answer = await ask(daemon, "/v1/health", {header: value})
        assert answer is not None
        assert answer.status == 200
        assert await ask(daemon, "/v1/acp/s?agent=mock", {header: value}, websocket=True) is None
        other = await ask(
            daemon, "/v1/health", {header: value, "Authorization": "Basic proxys-own", header + "": value}
        )
        assert other is not None


async def test_every_wrong_token_gets_the_same_answer(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        answers = [await ask(daemon, "/v1/health", headers) for headers in WRONG_TOKENS]
        answers += [await ask(daemon, "/v1/acp/s", headers, websocket=True) for headers in WRONG_TOKENS]
        answers += [
            await ask(daemon, f"/v1/acp/s?{name}={TOKEN}", {}, websocket=websocket)
            for name, websocket in itertools.product(("access_token", "token"), (False, True))
        ]
        for answer in answers:
            assert answer is not None
            assert answer.json == UNAUTHORIZED
            assert list(answer.json) == list(UNAUTHORIZED)
            assert "www-authenticate" not in answer.headers
            assert {**answer.headers, "date": ""} == {**(answers[0] or answer).headers, "date": ""}


async def test_every_route_but_the_root_needs_the_token(tmp_path: Path) -> None:
    every = routes(tmp_path)
    assert len(every) >= 7
    async with serving(tmp_path, token=TOKEN) as daemon:
        for route in every:
            for parameter in ("x", "a%2Fb", "%ff"):
                target = route.path(parameter)
                if route.websocket:
                    answer = await ask(daemon, target, {}, websocket=True)
                    assert answer is not None
                    assert answer.json == UNAUTHORIZED, target
                for method in (*route.methods, "PATCH"):
                    answer = await exchange(daemon.port, method, target)
                    public = target == "/" and method in ("GET", "HEAD")
                    assert answer.status == (200 if public else 401), target
                    assert method == "HEAD" or public or answer.json == UNAUTHORIZED


async def test_unknown_routes_are_not_found_with_and_without_the_token(tmp_path: Path) -> None:
    not_found = {
        "type": "urn:sandbox-agent:error:invalid_request",
        "title": "Not Found",
        "status": 404,
        "detail": "endpoint not found",
    }
    async with serving(tmp_path, token=TOKEN) as daemon:
        for target in ("/v1", "/v1/", "/v1/acp/", "/v1/acp/a/b", "/v1/nope", "//", "//v1/health", "/v1/health/"):
            for headers in ({}, daemon.headers):
                for method in ("GET", "POST", "DELETE"):
                    answer = await exchange(daemon.port, method, target, headers)
                    assert (answer.status, answer.json) == (404, not_found), (method, target)


async def test_the_refusal_of_a_large_upload_reaches_its_sender(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        for chunk in (0, 50_000):
            answer = await exchange(daemon.port, "POST", "/v1/acp/s?agent=mock", body=b"x" * (8 << 20), chunk=chunk)
            assert answer.json == UNAUTHORIZED


async def test_a_large_body_of_a_stranger_is_never_held(tmp_path: Path) -> None:
    sent = (2 << 20) * b"x"
    async with serving(tmp_path, token=TOKEN, initialized=True) as daemon:
        for method, target, headers, status in (
            ("POST", "/", {}, 401),
            ("POST", "/", daemon.headers, 405),
            ("GET", "/", {}, 413),
            ("POST", "/v1/init", {}, 413),
            ("POST", "/v1/acp/s?agent=mock", daemon.headers, 415),
        ):
            for chunk in (0, 50_000):
                answer = await exchange(daemon.port, method, target, headers, sent, chunk=chunk)
                assert answer.status == status, (method, target)
        late = await exchange(daemon.port, "POST", "/v1/init", {}, b"{}")
        assert late.problem == "already_initialized"


async def test_a_preflight_is_answered_without_a_token_by_the_flags(tmp_path: Path) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    vary = "origin, access-control-request-method, access-control-request-headers"
    listed = "https://app.example"
    async with serving(tmp_path / "none", token=TOKEN) as daemon:
        answer = await exchange(daemon.port, "OPTIONS", "/v1/acp/s", asks)
        assert (answer.status, answer.body) == (200, b"")
        assert answer.headers["access-control-allow-methods"] == "*"
        assert answer.headers["access-control-allow-headers"] == "*,authorization"
        assert answer.headers["vary"] == vary
        assert "access-control-allow-origin" not in answer.headers
        assert (await exchange(daemon.port, "OPTIONS", "/v1/acp/s", {**asks, "Origin": listed})).status == 403
    cors = Cors((listed,), ("GET", "POST"), ("authorization", "content-type"), credentials=True)
    async with serving(tmp_path / "flags", token=TOKEN, cors=cors) as daemon:
        for method, headers in (("OPTIONS", {}), ("GET", daemon.headers)):
            answer = await exchange(daemon.port, method, "/v1/health", {**headers, **asks, "Origin": listed})
            assert answer.status == 200
            assert answer.headers["access-control-allow-origin"] == listed
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert answer.headers["vary"] == vary
            if method == "OPTIONS":
                assert answer.headers["access-control-allow-methods"] == "GET,POST"
                assert answer.headers["access-control-allow-headers"] == "authorization,content-type"
        # The page has to be able to read why it was refused.
        answer = await exchange(daemon.port, "GET", "/v1/health", {"Origin": listed})
        assert answer.status == 401
        assert answer.headers["access-control-allow-origin"] == listed
    async with serving(tmp_path / "star", token=TOKEN, cors=Cors(("*",))) as daemon:
        answer = await exchange(daemon.port, "GET", "/v1/health", {**daemon.headers, "Origin": "https://any.where"})
        assert answer.headers["access-control-allow-origin"] == "https://any.where"
        assert "access-control-allow-credentials" not in answer.headers


def test_what_would_not_be_safe_is_refused_before_anything_starts(tmp_path: Path) -> None:
    def check(**told: object) -> str:
        try:
            Config(data_dir=tmp_path, **told).check()  # type: ignore[arg-type]
        except BadConfig as error:
            return str(error)
        return ""

    for host in ("127.0.0.1", "127.8.8.8", "localhost", "::1"):
        assert check(host=host) == ""
    for host in ("0.0.0.0", "::", "", "192.168.1.1", "example.com", "localhost.evil.com", "127.0.0.1.evil.com", "0"):
        assert "without a token" in check(host=host), host
        assert check(host=host, token="t") == ""
    for token in ("", " ", "\t\n"):
        assert "token is empty" in check(token=token)
    for token in ("a\nb", "a\x00", " a", "a ", "\udcff"):
        assert "cannot be sent" in check(token=token), token
    assert check(token="a b~é") == ""
    assert "'*' needs a token" in check(cors=Cors(("*",)))
    assert "without --cors-allow-credentials" in check(token="t", cors=Cors(("*",), credentials=True))
    assert check(token="t", cors=Cors(("*",))) == ""
    assert "invalid cors method: G T" in check(cors=Cors(methods=("G T",)))
    assert "invalid cors header: x\r\ny: z" in check(cors=Cors(headers=("x\r\ny: z",)))
    assert check(cors=Cors(methods=("GET", "*"), headers=("x-y",))) == ""
