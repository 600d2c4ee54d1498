"""The WebSocket of a terminal, frame by frame: who sees what, who may write, and how it ends."""

from __future__ import annotations

import json
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trio
import trio.testing

from support.process_client import ProcessClient
from support.serving import TOKEN, Resources, serving
from support.wire import Closed, WebSocket, exchange

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

Json = Any
WITHIN = 20
PROMPT = """printf '> '
while read word; do
    case $word in exit) exit 7;; *) echo "<$word>";; esac
    printf '> '
done"""
FLOOD = (
    "import sys; read = sys.stdin.readline; read(); sys.stdout.buffer.write(b'0123456789abcde\\n' * {count}); read()"
)


class Viewer:
    """A client's end, and what it has been shown and told."""

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.shown = bytearray()
        self.told: list[Json] = []
        self.skipped = 0

    async def next(self) -> Json:
        """One more frame; the text ones as JSON, None for what is shown."""
        frame = await self.socket.receive()
        if isinstance(frame, bytes):
            assert frame, "a frame without anything in it"
            self.shown += frame
            return None
        assert isinstance(frame, str), frame
        self.told.append(json.loads(frame))
        if self.told[-1]["type"] == "skipped":
            self.skipped += self.told[-1]["bytes"]
        return self.told[-1]

    async def until(self, text: bytes) -> None:
        """Wait until it is shown this."""
        while text not in self.shown:
            await self.next()

    async def until_told(self, type: str) -> Json:
        while True:
            frame = await self.next()
            if frame is not None and frame["type"] == type:
                return frame

    async def type(self, text: str, **more: Json) -> None:
        await self.socket.send_json({"type": "input", "data": text, **more})

    async def refusal(self) -> str:
        """Why the last frame was not taken."""
        message: str = (await self.until_told("error"))["message"]
        return message


@asynccontextmanager
async def terminal(home: Path, *argv: str, **more: Json) -> AsyncGenerator[ProcessClient]:
    """An application of a daemon with one terminal, `proc_1`."""
    with trio.fail_after(WITHIN):
        async with serving(home) as daemon:
            app = ProcessClient(daemon)
            assert await app.create(*argv, tty=True, **more) == "proc_1"
            yield app


@asynccontextmanager
async def viewing(app: ProcessClient, id: str = "proc_1") -> AsyncGenerator[Viewer]:
    async with WebSocket.open(app.daemon.port, f"/v1/processes/{id}/terminal/ws", app.daemon.headers) as socket:
        assert socket.refusal is None
        viewer = Viewer(socket)
        assert await viewer.next() == {"processId": id, "type": "ready"}
        yield viewer


async def test_frames_come_in_their_order_and_the_last_tells_the_exit(tmp_path: Path) -> None:
    async with terminal(tmp_path, "sh", "-c", PROMPT) as app, viewing(app) as viewer:
        await viewer.until(b"> ")
        await viewer.type("one\n")
        await viewer.until(b"one\r\n<one>\r\n> ")
        await viewer.type("zwölf\n", encoding="utf8")
        await viewer.until("<zwölf>\r\n> ".encode())
        await viewer.type("YmFzZWQK", encoding="base64")
        await viewer.until(b"<based>\r\n> ")
        assert len(viewer.told) == 1
        await viewer.type("exit\n")
        assert await viewer.until_told("exit") == {"exitCode": 7, "type": "exit"}
        assert await viewer.socket.receive() == Closed(1000, "")
        assert viewer.shown.endswith(b"> exit\r\n")
        record = await app.get("/proc_1")
        assert (record["status"], record["exitCode"]) == ("exited", 7)


async def test_who_comes_late_sees_what_was_there_also_after_the_end(tmp_path: Path) -> None:
    async with terminal(tmp_path, "sh", "-c", PROMPT) as app:
        async with viewing(app) as viewer:
            await viewer.type("one\n")
            await viewer.until(b"<one>\r\n> ")
        async with viewing(app) as again:
            await again.until(bytes(viewer.shown))
            assert again.shown == viewer.shown
            await again.type("exit\n")
            await again.until_told("exit")
        async with viewing(app) as late:
            assert await late.until_told("exit") == {"exitCode": 7, "type": "exit"}
            assert late.shown == again.shown


async def test_a_past_that_is_cut_begins_with_a_whole_line(tmp_path: Path) -> None:
    async with terminal(tmp_path, "sleep", "0") as app:
        config = await app.get("/config")
        await app.post("/config", {**config, "terminalScrollbackBytes": 200_000})
        script = "import sys; sys.stdout.buffer.write(b'0123456789abcde\\n' * 60000)"
        id = await app.create(sys.executable, "-I", "-S", "-c", script, tty=True)
        await app.exited(id)
        async with viewing(app, id) as viewer:
            await viewer.until_told("exit")
        lines = bytes(viewer.shown).split(b"\r\n")
        assert set(lines[:-1]) == {b"0123456789abcde"}
        assert 100_000 < len(viewer.shown) <= 200_000
        await app.post("/config", {**config, "terminalScrollbackBytes": 0})
        async with viewing(app, id) as blind:
            await blind.until_told("exit")
        assert blind.shown == b""


BAD_FRAMES = {
    "{": "invalid terminal frame: ",
    "[]": "invalid terminal frame: ",
    "{}": "invalid terminal frame: ",
    '{"type":1}': "invalid terminal frame: ",
    '{"type":"input"}': "invalid terminal frame: ",
    '{"type":"input","data":1}': "invalid terminal frame: ",
    '{"type":"resize","cols":-1,"rows":2}': "invalid terminal frame: ",
    '{"type":"resize","cols":65536,"rows":2}': "invalid terminal frame: ",
    '{"type":"resize","cols":0,"rows":2}': "invalid request: a terminal has at least one row and one column",
    '{"type":"ping"}': "invalid terminal frame: unknown variant `ping`, expected one of `input`, `resize`, `close`",
    '{"type":"input","data":"x","encoding":"hex"}': "invalid request: encoding must be one of: base64, utf8, text",
    '{"type":"input","data":"*","encoding":"base64"}': "invalid request: invalid base64 input: ",
    '{"type":"input","data":"%s"}' % ("x" * 65_537): "input payload exceeds maxInputBytesPerRequest (65536)",
    "[" * 100_000: "invalid terminal frame: ",
}


async def test_a_bad_frame_is_answered_and_the_connection_stays(tmp_path: Path) -> None:
    async with terminal(tmp_path, "sh", "-c", PROMPT) as app, viewing(app) as viewer:
        for frame, message in BAD_FRAMES.items():
            await viewer.socket.send(frame)
            assert (await viewer.refusal()).startswith(message), frame[:50]
        for data in (b"\x01\x02", b""):
            await viewer.socket.send(data)
            assert await viewer.refusal() == "binary input is not supported; use text JSON frames"
        await viewer.type("alive\n")
        await viewer.until(b"<alive>\r\n")


async def test_input_that_nobody_reads_is_refused_at_once(tmp_path: Path) -> None:
    async with terminal(tmp_path, "sh", "-c", "stty raw -echo; echo ready; sleep 60") as app, viewing(app) as viewer:
        await viewer.until(b"ready")
        for _ in range(40):
            await viewer.type("x" * 60_000)
        assert (await viewer.refusal()).startswith("the process does not read its input: ")


async def test_sizes_come_by_frame(tmp_path: Path) -> None:
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.02; done"
    async with terminal(tmp_path, "sh", "-c", script) as app, viewing(app) as viewer:
        await viewer.until(b"24 80\r\n")
        await viewer.socket.send_json({"type": "resize", "cols": 132, "rows": 43})
        await viewer.until(b"43 132\r\n")


async def test_viewers_see_the_same_and_leaving_is_no_end(tmp_path: Path) -> None:
    async with terminal(tmp_path, "sh", "-c", PROMPT) as app, viewing(app) as ann:
        async with viewing(app) as bob:
            await ann.type("from ann\n")
            await bob.type("from bob\n")
            for viewer in (ann, bob):
                await viewer.until(b"<from ann>")
                await viewer.until(b"<from bob>")
            await bob.socket.send_json({"type": "close"})
            assert isinstance(await bob.socket.end(), Closed)
        await ann.type("alone\n")
        await ann.until(b"<alone>")
        assert b"alone" not in bob.shown


async def test_one_viewer_may_take_over_until_it_gives_up_or_leaves(tmp_path: Path) -> None:
    taken = "conflict: another viewer has taken the terminal over; send a takeover frame to do so"
    async with terminal(tmp_path, "sh", "-c", PROMPT) as app, viewing(app) as ann:
        async with viewing(app) as bob:
            await bob.socket.send_json({"type": "takeover"})
            await bob.type("bobs\n")
            await ann.until(b"<bobs>")
            for frame in ({"type": "input", "data": "anns\n"}, {"type": "resize", "cols": 10, "rows": 10}):
                await ann.socket.send_json(frame)
                assert await ann.refusal() == taken
            await ann.socket.send_json({"type": "release"})  # it is not ann's to give
            await ann.type("anns\n")
            assert await ann.refusal() == taken
            await bob.socket.send_json({"type": "release"})
            await bob.type("both\n")
            await ann.until(b"<both>")
            await ann.type("again\n")
            await ann.until(b"<again>")
            await bob.socket.send_json({"type": "takeover"})
            await bob.type("once\n")
            await ann.until(b"<once>")
        while True:  # until the server has noticed that bob is gone
            await ann.type("free\n")
            frame = await ann.next()
            if frame is None and b"<free>" in ann.shown:
                break
        assert b"<anns>" not in ann.shown


async def test_a_viewer_that_does_not_read_holds_up_nobody_and_is_told_what_it_missed(tmp_path: Path) -> None:
    count = 1_600_000
    script = FLOOD.format(count=count)
    total = count * len("0123456789abcde\r\n")
    async with terminal(tmp_path, "true") as app:
        await app.post("/config", {**await app.get("/config"), "maxLogBytesPerProcess": 4 << 20})
        id = await app.create(sys.executable, "-I", "-S", "-c", script, tty=True)
        async with viewing(app, id) as slow, viewing(app, id) as quick:
            await quick.type("go\n")
            await quick.until(b"go\r\n")
            while len(quick.shown) + quick.skipped < total + len("go\r\n"):
                await quick.next()
            # All was written, though one has read nothing yet.
            await quick.type("end\n")
            await quick.until_told("exit")
            assert slow.shown == b""
            await slow.until_told("exit")
            assert slow.skipped > 0
            expected = total + len("go\r\n") + len("end\r\n")
            assert (len(slow.shown) + slow.skipped, len(quick.shown) + quick.skipped) == (expected, expected)
            assert slow.shown.endswith(b"0123456789abcde\r\n" * 1000 + b"end\r\n")


async def test_output_faster_than_any_line_comes_whole_to_who_reads(tmp_path: Path) -> None:
    count = 400_000
    script = FLOOD.format(count=count)
    async with terminal(tmp_path, sys.executable, "-I", "-S", "-c", script) as app, viewing(app) as viewer:
        await viewer.type("go\n")
        await viewer.until(b"go\r\n" + b"0123456789abcde\r\n" * count)
        assert viewer.skipped == 0


async def test_only_terminals_can_be_looked_at(tmp_path: Path) -> None:
    async with terminal(tmp_path, "cat") as app:
        pipe = await app.create("cat")
        for id, status, problem in (("nope", 404, "not_found"), (pipe, 409, "conflict")):
            async with WebSocket.open(app.daemon.port, f"/v1/processes/{id}/terminal/ws") as socket:
                assert socket.refusal is not None
                assert (socket.refusal.status, socket.refusal.problem) == (status, problem)
        answer = await app.ask("GET", "/proc_1/terminal/ws")
        assert answer.status == 400


async def test_too_many_viewers_are_refused(tmp_path: Path) -> None:
    async with terminal(tmp_path, "cat") as app, trio.open_nursery() as nursery:
        viewers: list[Viewer] = []

        async def look() -> None:
            async with viewing(app) as viewer:
                viewers.append(viewer)
                await viewer.until_told("exit")

        for _ in range(32):
            nursery.start_soon(look)
        while len(viewers) < 32:
            await trio.testing.wait_all_tasks_blocked(0.01)
        async with WebSocket.open(app.daemon.port, "/v1/processes/proc_1/terminal/ws") as socket:
            assert socket.refusal is not None
            assert socket.refusal.status == 409
        await app.post("/proc_1/kill")


async def test_the_token_may_stand_in_the_query_of_a_terminal_and_nowhere_else(tmp_path: Path) -> None:
    token = "t&k+ n/" + TOKEN
    with trio.fail_after(WITHIN):
        async with serving(tmp_path, token=token) as daemon:
            app = ProcessClient(daemon)
            await app.create("cat", tty=True)
            path = "/v1/processes/proc_1/terminal/ws"
            for query, headers, status in (
                ("", {}, 401),
                ("?access_token=", {}, 401),
                (f"?access_token={quote('ü' + token)}", {}, 401),
                (f"?access_token=%ff{TOKEN}", {}, 401),
                (f"?access_token={quote(token)}", {}, None),
                (f"?access_token=wrong&access_token={quote(token)}", {}, None),
                (f"?access_token={quote(token)}", {"Authorization": "Bearer wrong"}, None),
                ("?access_token=wrong", {"Authorization": f"Bearer {token}"}, None),
            ):
                async with WebSocket.open(daemon.port, path + query, headers) as socket:
                    assert (socket.refusal.status if socket.refusal else None) == status
            async with WebSocket.open(daemon.port, f"/v1/acp/x?access_token={quote(token)}") as socket:
                assert socket.refusal is not None
                assert socket.refusal.status == 401
            for target in (f"{path}?access_token={quote(token)}", f"/v1/processes?access_token={quote(token)}"):
                assert (await exchange(daemon.port, "GET", target)).status == 401


async def test_no_page_of_another_origin_may_look(tmp_path: Path) -> None:
    async with terminal(tmp_path, "cat") as app:
        headers = {"Origin": "https://example.com"}
        async with WebSocket.open(app.daemon.port, "/v1/processes/proc_1/terminal/ws", headers) as socket:
            assert socket.refusal is not None
            assert socket.refusal.status == 403


async def test_frames_are_not_compressed_whatever_the_client_offers(tmp_path: Path) -> None:
    async with terminal(tmp_path, "echo", "hello") as app:
        headers = {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"}
        async with WebSocket.open(app.daemon.port, "/v1/processes/proc_1/terminal/ws", headers) as socket:
            viewer = Viewer(socket)
            await viewer.until(b"hello\r\n")


async def test_viewers_are_told_when_the_daemon_goes(tmp_path: Path) -> None:
    ends: list[Closed] = []

    async def look(app: ProcessClient, looking: trio.Event) -> None:
        async with viewing(app) as viewer:
            await viewer.until(b"ready")
            looking.set()
            assert (await viewer.until_told("exit"))["exitCode"] is None
            ends.append(await viewer.socket.end())

    async with trio.open_nursery() as nursery, terminal(tmp_path, "sh", "-c", "echo ready; sleep 60") as app:
        looking = trio.Event()
        nursery.start_soon(look, app, looking)
        await looking.wait()
    assert ends == [Closed(1001, "")]


async def test_nothing_of_viewers_is_held_when_they_are_gone(tmp_path: Path) -> None:
    async with terminal(tmp_path, "cat") as app:
        async with viewing(app):
            pass
        before = Resources.now()
        for _ in range(10):
            async with viewing(app), viewing(app):
                pass
        await before.back()


@pytest.mark.parametrize("keys", ["\x03", "\x1c"])
async def test_keys_that_interrupt_do(tmp_path: Path, keys: str) -> None:
    script = "trap 'echo interrupted; exit 5' INT QUIT; echo ready; while :; do sleep 0.02; done"
    async with terminal(tmp_path, "sh", "-c", script) as app, viewing(app) as viewer:
        await viewer.until(b"ready")
        await viewer.type(keys)
        assert (await viewer.until_told("exit"))["exitCode"] == 5
        assert viewer.shown.endswith(b"interrupted\r\n")
