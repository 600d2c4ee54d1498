"""Scopes: every route asks for one, and a token gets no further than what it lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from sandbox_http.scopes import EVERY, PUBLIC, SCOPES, WEBSOCKET, is_listed, needed
from sandbox_http.token_file import TokenEntry, tokens_of
from support.serving import TOKEN, routes, serving
from support.wire import Answer, WebSocket, exchange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.serving import Local

EACH = tokens_of([TokenEntry(f"only-{scope}", token=f"t0ken-for-{scope}", scopes=[scope]) for scope in SCOPES], "start")
PROXY = "/v1/ports/1/proxy/x"

ROWS = [
    ("GET", "/v1/fs/file", {"read"}),
    ("HEAD", "/v1/fs/file", {"read"}),
    ("PUT", "/v1/fs/file", {"exec"}),
    ("DELETE", "/v1/fs/entry", {"exec"}),
    (WEBSOCKET, "/v1/fs/watch", {"read"}),
    ("GET", "/v1/acp", {"read"}),
    ("GET", "/v1/acp/a%2Fb", {"read"}),
    ("POST", "/v1/acp/x", {"prompt"}),
    ("DELETE", "/v1/acp/x", {"prompt"}),
    (WEBSOCKET, "/v1/acp/x", {"prompt"}),
    ("POST", "/acp", {"prompt"}),
    ("GET", "/acp", {"read"}),
    (WEBSOCKET, "/acp", {"prompt"}),
    ("GET", "/v1/sessions/x/events", {"read"}),
    ("PATCH", "/v1/sessions/x", {"prompt"}),
    ("POST", "/v1/sessions/x/permissions/y", {"prompt"}),
    ("POST", "/v1/agents/mock/install", {"exec"}),
    ("PUT", "/v1/config/mcp", {"exec"}),
    ("POST", "/v1/git/clone", {"exec"}),
    ("GET", "/v1/ports", {"read"}),
    ("GET", "/v1/ports/8080/wait", {"read"}),
    ("GET", "/v1/ports/8080/proxy", {"exec"}),
    ("GET", "/v1/ports/8080/proxy/", {"exec"}),
    (WEBSOCKET, "/v1/ports/8080/proxy/socket", {"exec"}),
    ("GET", "/v1/processes/1/logs", {"read"}),
    ("POST", "/v1/processes", {"exec"}),
    (WEBSOCKET, "/v1/processes/1/terminal/ws", {"exec"}),
    ("POST", "/v1/processes/config", {"admin"}),
    ("GET", "/v1/tokens", {"admin"}),
    ("DELETE", "/v1/tokens/x", {"admin"}),
    ("GET", "/v1/health", EVERY),
    ("POST", "/v1/tickets", EVERY),
    ("GET", "/", PUBLIC),
    ("POST", "/", {"admin"}),
    (WEBSOCKET, "/", {"admin"}),
    ("GET", "/v1/something-new", {"admin"}),
    ("GET", "/v1/acps", {"admin"}),
    ("GET", "/v1/fs%2Ffile", {"admin"}),
    ("GET", "/v2/fs/file", {"admin"}),
    ("GET", "/v1/ports/8080/proxyx", {"read"}),
]


@pytest.mark.parametrize(("method", "path", "scopes"), ROWS)
def test_a_route_asks_for_its_scope(method: str, path: str, scopes: set[str]) -> None:
    assert needed(method, path) == scopes


def test_no_route_is_without_a_row_of_the_table(tmp_path: Path) -> None:
    assert [route.template for route in routes(tmp_path) if not is_listed(route.path())] == []
    assert is_listed(PROXY)


@given(st.text(), st.sampled_from(["GET", "POST", WEBSOCKET]))
def test_what_no_row_names_asks_for_admin(path: str, method: str) -> None:
    if not is_listed(path):
        assert needed(method, path) == {"admin"}


def every(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """All methods and paths, by HTTP and by WebSocket."""
    for route in routes(tmp_path):
        for method in route.methods or (WEBSOCKET,):
            yield method, route.path()
    yield from (("GET", PROXY), ("POST", PROXY), (WEBSOCKET, PROXY))


async def ask(daemon: Local, method: str, path: str, token: str) -> Answer | None:
    """What comes of a request without a body or a query; None where a WebSocket was accepted."""
    headers = {"Authorization": f"Bearer {token}"}
    if method != WEBSOCKET:
        return await exchange(daemon.port, method, path, headers)
    with trio.fail_after(10):
        async with WebSocket.open(daemon.port, path, headers) as socket:
            return socket.refusal


async def test_a_token_of_one_scope_gets_to_all_that_asks_for_it_and_to_nothing_else(tmp_path: Path) -> None:
    seen = 0
    async with serving(tmp_path, token=TOKEN, tokens=EACH) as daemon:
        for method, path in every(tmp_path):
            need = needed(method, path)
            for scope in SCOPES:
                answer = await ask(daemon, method, path, f"t0ken-for-{scope}")
                if need != PUBLIC and scope not in need:
                    assert answer is not None, (method, path, scope)
                    assert answer.status == 403, (method, path, scope)
                    if method != "HEAD":
                        assert answer.problem == "forbidden_scope"
                        assert answer.json["neededScopes"] == sorted(need)
                        assert repr(min(need)) in answer.detail
                    seen += 1
                elif answer is not None and answer.status in (401, 403):
                    assert "forbidden_scope" not in answer.body.decode(), (method, path, scope)
                    assert "token_invalid" not in answer.body.decode(), (method, path, scope)
    assert seen > 100


async def test_a_path_that_is_not_there_is_not_found_whatever_the_token_is_good_for(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN, tokens=EACH) as daemon:
        for token in (TOKEN, *(f"t0ken-for-{scope}" for scope in SCOPES), "wrong"):
            answer = await ask(daemon, "GET", "/v1/nothing", token)
            assert answer is not None
            assert answer.status == 404


async def test_the_token_of_the_start_may_do_everything(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        answer = await exchange(daemon.port, "GET", "/v1/tokens", daemon.headers)
        assert answer.status == 200
        [own] = answer.json["tokens"]
        assert own["lastUsedAtMs"] > 0
        del own["lastUsedAtMs"]
        assert own == {"name": "default", "scopes": sorted(SCOPES), "source": "start"}
