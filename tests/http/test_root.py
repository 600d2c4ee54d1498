"""Nothing leads out of a root, whatever is asked for: every operation on files and repositories, over HTTP.

Processes are not kept in it: they are programs, and what those may reach is the sandbox's business.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from actors.packing import Item, tar
from support.repositories import new_repository
from support.serving import routes, serving
from support.wire import WebSocket, exchange
from support.yard import OUTSIDE, SECRET, Yard, paths, swapping

if TYPE_CHECKING:
    from pathlib import Path

    from support.serving import Local
    from support.wire import Answer

CORPUS = settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # each example is a daemon, and hundreds of requests
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

SWAPPED_EVERY = 1e-4
"""Seconds. A request takes many times as long."""

JSON = {"Content-Type": "application/json"}
TAR = {"Content-Type": "application/x-tar"}
ARCHIVE = tar([Item("unpacked/file", b"from inside"), Item("new", b"from inside")])


@dataclass(frozen=True)
class Operation:
    """What can be done with a path; it takes the place of `PATH`, as a parameter or as JSON, and the root of `ROOT`.

    Attributes:
      named: the path has to end in a name; of a link at its end the link itself may be meant.
    """

    method: str
    target: str
    body: bytes = b""
    named: bool = False

    @property
    def route(self) -> tuple[str, str]:
        return self.method, self.target.partition("?")[0]

    async def ask(self, daemon: Local, yard: Yard, path: str) -> Answer | None:
        """The answer; None where a WebSocket was opened."""
        target = self.target.replace("PATH", quote(path, safe=""))
        if self.method == "WEBSOCKET":
            async with WebSocket.open(daemon.port, target) as socket:
                return socket.refusal
        headers = TAR if self.body is ARCHIVE else JSON
        body = self.body.replace(b"PATH", json.dumps(path).encode()).replace(b"ROOT", bytes(yard.root))
        return await exchange(daemon.port, self.method, target, headers, body, within=20)


OPERATIONS = [
    Operation("GET", "/v1/fs/entries?path=PATH"),
    Operation("GET", "/v1/fs/stat?path=PATH"),
    Operation("GET", "/v1/fs/file?path=PATH"),
    Operation("PUT", "/v1/fs/file?path=PATH", b"from inside", named=True),
    Operation("PUT", "/v1/fs/file?append=true&path=PATH", b"from inside", named=True),
    Operation("POST", "/v1/fs/mkdir?path=PATH"),
    Operation("POST", "/v1/fs/chmod?mode=777&path=PATH"),
    Operation("POST", "/v1/fs/upload-batch?path=PATH", ARCHIVE),
    Operation("GET", "/v1/fs/archive?format=tar&path=PATH"),
    Operation("GET", "/v1/fs/watch?path=PATH"),
    Operation("WEBSOCKET", "/v1/fs/watch?path=PATH"),
    Operation("GET", "/v1/fs/find?path=PATH"),
    Operation("GET", "/v1/fs/grep?pattern=.&path=PATH"),
    Operation("GET", "/v1/git/status?directory=PATH"),
    Operation("GET", "/v1/git/diff?directory=PATH"),
    Operation("GET", "/v1/git/log?directory=PATH"),
    Operation("GET", "/v1/git/branches?directory=PATH"),
    Operation("POST", "/v1/git/branches?directory=PATH", b'{"name": "other"}'),
    Operation("DELETE", "/v1/git/branches?name=other&directory=PATH"),
    Operation("POST", "/v1/git/checkout?directory=PATH", b'{"branch": "main", "force": true}'),
    Operation("POST", "/v1/git/add?directory=PATH", b"{}"),
    Operation("POST", "/v1/git/commit?directory=PATH", b'{"message": "x", "allowEmpty": true}'),
    Operation("POST", "/v1/git/clone?directory=PATH", b'{"url": "file://ROOT/repository"}', named=True),
    Operation("POST", "/v1/fs/move", b'{"from": "file", "to": PATH, "overwrite": true}', named=True),
    Operation("POST", "/v1/fs/move", b'{"from": PATH, "to": "moved", "overwrite": true}', named=True),
    Operation("DELETE", "/v1/fs/entry?recursive=true&path=PATH", named=True),
]


def test_every_operation_is_tried(tmp_path: Path) -> None:
    tried = {operation.route for operation in OPERATIONS}
    for route in routes(tmp_path):
        if route.template.startswith(("/v1/fs/", "/v1/git/")):
            for method in route.methods or ["WEBSOCKET"]:
                assert method == "HEAD" or (method, route.template) in tried


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return filled(tmp_path)


def filled(place: Path) -> Yard:
    """A yard with a repository inside, and one outside."""
    if not (place / "outside/folder").exists():
        new_repository(place / "root/repository", file="x")
        new_repository(place / "outside/folder", tracked=SECRET)
        (place / "outside/folder/tracked").write_text(f"{SECRET} but git")
        (place / "outside/folder/deep").mkdir()
    yard = Yard(place)
    yard.fill()
    return yard


def told(answer: Answer | None) -> bool:
    """Whether an answer tells something of what is outside; a path that was asked for may be repeated."""
    return answer is not None and (
        SECRET.encode() in answer.body or (answer.status < 400 and b"only-outside" in answer.body)
    )


async def test_what_leads_out_is_refused_by_every_operation(tmp_path: Path, yard: Yard) -> None:
    async with serving(tmp_path / "daemon", fs_root=yard.root, environment={"HOME": str(yard.root)}) as daemon:
        for template in [*OUTSIDE, "to-out/folder", "{root}/dir/../../outside/folder", "{outside}/folder"]:
            path = yard.path(template)
            for operation in OPERATIONS:
                answer = await operation.ask(daemon, yard, f"{path}/x" if operation.named else f"{path}/.")
                assert answer is not None, (operation, path)
                assert (answer.status, answer.problem) == (403, "permission_denied"), (operation, path, answer)
                assert not told(answer), (operation, path)
    assert yard.seen() == yard.before


@CORPUS
@given(templates=st.lists(paths(), min_size=6, max_size=6))
async def test_no_path_leads_out_by_any_operation(tmp_path: Path, templates: list[str]) -> None:
    yard = filled(tmp_path)
    async with serving(tmp_path / "daemon", fs_root=yard.root, environment={"HOME": str(yard.root / "dir")}) as daemon:
        for template in templates:
            yard.fill()
            for operation in OPERATIONS:
                answer = await operation.ask(daemon, yard, yard.path(template))
                assert not told(answer), (operation, template)
                assert answer is None or answer.status < 500 or answer.problem == "stream_error", (operation, template)
    assert yard.seen() == yard.before


async def test_a_link_that_is_swapped_in_while_an_operation_goes_on_does_not_lead_out(
    tmp_path: Path, yard: Yard
) -> None:
    statuses: dict[Operation, set[int]] = {}
    async with serving(tmp_path / "daemon", fs_root=yard.root, environment={"HOME": str(yard.root)}) as daemon:
        with swapping(yard, pause=SWAPPED_EVERY):
            for number in range(4):
                for operation in OPERATIONS[:-2]:  # the folder itself is to stay
                    for path in ("x", f"x/secret-{number}", f"{yard.root}/x/deep/../secret"):
                        answer = await operation.ask(daemon, yard, path)
                        assert not told(answer), (operation, answer)
                        statuses.setdefault(operation, set()).add(200 if answer is None else answer.status)
        assert {200, 403} <= set().union(*statuses.values()), "it was swapped all the while"
    assert yard.seen() == yard.before


async def test_who_watches_a_folder_that_is_swapped_hears_only_of_what_is_inside(tmp_path: Path, yard: Yard) -> None:
    async with (
        serving(tmp_path / "daemon", fs_root=yard.root, environment={"HOME": str(yard.root)}) as daemon,
        trio.open_nursery() as nursery,
    ):
        heard: set[str] = set()
        opened: list[trio.Event] = []

        async def watch(ready: trio.Event) -> None:
            async with WebSocket.open(daemon.port, "/v1/fs/watch?path=x/deep") as socket:
                if socket.refusal is not None:
                    assert socket.refusal.status == 403
                    ready.set()
                    return
                await socket.until(type="ready")
                ready.set()
                name = ""
                while name != "marker":
                    name = (await socket.receive_json())["path"].rpartition("/")[2]
                    heard.add(name)

        with swapping(yard, pause=SWAPPED_EVERY):
            for _ in range(40):
                opened.append(trio.Event())
                nursery.start_soon(watch, opened[-1])
            with trio.fail_after(20):
                for event in opened:
                    await event.wait()
        (yard.outside / "folder/deep/heard").touch()
        (yard.outside / "folder/deep/heard").unlink()
        inside = next(folder for folder in (yard.root / "x", yard.root / "other") if not folder.is_symlink())
        (inside / "deep/marker").touch()
    assert heard == {"marker"}
