"""Tickets: good for one path, for a short time, and for no more than the token that they were made with."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import trio
from hypothesis import assume, given
from hypothesis import strategies as st

from sandbox_http.tickets import Tickets, split_query
from sandbox_http.token_file import TokenEntry, tokens_of
from sandbox_http.tokens import Grant, Token, Tokens
from support.answering import answering, http
from support.clock import Clock
from support.serving import TOKEN, serving
from support.upstreams import port_of, through
from support.wire import Answer, WebSocket, exchange

if TYPE_CHECKING:
    from pathlib import Path

    from support.clients import Json
    from support.serving import Local


MAKER = Token.of("the-makers", "maker")
OTHER = Token.of("somebody-elses", "other")


def grant_of(tokens: Tokens, text: bytes = b"the-makers") -> Grant:
    grant = tokens.grant([text])
    assert grant is not None
    return grant


PATHS = st.from_regex(r"/[a-z0-9/%]{0,10}", fullmatch=True)
QUERIES = st.from_regex(r"([a-z]=[a-z0-9/%]{0,5}(&[a-z]=[0-9]{1,3})?)?", fullmatch=True)
METHODS = st.sampled_from(["GET", "WEBSOCKET"])


@given(METHODS, PATHS, QUERIES, st.integers(0, 3))
def test_a_ticket_is_good_wherever_it_stands_in_the_query(method: str, path: str, query: str, place: int) -> None:
    tokens = Tokens([MAKER])
    tickets = Tickets(tokens)
    ticket, _ = tickets.make(grant_of(tokens), method, f"{path}?{query}" if query else path, 60)
    parts = query.split("&") if query else []
    parts.insert(min(place, len(parts)), f"ticket={ticket}")
    assert tickets.grant(method, path, "&".join(parts).encode()) == (grant_of(tokens), query.encode())


@given(METHODS, PATHS, QUERIES, METHODS, PATHS, QUERIES)
def test_a_ticket_is_good_for_nothing_but_its_own_method_path_and_query(
    method: str, path: str, query: str, other_method: str, other_path: str, other_query: str
) -> None:
    assume((method, path, query) != (other_method, other_path, other_query))
    tokens = Tokens([MAKER])
    tickets = Tickets(tokens)
    ticket, _ = tickets.make(grant_of(tokens), method, f"{path}?{query}", 60)
    told = f"{other_query}&ticket={ticket}" if other_query else f"ticket={ticket}"
    assert tickets.grant(other_method, other_path, told.encode()) is None


@given(st.data())
def test_a_ticket_that_was_changed_anywhere_is_no_ticket(data: st.DataObject) -> None:
    tokens = Tokens([MAKER, OTHER])
    tickets = Tickets(tokens)
    ticket, _ = tickets.make(grant_of(tokens), "GET", "/v1/fs/file?path=a", 60)
    start = data.draw(st.integers(0, len(ticket)))
    end = data.draw(st.integers(start, min(len(ticket), start + 20)))
    put = data.draw(st.text("0123456789abcdef.-+ _", max_size=20))
    changed = ticket[:start] + put + ticket[end:]
    assume(changed != ticket)
    assert tickets.grant("GET", "/v1/fs/file", f"path=a&ticket={changed}".encode()) is None


@given(st.binary(max_size=80).filter(bytes.isascii))
def test_what_is_no_ticket_is_refused_and_breaks_nothing(text: bytes) -> None:
    assert Tickets(Tokens([MAKER])).grant("GET", "/", b"ticket=" + text) is None


def test_the_fields_of_two_tickets_cannot_be_mixed() -> None:
    clock = Clock()
    tokens = Tokens([MAKER, OTHER], clock=clock)
    tickets = Tickets(tokens, clock=clock)
    one, _ = tickets.make(grant_of(tokens), "GET", "/a", 60)
    two, _ = tickets.make(grant_of(tokens, b"somebody-elses"), "GET", "/a", 3600)
    pairs = list(zip(one.split("."), two.split("."), strict=True))
    for choice in range(1, 7):
        mixed = ".".join(pair[choice >> bit & 1] for bit, pair in enumerate(pairs))
        assert tickets.grant("GET", "/a", f"ticket={mixed}".encode()) is None


def test_a_ticket_is_good_until_its_time_and_not_a_moment_longer() -> None:
    clock = Clock()
    tokens = Tokens([MAKER], clock=clock)
    tickets = Tickets(tokens, clock=clock)
    ticket, expires = tickets.make(grant_of(tokens), "GET", "/a", 60)
    told = f"ticket={ticket}".encode()
    assert expires == (1_000_000 + 60) * 1000
    clock.now += 59.9
    assert tickets.grant("GET", "/a", told) is not None
    clock.now += 0.1
    assert tickets.grant("GET", "/a", told) is None


def test_a_ticket_of_another_run_is_not_good() -> None:
    tokens = Tokens([MAKER])
    ticket, _ = Tickets(tokens).make(grant_of(tokens), "GET", "/a", 60)
    assert Tickets(tokens).grant("GET", "/a", f"ticket={ticket}".encode()) is None


async def test_with_its_makers_token_a_ticket_is_dead() -> None:
    clock = Clock()
    tokens = Tokens([MAKER, OTHER], clock=clock)
    tickets = Tickets(tokens, clock=clock)
    told = f"ticket={tickets.make(grant_of(tokens), 'GET', '/a', 3600)[0]}".encode()
    await tokens.rotate("maker", 10, None)
    assert tickets.grant("GET", "/a", told) is not None
    clock.now += 10
    assert tickets.grant("GET", "/a", told) is None
    told = f"ticket={tickets.make(grant_of(tokens, b'somebody-elses'), 'GET', '/a', 3600)[0]}".encode()
    await tokens.revoke("other")
    assert tickets.grant("GET", "/a", told) is None


def test_two_tickets_in_one_query_are_none() -> None:
    assert split_query(b"ticket=1&a=b&ticket=2") == (b"", b"a=b")
    assert split_query(b"a=b&&ticket=1&c") == (b"1", b"a=b&&c")
    assert split_query(b"aticket=1&a=ticket=2") == (b"", b"aticket=1&a=ticket=2")


async def make(daemon: Local, body: Json, headers: dict[str, str] | None = None) -> Answer:
    headers = {"Content-Type": "application/json", **(daemon.headers if headers is None else headers)}
    return await exchange(daemon.port, "POST", "/v1/tickets", headers, json.dumps(body).encode())


async def test_a_file_is_fetched_by_a_url_alone(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_text("what is in it")
    target = f"/v1/fs/file?path={tmp_path}/a%20b.txt"
    async with serving(tmp_path / "home", token=TOKEN) as daemon:
        made = await make(daemon, {"path": target})
        assert made.status == 201
        assert made.headers["cache-control"] == "no-store"
        url = made.json["url"]
        assert url == f"{target}&ticket={made.json['ticket']}"
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            answer = await exchange(daemon.port, "GET", url, headers)
            assert (answer.status, answer.body) == (200, b"what is in it")
        assert (await exchange(daemon.port, "GET", url, {"Range": "bytes=0-3"})).body == b"what"
        for method, changed in (
            ("GET", url.replace("a%20b", "a+b")),
            ("GET", url.replace("/v1/fs/file", "/v1/fs/stat")),
            ("GET", url + "&x=1"),
            ("GET", url[:-1] + ("0" if url[-1] != "0" else "1")),
            ("HEAD", url),
            ("PUT", url),
            ("POST", f"/v1/tickets?ticket={made.json['ticket']}"),
        ):
            assert (await exchange(daemon.port, method, changed)).status == 401, changed
        assert made.json["ticket"] not in daemon.said


async def test_a_ticket_to_look_on_is_none_to_take_part(tmp_path: Path) -> None:
    path = "/v1/acp/s?agent=mock"
    reader = tokens_of([TokenEntry("reader", token="t0ken-of-a-reader", scopes=["read"])], "start")
    async with serving(tmp_path, token=TOKEN, tokens=reader) as daemon:
        look = (await make(daemon, {"path": path})).json["url"]
        part = (await make(daemon, {"path": path, "method": "WEBSOCKET"})).json["url"]
        with trio.fail_after(10):
            async with WebSocket.open(daemon.port, look) as socket:
                assert socket.refusal is not None
                assert socket.refusal.problem == "token_invalid"
            async with WebSocket.open(daemon.port, part) as socket:
                assert socket.refusal is None
        assert (await exchange(daemon.port, "GET", part)).status == 401
        own = {"Authorization": "Bearer t0ken-of-a-reader"}
        refused = await make(daemon, {"path": path, "method": "WEBSOCKET"}, own)
        assert (refused.status, refused.problem) == (403, "forbidden_scope")
        assert (await make(daemon, {"path": path}, own)).status == 201


async def test_what_makes_no_ticket_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        for body, status in (
            ({}, 422),
            ({"path": 1}, 422),
            ({"path": "/v1/health", "expiresIn": 3601}, 422),
            ({"path": "/v1/health", "expiresIn": 0}, 422),
            ({"path": "/v1/health", "method": "POST"}, 422),
            ({"path": "/v1/health", "more": 1}, 422),
            ({"path": "/v1/health?" + "x" * 8192}, 422),
            ({"path": "v1/health"}, 400),
            ({"path": "//v1/health"}, 400),
            ({"path": "/v1/health#x"}, 400),
            ({"path": "/v1/he alth"}, 400),
            ({"path": "/v1/é"}, 400),
            ({"path": "/v1/health?a=1&ticket=2"}, 400),
            ({"path": "/v1/nothing"}, 404),
        ):
            answer = await make(daemon, body)
            assert answer.status == status, body
            assert answer.problem
        assert (await make(daemon, {"path": "/v1/health"}, {})).status == 401


async def test_an_application_on_a_port_sees_no_ticket(tmp_path: Path) -> None:
    async with answering(http(b"{}")) as (url, asked), serving(tmp_path, token=TOKEN) as daemon:
        path = through(port_of(url), "/x?a=1")
        ticketed = (await make(daemon, {"path": path})).json["url"]
        assert (await exchange(daemon.port, "GET", ticketed)).status == 200
        assert asked.last[0] == "GET /x?a=1 HTTP/1.1"


async def test_a_browser_sends_the_token_as_a_subprotocol(tmp_path: Path) -> None:
    encoded = base64.urlsafe_b64encode(TOKEN.encode()).decode().rstrip("=")
    async with serving(tmp_path, token=TOKEN) as daemon:
        for offered, accepted in (
            (f"sandbox-agent, sandbox-agent.token.{encoded}", True),
            (f"sandbox-agent.token.{encoded}", True),
            (f"sandbox-agent, sandbox-agent.token.{encoded[:-1]}", False),
            ("sandbox-agent, sandbox-agent.token.*", False),
            ("sandbox-agent", False),
        ):
            headers = {"Sec-WebSocket-Protocol": offered}
            with trio.fail_after(10):
                async with WebSocket.open(daemon.port, "/v1/acp/s?agent=mock", headers) as socket:
                    assert (socket.refusal is None) == accepted, offered
                    if socket.refusal is None:
                        chosen = socket.headers.get("sec-websocket-protocol")
                        assert chosen == ("sandbox-agent" if offered.startswith("sandbox-agent,") else None)
                    else:
                        assert socket.refusal.status == 401
