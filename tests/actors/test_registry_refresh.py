"""Fetching a registry document, from a file or a URL, and keeping it."""

from __future__ import annotations

import json
import os
import stat
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import h11
import pytest
import trio

from sandbox_actors.catalog import BadCatalog
from sandbox_actors.catalog.changes import Change
from sandbox_actors.catalog.refresh import clear_registry, refresh_registry
from sandbox_actors.catalog.registry import MAX_DOCUMENT, Skipped
from sandbox_actors.catalog.sources import registry_cache

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from trio.testing import MockClock


def document(*entries: object) -> bytes:
    return json.dumps({"version": "1.0.0", "agents": entries}).encode()


def npx(id: str, package: str) -> dict[str, object]:
    return {"id": id, "distribution": {"npx": {"package": package}}}


@pytest.mark.parametrize("form", ["{path}", "file://{path}", "file://localhost{path}"])
async def test_a_document_is_taken_from_a_file_and_kept(tmp_path: Path, form: str) -> None:
    source, cache = tmp_path / "given.json", registry_cache(tmp_path / "data" / "new")
    source.write_bytes(document(npx("pi-acp", "pi-acp@0.0.40"), {"id": "bad"}))
    changes, skipped = await refresh_registry(form.format(path=source), cache)
    assert changes == [Change("repinned", "pi", "pi-acp", "pi-acp@0.0.34", "pi-acp@0.0.40")]
    assert skipped == [Skipped("bad", "Object missing required field `distribution`")]
    assert cache.read_bytes() == source.read_bytes()
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600
    assert os.listdir(cache.parent) == ["registry.json"]


async def test_a_document_that_cannot_be_used_leaves_the_one_before(tmp_path: Path) -> None:
    cache, source = registry_cache(tmp_path), tmp_path / "given.json"
    cache.write_bytes(kept := document(npx("bot", "bot@1")))
    source.write_bytes(b'{"agents": {}}')
    with pytest.raises(BadCatalog, match=r"the registry document .*given.json is not valid: Expected `array`"):
        await refresh_registry(str(source), cache)
    os.truncate(source, MAX_DOCUMENT + 1)
    with pytest.raises(BadCatalog, match=r"given.json is larger than 16 MiB"):
        await refresh_registry(str(source), cache)
    assert cache.read_bytes() == kept


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("/nowhere/registry.json", "cannot read the registry document /nowhere/registry.json: No such file or dir"),
        ("/tmp", "cannot read the registry document /tmp: Is a directory"),
        ("http://mirror.example/r.json", "http://mirror.example/r.json must come over https"),
        ("ftp://mirror.example/r.json", "cannot be fetched by ftp: give an https URL or a file"),
        ("file://mirror.example/r.json", "is on another machine: give its https URL"),
        ("https:///r.json", "the URL of the registry document names no host"),
        ("http://[::1/s3cret", "the URL of the registry document cannot be understood"),
        ("http://127.0.0.1:1/r.json", "cannot fetch the registry document http://127.0.0.1:1/r.json: "),
    ],
)
async def test_a_source_that_cannot_be_used_is_refused(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(BadCatalog) as refused:
        await refresh_registry(source, registry_cache(tmp_path))
    assert message in str(refused.value)
    assert os.listdir(tmp_path) == []


async def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    source = tmp_path / "given.json"
    source.write_bytes(document())
    with pytest.raises(BadCatalog, match=r"cannot write the registry document to .*: Not a directory"):
        await refresh_registry(str(source), registry_cache(source / "data"))


def test_clearing_forgets_the_document_once(tmp_path: Path) -> None:
    cache = registry_cache(tmp_path)
    cache.write_bytes(document())
    assert clear_registry(cache)
    assert not cache.exists()
    assert not clear_registry(cache)
    cache.mkdir()
    with pytest.raises(BadCatalog, match="cannot remove the registry document"):
        clear_registry(cache)


@asynccontextmanager
async def host(answers: Mapping[str, tuple[int, dict[str, str], bytes]]) -> AsyncGenerator[str]:
    """A server on loopback with an answer for each path, one request a connection; yields its URL."""

    async def serve(stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        async with stream:
            while not isinstance(request := connection.next_event(), h11.Request):
                connection.receive_data(await stream.receive_some())
            assert dict(request.headers)[b"accept-encoding"] == b"identity"
            status, headers, body = answers[request.target.decode()]
            head = h11.Response(status_code=status, headers=[*headers.items(), ("Connection", "close")])
            try:
                await stream.send_all(connection.send(head) or b"")
                await stream.send_all(connection.send(h11.Data(body)) or b"")
                await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
            except trio.BrokenResourceError:
                return  # it has seen enough

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_a_document_is_fetched_from_a_url_and_redirects_are_followed(tmp_path: Path) -> None:
    body = document(npx("bot", "bot@1.0.0"))
    answers = {
        "/r.json?key=s3cret": (302, {"Location": "/moved/"}, b""),
        "/moved/": (308, {"Location": "there.json"}, b""),
        "/moved/there.json": (200, {}, body),
    }
    async with host(answers) as url:
        changes, _ = await refresh_registry(f"{url}/r.json?key=s3cret", registry_cache(tmp_path))
    assert [(change.kind, change.agent) for change in changes] == [("added", "bot")]
    assert registry_cache(tmp_path).read_bytes() == body


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {}, b"not here"), "the server answered 404"),
        ((200, {}, b"<html>"), "is not valid: "),
        ((200, {}, b" " * (MAX_DOCUMENT + 1)), "is larger than 16 MiB"),
        ((302, {"Location": "/r.json"}, b""), "more than 5 redirects"),
        ((302, {"Location": "http://mirror.example/r.json"}, b""), "must come over https; http is for this machine"),
        ((302, {"Location": "file:///etc/passwd"}, b""), "must come over https"),
        ((302, {}, b""), "the server answered 302"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_told_without_the_secrets_of_the_url(
    tmp_path: Path, answer: tuple[int, dict[str, str], bytes], message: str
) -> None:
    async with host({"/r.json": answer, "/r.json?key=s3cret": answer}) as url:
        source = url.replace("//", "//user:s3cret@") + "/r.json?key=s3cret"
        with pytest.raises(BadCatalog) as refused:
            await refresh_registry(source, registry_cache(tmp_path))
    assert message in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert os.listdir(tmp_path) == []


async def test_a_server_that_says_nothing_is_given_up(tmp_path: Path, autojump_clock: MockClock) -> None:
    async def say_nothing(_stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, say_nothing, 0, host="127.0.0.1"))
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/r.json"
        with pytest.raises(BadCatalog, match=f"cannot fetch the registry document {url}: "):
            await refresh_registry(url, registry_cache(tmp_path))
        nursery.cancel_scope.cancel()


async def test_a_proxy_of_no_use_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "foo://user:hunter2@127.0.0.1:9")
    with pytest.raises(BadCatalog, match="such as ALL_PROXY") as refused:
        await refresh_registry("https://registry.invalid/", registry_cache(tmp_path))
    assert "hunter2" not in str(refused.value)
