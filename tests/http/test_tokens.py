"""Tokens: several at once, each with a name, scopes and an end; made, replaced and taken back while the daemon runs."""

from __future__ import annotations

import json
import os
import signal
import stat
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING

import h11
import pytest
import trio
import trio.testing

from sandbox_http.config import BadConfig, Config
from sandbox_http.token_file import TokenEntry, read_tokens, tokens_of
from sandbox_http.token_store import TokenStore
from sandbox_http.tokens import ALL_SCOPES, NameTaken, NoSuchToken, Token, Tokens
from support.answering import answering, http
from support.clock import Clock
from support.command import run, started
from support.processes import eventually
from support.serving import TOKEN, serving
from support.upstreams import port_of, through
from support.wire import Answer, Closed, Stream, WebSocket, exchange, request_bytes

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from sandbox_http.scopes import ScopeName
    from support.clients import Json
    from support.serving import Local

READ: frozenset[ScopeName] = frozenset({"read"})
ADMIN: frozenset[ScopeName] = frozenset({"admin"})


def name_of(tokens: Tokens, *texts: str) -> str | None:
    grant = tokens.grant([text.encode() for text in texts])
    return None if grant is None else grant.name


def expiring(name: str, text: str, expires: float | None) -> Token:
    return Token(name, sha256(text.encode()).digest(), READ, "file", expires)


def test_a_token_is_found_among_several_and_gives_its_own_scopes() -> None:
    tokens = Tokens([Token.of("first"), expiring("reader", "second", None)])
    assert name_of(tokens, "first") == "default"
    assert name_of(tokens, "wrong", "second") == "reader"
    assert name_of(tokens, "wrong") is None
    assert name_of(tokens) is None
    grant = tokens.grant([b"second"])
    assert grant is not None
    assert grant.scopes == READ
    assert not grant.may(frozenset({"exec", "admin"}))


def test_a_token_holds_until_its_time_and_not_a_moment_longer() -> None:
    clock = Clock()
    tokens = Tokens([expiring("reader", "text", clock.now + 60)], clock=clock)
    clock.now += 59.9
    assert name_of(tokens, "text") == "reader"
    clock.now += 0.1
    assert name_of(tokens, "text") is None
    assert tokens.listed() == []
    assert tokens.knows(b"text")  # so that no application on a port gets it


def test_where_no_token_is_needed_everybody_may_do_everything() -> None:
    grant = Tokens(guarded=False).grant([b"whatever"])
    assert grant is not None
    assert (grant.name, grant.scopes) == (None, ALL_SCOPES)


async def test_a_token_that_is_replaced_holds_on_for_its_overlap() -> None:
    clock = Clock()
    tokens = Tokens([Token.of("old")], clock=clock)
    _, text = await tokens.rotate("default", 300, None)
    assert name_of(tokens, text) == name_of(tokens, "old") == "default"
    clock.now += 300
    assert name_of(tokens, text) == "default"
    assert name_of(tokens, "old") is None
    _, newer = await tokens.rotate("default", 0, None)
    assert name_of(tokens, text) is None
    assert name_of(tokens, newer) == "default"


async def test_what_replaces_a_token_may_as_much_and_ends_with_it_unless_told_otherwise() -> None:
    clock = Clock()
    tokens = Tokens([Token.of("admin")], [expiring("reader", "text", clock.now + 500)], clock=clock)
    token, _ = await tokens.rotate("reader", 1000, None)
    assert (token.scopes, token.expires) == (READ, clock.now + 500)
    token, _ = await tokens.rotate("reader", 0, 2000)
    assert token.expires == clock.now + 2000
    clock.now += 500
    assert name_of(tokens, "text") is None  # an overlap prolongs nothing


async def test_what_was_made_and_what_was_taken_back_stays_so_over_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "tokens.json"
    clock = Clock()
    started, filed = [Token.of("start")], [expiring("filed", "file", None)]

    def again() -> Tokens:
        return Tokens(started, filed, TokenStore(file), clock=clock)

    tokens = again()
    _, made = await tokens.make("made", ADMIN, None)
    _, short = await tokens.make("short", READ, 60)
    _, gone = await tokens.make("gone", READ, None)
    await tokens.revoke("gone")
    await tokens.revoke("filed")
    await tokens.rotate("default", 30, None)
    tokens = again()
    assert [name_of(tokens, text) for text in (made, short, gone, "file", "start")] == [
        "made", "short", None, None, "default",
    ]  # fmt: skip
    clock.now += 60
    tokens = again()
    assert [name_of(tokens, text) for text in (made, short, "start")] == ["made", None, None]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text()
    assert [secret for secret in (made, short, gone, "start", "file") if f'"{secret}"' in text] == []
    assert os.listdir(tmp_path) == ["tokens.json"]


async def test_an_overlap_does_not_outlive_a_token_that_was_made(tmp_path: Path) -> None:
    clock = Clock()
    tokens = Tokens([Token.of("start")], store=TokenStore(tmp_path / "tokens.json"), clock=clock)
    _, old = await tokens.make("made", READ, None)
    _, new = await tokens.rotate("made", 30, None)
    tokens = Tokens([Token.of("start")], store=TokenStore(tmp_path / "tokens.json"), clock=clock)
    assert name_of(tokens, old) == name_of(tokens, new) == "made"
    clock.now += 30
    assert name_of(tokens, old) is None
    assert name_of(tokens, new) == "made"


DAMAGED = ["", "{", "[]", '{"version":1,"tokens":[{}],"retired":{}}', '{"version":1,"tokens":[],"retired":{"x":1}}']


@pytest.mark.parametrize("text", DAMAGED)
def test_kept_tokens_that_cannot_be_read_open_no_door(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokens.json").write_text(text)
    with pytest.raises(BadConfig, match=r"tokens.json is damaged"):
        TokenStore(tmp_path / "tokens.json")


async def test_a_token_that_cannot_be_kept_is_not_made_and_one_taken_back_is_gone_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    tokens = Tokens([Token.of("start")], store=TokenStore(folder / "tokens.json"))
    _, text = await tokens.make("one", READ, None)
    (folder / "tokens.json").unlink()
    folder.rmdir()
    with pytest.raises(FileNotFoundError):
        await tokens.make("two", READ, None)
    assert [token.name for token, _ in tokens.listed()] == ["default", "one"]
    with pytest.raises(FileNotFoundError):
        await tokens.revoke("one")
    assert name_of(tokens, text) is None


async def test_the_last_token_that_makes_others_cannot_be_taken_back() -> None:
    tokens = Tokens([Token.of("start")])
    await tokens.make("reader", READ, None)
    with pytest.raises(NameTaken, match="last token of scope 'admin'"):
        await tokens.revoke("default")
    await tokens.make("second", ADMIN, None)
    await tokens.revoke("default")
    assert name_of(tokens, "start") is None
    with pytest.raises(NameTaken):
        await tokens.revoke("second")
    for name in ("default", "nobody"):
        with pytest.raises(NoSuchToken):
            await tokens.revoke(name)
        with pytest.raises(NoSuchToken):
            await tokens.rotate(name, 0, None)


async def test_of_many_that_make_one_name_at_once_one_does(tmp_path: Path) -> None:
    tokens = Tokens([Token.of("start")], store=TokenStore(tmp_path / "tokens.json"))
    made: list[str] = []

    async def make() -> None:
        try:
            made.append((await tokens.make("one", READ, None))[1])
        except NameTaken:
            made.append("")

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(make)
    assert len(made) == 10
    [text] = filter(None, made)
    assert name_of(tokens, text) == "one"


async def test_what_was_opened_with_a_token_ends_with_it(autojump_clock: MockClock) -> None:
    tokens = Tokens(
        [Token.of("start")], [expiring("reader", "text", trio.current_time() + 60)], clock=trio.current_time
    )
    begun = trio.current_time()
    ended: dict[str, float] = {}

    async def stream(label: str, text: bytes) -> None:
        grant = tokens.grant([text])
        assert grant is not None
        with tokens.lasting(grant):
            await trio.sleep(1000)
        ended[label] = round(trio.current_time() - begun)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream, "expires", b"text")
        _, rotated = await tokens.make("rotated", READ, None)
        _, revoked = await tokens.make("revoked", READ, None)
        for label, text in (("rotated", rotated), ("revoked", revoked), ("stays", "start")):
            nursery.start_soon(stream, label, text.encode())
        await trio.sleep(10)
        await tokens.revoke("revoked")
        await tokens.rotate("rotated", 20, None)
    assert ended == {"revoked": 10, "rotated": 30, "expires": 60, "stays": 1000}


async def test_a_token_whose_end_is_put_off_keeps_what_was_opened_with_it(autojump_clock: MockClock) -> None:
    begun = trio.current_time()
    tokens = Tokens(filed=[expiring("reader", "text", begun + 60)], clock=trio.current_time)
    ended: list[float] = []

    async def stream() -> None:
        grant = tokens.grant([b"text"])
        assert grant is not None
        with tokens.lasting(grant):
            await trio.sleep(1000)
        ended.append(round(trio.current_time() - begun))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream)
        await trio.sleep(10)
        tokens.refile([expiring("reader", "text", begun + 90)])
        await trio.sleep(60)
        tokens.refile([expiring("reader", "text", None)])
    assert ended == [1000]


async def test_what_was_opened_with_a_token_ends_when_that_may_less(autojump_clock: MockClock) -> None:
    def filed(*scopes: ScopeName) -> tuple[Token, ...]:
        return tokens_of([TokenEntry("a", token="text", scopes=list(scopes))], "file")

    tokens = Tokens([Token.of("start")], filed("read", "exec"))
    begun = trio.current_time()
    ended: dict[str, float] = {}

    async def stream(text: str) -> None:
        grant = tokens.grant([text.encode()])
        assert grant is not None
        with tokens.lasting(grant):
            await trio.sleep(1000)
        ended[text] = round(trio.current_time() - begun)

    async with trio.open_nursery() as nursery:
        for text in ("start", "text"):
            nursery.start_soon(stream, text)
        for after in (filed("read", "exec"), filed("read", "exec", "prompt"), filed("read", "prompt")):
            await trio.sleep(10)
            tokens.refile(after)
    assert ended == {"text": 30, "start": 1000}


async def test_tokens_that_have_ended_are_not_remembered(tmp_path: Path) -> None:
    clock = Clock()
    tokens = Tokens([Token.of("start")], store=TokenStore(tmp_path / "tokens.json"), clock=clock)
    _, old = await tokens.make("old", READ, 10)
    _, lasting = await tokens.make("lasting", READ, None)
    clock.now += 10
    assert tokens.knows(old.encode())
    await tokens.make("new", READ, None)
    assert not tokens.knows(old.encode())
    assert name_of(tokens, lasting) == "lasting"


GOOD_TOML = """
[[tokens]]
name = "dashboard"
token = "t0ken-of-the-dashboard"
scopes = ["read"]
expires = 2999-01-01T00:00:00Z

[[tokens]]
name = "backend"
sha256 = "{digest}"
"""


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_file_names_tokens_by_text_or_digest(tmp_path: Path) -> None:
    digest = sha256(b"t0ken-of-the-backend").hexdigest()
    entries = [
        {"name": "dashboard", "token": "t0ken-of-the-dashboard", "scopes": ["read"], "expires": "2999-01-01T00:00:00Z"},
        {"name": "backend", "sha256": digest.upper()},
    ]
    for file in (
        private(tmp_path / "tokens.toml", GOOD_TOML.format(digest=digest)),
        private(tmp_path / "tokens.json", json.dumps({"tokens": entries}), 0o440),
    ):
        tokens = Tokens(filed=read_tokens(file))
        for name, scopes in (("dashboard", READ), ("backend", ALL_SCOPES)):
            grant = tokens.grant([f"t0ken-of-the-{name}".encode()])
            assert grant is not None
            assert (grant.name, grant.scopes) == (name, scopes)
        assert tokens.listed()[0][0].expires == 32472144000


def entry(**members: Json) -> str:
    return json.dumps({"tokens": [{"name": "a", "token": "canary-token", **members}]})


BAD_FILES = {
    "others may read it": (entry(), 0o644, "others may read or change"),
    "its group may change it": (entry(), 0o660, "others may read or change"),
    "no JSON": ('{"tokens": [canary-token', 0o600, "is no JSON"),
    "a member too many": (entry(role="x"), 0o600, "unknown field `role`"),
    "an unknown scope": (entry(scopes=["root"]), 0o600, "Invalid enum value 'root'"),
    "no scope": (entry(scopes=[]), 0o600, "'a' has no scope"),
    "no name": (entry(name=""), 0o600, "a token's name has letters"),
    "a strange name": (entry(name="a/b"), 0o600, "a token's name has letters"),
    "the reserved name": (entry(name="default"), 0o600, "'default' is the name"),
    "text and digest": (entry(sha256="0" * 64), 0o600, "either 'token' or 'sha256'"),
    "neither": (entry(token=None), 0o600, "either 'token' or 'sha256'"),
    "a bad digest": (entry(token=None, sha256="xyz"), 0o600, "no SHA-256"),
    "a token no header carries": (entry(token="canary\n"), 0o600, "cannot be sent"),
    "a bad time": (entry(expires="tomorrow"), 0o600, "Invalid RFC3339"),
    "a time before all": (entry(expires=-1), 0o600, "expires at no time"),
    "a date before all": (entry(expires="0001-01-01T00:00:00Z"), 0o600, "expires at no time"),
    "a time after all": (entry(expires=253402300800), 0o600, "expires at no time"),
    "a time that is no number of milliseconds": (entry(expires=1e306), 0o600, "expires at no time"),
    "an endless time": (entry(expires=float("inf")), 0o600, "expires at no time"),
    "no time": (entry(expires=float("nan")), 0o600, "expires at no time"),
    "twice": (json.dumps({"tokens": json.loads(entry())["tokens"] * 2}), 0o600, "two tokens 'a'"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_file_that_is_not_safe_or_makes_no_sense_is_refused_and_not_quoted(tmp_path: Path, case: str) -> None:
    text, mode, expected = BAD_FILES[case]
    with pytest.raises(BadConfig) as refusal:
        read_tokens(private(tmp_path / "tokens.json", text, mode))
    assert expected in str(refusal.value)
    assert "canary" not in str(refusal.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, expected in (
        (tmp_path, "directory"),
        (tmp_path / "none", "No such file"),
        (tmp_path / "fifo", "regular"),
    ):
        with pytest.raises(BadConfig, match=expected):
            read_tokens(path)


async def call(daemon: Local, method: str, path: str, body: Json = None, token: str = TOKEN) -> Answer:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    return await exchange(daemon.port, method, path, headers, b"" if body is None else json.dumps(body).encode())


async def test_tokens_are_made_replaced_and_taken_back_by_http(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        made = await call(daemon, "POST", "/v1/tokens", {"name": "ci", "scopes": ["read", "exec"], "expiresIn": 3600})
        assert made.status == 201
        assert made.headers["cache-control"] == "no-store"
        text = made.json["token"]
        assert len(text) > 40
        assert made.json["expiresAtMs"] - made.json["createdAtMs"] == 3_600_000
        assert (await call(daemon, "GET", "/v1/health", token=text)).status == 200
        assert (await call(daemon, "GET", "/v1/tokens", token=text)).problem == "forbidden_scope"
        again = await call(daemon, "POST", "/v1/tokens", {"name": "ci", "scopes": ["read"]})
        assert (again.status, again.problem) == (409, "conflict")
        listed = await call(daemon, "GET", "/v1/tokens")
        assert [each["name"] for each in listed.json["tokens"]] == ["default", "ci"]
        assert listed.json["tokens"][1]["lastUsedAtMs"]
        assert text not in listed.body.decode()
        rotated = await call(daemon, "POST", "/v1/tokens/ci/rotate", {"overlap": 60})
        assert rotated.status == 201
        newer = rotated.json["token"]
        assert [(await call(daemon, "GET", "/v1/health", token=each)).status for each in (text, newer)] == [200, 200]
        assert (await call(daemon, "DELETE", "/v1/tokens/ci")).status == 204
        answers = [await call(daemon, "GET", "/v1/health", token=each) for each in (text, newer, "wrong")]
        assert {answer.body for answer in answers} == {answers[0].body}
        assert answers[0].status == 401
        assert (await call(daemon, "DELETE", "/v1/tokens/ci")).status == 404
        assert (await call(daemon, "POST", "/v1/tokens/ci/rotate", {})).status == 404
        assert (await call(daemon, "DELETE", "/v1/tokens/default")).status == 409


async def test_what_makes_no_token_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        for body, status in (
            ({}, 422),
            ({"name": "a"}, 422),
            ({"name": "a", "scopes": []}, 422),
            ({"name": "a", "scopes": ["all"]}, 422),
            ({"name": "a", "scopes": ["read"], "expiresIn": 0}, 422),
            ({"name": "a", "scopes": ["read"], "expiresIn": 1e300}, 422),
            ({"name": "a", "scopes": ["read"], "token": "mine"}, 422),
            ({"name": "", "scopes": ["read"]}, 400),
            ({"name": "a b", "scopes": ["read"]}, 400),
            ({"name": "default", "scopes": ["read"]}, 409),
        ):
            assert (await call(daemon, "POST", "/v1/tokens", body)).status == status, body
        rotations: list[Json] = [{"overlap": -1}, {"overlap": "x"}, {"expiresIn": -1}]
        for rotation in rotations:
            assert (await call(daemon, "POST", "/v1/tokens/default/rotate", rotation)).status == 422


async def test_an_open_server_makes_no_tokens_that_nobody_would_ask_for(tmp_path: Path) -> None:
    async with serving(tmp_path) as daemon:
        assert (await call(daemon, "GET", "/v1/tokens")).json == {"tokens": []}
        for method, path, body in (
            ("POST", "/v1/tokens", {"name": "a", "scopes": ["read"]}),
            ("POST", "/v1/tokens/a/rotate", {}),
            ("DELETE", "/v1/tokens/a", None),
        ):
            answer = await call(daemon, method, path, body)
            assert (answer.status, answer.problem) == (409, "conflict")


async def test_streams_are_cut_when_their_token_is_taken_back(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        made = await call(daemon, "POST", "/v1/tokens", {"name": "gone", "scopes": ["read", "prompt", "admin"]})
        own = {"Authorization": f"Bearer {made.json['token']}"}
        with trio.fail_after(10):
            async with (
                WebSocket.open(daemon.port, "/v1/acp/s?agent=mock", daemon.headers) as staying,
                WebSocket.open(daemon.port, "/v1/acp/s", own) as socket,
                Stream.open(daemon.port, f"/v1/fs/watch?path={tmp_path}", own) as events,
            ):
                assert socket.refusal is None
                assert events.head.status == 200
                # Whoever takes back the own token is answered.
                assert (await call(daemon, "DELETE", "/v1/tokens/gone", token=made.json["token"])).status == 204
                assert await socket.end() == Closed(1008, "the token holds no more")
                await ended(events)
                await staying.send_json({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
                assert (await staying.until(id=1))["id"] == 1


async def test_what_changes_something_is_cut_as_well_when_its_token_is_taken_back(tmp_path: Path) -> None:
    async def endless(stream: trio.SocketStream) -> None:
        await stream.receive_some(1 << 16)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await stream.send_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
            await trio.sleep_forever()

    async with serving(tmp_path, token=TOKEN) as daemon, trio.open_nursery() as nursery:
        with trio.fail_after(15):
            [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, endless, [listener])
            made = await call(daemon, "POST", "/v1/tokens", {"name": "gone", "scopes": ["exec", "prompt"]})
            own = {"Authorization": f"Bearer {made.json['token']}", "Content-Type": "application/json"}
            created = await call(daemon, "POST", "/v1/sessions", {"agent": "mock", "id": "s"})
            assert created.status == 201
            answers: list[Answer] = []

            async def wait_for_a_turn() -> None:
                target = "/v1/sessions/s/prompt?wait=true"
                answers.append(await exchange(daemon.port, "POST", target, own, b'{"content":"/hang"}'))

            port = listener.socket.getsockname()[1]
            upload = await trio.open_tcp_stream("127.0.0.1", daemon.port)
            async with upload, Stream.open(daemon.port, through(port), own, method="POST") as stream:
                assert stream.head.status == 200
                head = request_bytes("PUT", f"/v1/fs/file?path={tmp_path}/half", own, b"x" * 1000)
                await upload.send_all(head[:-500])
                nursery.start_soon(wait_for_a_turn)
                followed = {**daemon.headers, "Accept": "text/event-stream"}
                async with Stream.open(daemon.port, "/v1/sessions/s/events?kind=turn.started", followed) as events:
                    await events.until(b"turn.started")
                assert (await call(daemon, "DELETE", "/v1/tokens/gone")).status == 204
                await ended(stream)
                assert b" 401 " in await upload.receive_some(1 << 16)
            await eventually(lambda: answers)
            assert answers[0].status == 401
            assert not (tmp_path / "half").exists()
            nursery.cancel_scope.cancel()


async def test_a_token_that_is_taken_back_makes_no_other_with_a_request_that_it_had_begun(tmp_path: Path) -> None:
    async with serving(tmp_path, token=TOKEN) as daemon:
        with trio.fail_after(15):
            made = await call(daemon, "POST", "/v1/tokens", {"name": "gone", "scopes": ["admin"]})
            own = {"Authorization": f"Bearer {made.json['token']}", "Content-Type": "application/json"}
            begun: list[tuple[trio.SocketStream, bytes]] = []
            for target, body in (
                ("/v1/tokens", b'{"name":"heir","scopes":["admin"]}'),
                ("/v1/tokens/default/rotate", b'{"overlap":100}'),
            ):
                stream = await trio.open_tcp_stream("127.0.0.1", daemon.port)
                request = request_bytes("POST", target, own, body)
                await stream.send_all(request[:-5])
                begun.append((stream, request[-5:]))
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert (await call(daemon, "DELETE", "/v1/tokens/gone")).status == 204
            for stream, rest in begun:
                async with stream:
                    await stream.send_all(rest)
                    assert b" 401 " in await stream.receive_some(1 << 16)
            listed = (await call(daemon, "GET", "/v1/tokens")).json["tokens"]
            assert [each["name"] for each in listed] == ["default"]


async def ended(stream: Stream) -> None:
    """Wait until a response is over, whole or cut."""
    try:
        await stream.rest()
    except (h11.RemoteProtocolError, trio.BrokenResourceError):
        return


async def test_an_application_on_a_port_gets_none_of_our_tokens(tmp_path: Path) -> None:
    entries = [TokenEntry("second", token="second-t0ken"), TokenEntry("old", token="old-t0ken", expires=1)]
    further = tokens_of(entries, "start")
    async with answering(http(b"{}")) as (url, asked), serving(tmp_path, token=TOKEN, tokens=further) as daemon:
        for ours in (TOKEN, "second-t0ken", "old-t0ken"):
            headers = {"Authorization": f"Bearer {ours}", "X-Sandbox-Agent-Token": TOKEN}
            assert (await exchange(daemon.port, "GET", through(port_of(url)), headers)).status == 200
            assert "authorization" not in asked.last[1]
            assert "x-sandbox-agent-token" not in asked.last[1]


def test_a_file_of_tokens_is_enough_to_listen_beyond_this_machine(tmp_path: Path) -> None:
    Config(data_dir=tmp_path, host="0.0.0.0", tokens_file=tmp_path / "tokens.toml").check()


async def test_a_file_is_read_again_on_sighup_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    file = private(tmp_path / "tokens.json", json.dumps({"tokens": [{"name": "a", "token": "first-t0ken"}]}))
    env = {"SANDBOX_AGENT_TOKENS_FILE": str(file)}
    with trio.fail_after(60):
        async with started(tmp_path, env=env, token="first-t0ken") as server:

            async def statuses() -> list[int]:
                answers = [
                    await exchange(server.port, "GET", "/v1/health", {"Authorization": f"Bearer {text}"})
                    for text in ("first-t0ken", "second-t0ken")
                ]
                return [answer.status for answer in answers]

            assert await statuses() == [200, 401]
            file.write_text("{ second-t0ken")
            os.kill(server.pid, signal.SIGHUP)
            await server.until("those of before hold on")
            assert await statuses() == [200, 401]
            file.write_text(json.dumps({"tokens": [{"name": "b", "token": "second-t0ken"}]}))
            os.kill(server.pid, signal.SIGHUP)
            await server.until("tokens read again")
            assert await statuses() == [401, 200]
            await server.stop()
        assert "t0ken" not in server.stderr


async def test_a_file_that_cannot_be_used_keeps_the_server_from_starting(tmp_path: Path) -> None:
    file = private(tmp_path / "tokens.json", entry(), 0o644)
    done = await run("server", "--port", "0", "--tokens-file", str(file), "--data-dir", str(tmp_path / "data"))
    assert done.code == 1
    assert done.stderr.startswith("sandbox-agent: others may read or change the tokens file")
    assert "canary" not in done.stderr
