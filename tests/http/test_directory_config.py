"""`/v1/config/mcp` and `/v1/config/skills` on the wire."""

from __future__ import annotations

import json
import os
import resource
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import httpx
import pytest
import trio

from support.daemon import running
from support.serving import serving
from support.wire import exchange

if TYPE_CHECKING:
    from pathlib import Path

    from support.serving import Local
    from support.wire import Answer

JSON = {"Content-Type": "application/json"}

ENTRIES = {
    "mcp": {"type": "local", "command": "npx", "args": ["-y", "server"]},
    "skills": {"sources": [{"type": "github", "source": "o/r", "skills": ["a"]}]},
}
NAMES = {"mcp": "mcpName", "skills": "skillName"}

BROKEN = b'{"x": {"type": "local"}}'


class Api:
    """Requests about one kind of entry."""

    def __init__(self, daemon: Local, kind: str) -> None:
        self.daemon = daemon
        self.kind = kind

    async def send(self, method: str, query: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
        text = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = JSON if headers is None else headers
        return await exchange(self.daemon.port, method, f"/v1/config/{self.kind}?{query}", given, text)

    async def about(self, method: str, directory: object, name: str, body: object = None) -> Answer:
        return await self.send(method, urlencode({"directory": str(directory), NAMES[self.kind]: name}), body)


@pytest.fixture(params=["mcp", "skills"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


async def test_an_entry_is_put_read_replaced_and_deleted(tmp_path: Path, kind: str) -> None:
    name, entry = "a name / with ümläuts\n", ENTRIES[kind]
    async with serving(tmp_path) as daemon:
        api = Api(daemon, kind)
        answer = await api.about("PUT", tmp_path / "new", name, entry)
        assert (answer.status, answer.body) == (204, b"")
        answer = await api.about("GET", tmp_path / "new", name)
        assert (answer.status, answer.json) == (200, entry)
        assert answer.headers["content-type"] == "application/json"
        if kind == "mcp":
            assert answer.body == b'{"type":"local","command":"npx","args":["-y","server"]}'
            assert (await api.about("PUT", tmp_path / "new", name, {"type": "http", "url": "u"})).status == 204
            assert (await api.about("GET", tmp_path / "new", name)).json == {"type": "remote", "url": "u"}
        for _ in range(2):
            answer = await api.about("DELETE", tmp_path / "new", name)
            assert (answer.status, answer.body) == (204, b"")
        answer = await api.about("GET", tmp_path / "new", name)
        assert (answer.status, answer.problem) == (404, "session_not_found")
        assert answer.json["sessionId"] == f"{kind}:{name}"


async def test_the_two_kinds_and_every_directory_are_apart(tmp_path: Path, kind: str) -> None:
    async with serving(tmp_path) as daemon:
        await Api(daemon, kind).about("PUT", tmp_path, "x", ENTRIES[kind])
        other = "skills" if kind == "mcp" else "mcp"
        assert (await Api(daemon, other).about("GET", tmp_path, "x")).status == 404
        assert (await Api(daemon, kind).about("GET", tmp_path / "data", "x")).status == 404
        assert (await Api(daemon, kind).about("GET", f"{tmp_path}/data/..", "x")).status == 200


async def test_the_name_may_be_spelled_in_snake_case(tmp_path: Path, kind: str) -> None:
    alias = {"mcp": "mcp_name", "skills": "skill_name"}[kind]
    async with serving(tmp_path) as daemon:
        api = Api(daemon, kind)
        assert (await api.send("PUT", f"directory={tmp_path}&{alias}=x", ENTRIES[kind])).status == 204
        assert (await api.about("GET", tmp_path, "x")).status == 200


async def test_deleting_what_is_not_there_makes_nothing(tmp_path: Path, kind: str) -> None:
    async with serving(tmp_path / "home") as daemon:
        assert (await Api(daemon, kind).about("DELETE", tmp_path / "x", "x")).status == 204
        assert os.listdir(tmp_path) == ["home"]


async def test_a_relative_directory_is_below_home(tmp_path: Path, kind: str) -> None:
    async with serving(tmp_path, environment={"HOME": str(tmp_path)}) as daemon:
        api = Api(daemon, kind)
        assert (await api.about("PUT", "project", "x", ENTRIES[kind])).status == 204
        assert (await api.about("GET", tmp_path / "project", "x")).status == 200
        answer = await api.about("GET", "project/../..", "x")
        assert (answer.status, answer.detail) == (400, "invalid request: invalid relative path: project/../..")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_directory_and_name_are_needed(tmp_path: Path, kind: str, method: str) -> None:
    name = NAMES[kind]
    async with serving(tmp_path) as daemon:
        for query, missing in [
            (f"{name}=x", "directory"),
            (f"directory=&{name}=x", "directory"),
            (f"directory=%20&{name}=x", "directory"),
            ("directory=/x", name),
            (f"directory=/x&{name}=%20", name),
            ("", "directory"),
        ]:
            answer = await Api(daemon, kind).send(method, query, ENTRIES[kind])
            assert (answer.status, answer.problem) == (400, "invalid_request")
            assert answer.detail == f"invalid request: missing required '{missing}' query parameter"


@pytest.mark.parametrize(
    ("body", "headers", "status", "problem"),
    [
        (b"{}", {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b"{}", {}, 415, "unsupported_media_type"),
        (b"", JSON, 400, "invalid_request"),
        (b"{", JSON, 400, "invalid_request"),
        (b'"\xff"', JSON, 400, "invalid_request"),
        (b"[" * 5000 + b"]" * 5000, JSON, 400, "invalid_request"),
        (b"{}", JSON, 422, "invalid_request"),
        (b"[]", JSON, 422, "invalid_request"),
        (b"null", JSON, 422, "invalid_request"),
        (b'{"type":"remote","url":"u","transport":"ws","sources":7}', JSON, 422, "invalid_request"),
        (b'{"type":"local","command":"x","args":null,"sources":[{}]}', JSON, 422, "invalid_request"),
    ],
)
async def test_what_is_no_entry_is_refused_and_not_stored(
    tmp_path: Path, kind: str, body: bytes, headers: dict[str, str], status: int, problem: str
) -> None:
    async with serving(tmp_path) as daemon:
        query = urlencode({"directory": str(tmp_path / "x"), NAMES[kind]: "x"})
        answer = await Api(daemon, kind).send("PUT", query, body, headers)
        assert (answer.status, answer.problem) == (status, problem)
        assert "x" not in os.listdir(tmp_path)


async def test_a_broken_file_is_told_to_every_call_and_left_alone(tmp_path: Path, kind: str) -> None:
    file = tmp_path / ".sandbox-agent" / "config" / f"{kind}.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(BROKEN)
    async with serving(tmp_path) as daemon:
        for method in ("GET", "PUT", "DELETE"):
            answer = await Api(daemon, kind).about(method, tmp_path, "y", ENTRIES[kind])
            assert (answer.status, answer.problem) == (400, "invalid_request")
            assert answer.detail.startswith(f"invalid request: invalid config file {file}: entry 'x': ")
    assert file.read_bytes() == BROKEN


async def test_what_the_operating_system_refuses_is_a_bad_gateway(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_text("")
    async with serving(tmp_path) as daemon:
        for directory in (tmp_path / "file", "/proc", f"{tmp_path}/\0"):
            answer = await Api(daemon, kind).about("PUT", directory, "x", ENTRIES[kind])
            assert (answer.status, answer.problem) == (502, "stream_error")
            assert answer.detail.startswith("stream error: ")
            assert "(os error " in answer.json["details"]["message"]


async def test_fifos_in_the_place_of_files_hold_up_nobody(tmp_path: Path) -> None:
    file = tmp_path / ".sandbox-agent" / "config" / "mcp.json"
    file.parent.mkdir(parents=True)
    os.mkfifo(file)
    answers: list[Answer] = []
    async with serving(tmp_path) as daemon:
        api = Api(daemon, "mcp")

        async def ask(method: str) -> None:
            answers.append(await api.about(method, tmp_path, "x", ENTRIES["mcp"]))

        async with trio.open_nursery() as nursery:
            for method in ["GET", "PUT", "DELETE"] * 15:
                nursery.start_soon(ask, method)
        assert {answer.status for answer in answers} == {400}
        assert (await exchange(daemon.port, "GET", "/v1/health")).status == 200


async def test_two_hundred_parallel_changes_lose_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "daemon") as daemon, running(tmp_path / "other daemon") as other:
        statuses: list[int] = []
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client, trio.open_nursery() as nursery:

            async def put(number: int) -> None:
                at = other if number % 8 == 0 else daemon
                response = await client.put(
                    f"{at.url}/v1/config/mcp",
                    params={"directory": str(tmp_path), "mcpName": f"n{number}"},
                    headers=at.headers,
                    json={"type": "local", "command": f"c{number}"},
                )
                statuses.append(response.status_code)

            for number in range(200):
                nursery.start_soon(put, number)
        assert statuses == [204] * 200
    file = tmp_path / ".sandbox-agent" / "config" / "mcp.json"
    stored: dict[str, Any] = json.loads(file.read_bytes())
    assert {name: entry["command"] for name, entry in stored.items()} == {f"n{i}": f"c{i}" for i in range(200)}
    assert list(stored) == sorted(stored)
    assert sorted(os.listdir(file.parent)) == [".mcp.json.lock", ".mcp.json.mac", "mcp.json"]


async def test_a_full_disk_costs_the_change_and_nothing_that_was_there(tmp_path: Path) -> None:
    async with (
        running(tmp_path / "daemon") as daemon,
        httpx.AsyncClient(headers=daemon.headers, trust_env=False) as client,
    ):
        url = f"{daemon.url}/v1/config/mcp"
        about = {"directory": str(tmp_path), "mcpName": "x"}
        put = partial(client.put, url, params=about)
        assert (await put(json={"type": "local", "command": "x"})).status_code == 204
        hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (4096, hard))
        response = await put(json={"type": "local", "command": "y" * 100_000})
        resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (hard, hard))
        assert response.status_code == 502
        assert response.json()["type"] == "urn:sandbox-agent:error:stream_error"
        assert (await client.get(url, params=about)).json()["command"] == "x"
        assert sorted(os.listdir(tmp_path / ".sandbox-agent" / "config")) == [
            ".mcp.json.lock",
            ".mcp.json.mac",
            "mcp.json",
        ]
        assert (await put(json={"type": "local", "command": "z"})).status_code == 204
