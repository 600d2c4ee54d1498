"""`/v1/processes` by its wire: every endpoint, every refusal, and what is beyond the public one."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio

from support.process_client import ProcessClient
from support.processes import alive, eventually
from support.serving import TOKEN, Resources, serving
from support.wire import exchange, request_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


Json = Any
WITHIN = 20
CONFIG = {
    "maxConcurrentProcesses": 64,
    "defaultRunTimeoutMs": 30000,
    "maxRunTimeoutMs": 300000,
    "maxOutputBytes": 1048576,
    "maxLogBytesPerProcess": 10485760,
    "maxInputBytesPerRequest": 65536,
}
BEYOND = {
    "maxExitedProcesses": 256,
    "maxExitedLogBytes": 64 << 20,
    "maxTerminals": 64,
    "terminalScrollbackBytes": 1 << 20,
    "terminalIdleMs": 0,
}


@asynccontextmanager
async def client(home: Path) -> AsyncGenerator[ProcessClient]:
    with trio.fail_after(WITHIN):
        async with serving(home) as daemon:
            yield ProcessClient(daemon)


async def test_the_configuration_is_told_and_replaced(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        assert await app.get("/config") == {**CONFIG, **BEYOND}
        changed = {**CONFIG, "maxConcurrentProcesses": 3, "maxRunTimeoutMs": 1000}
        assert await app.post("/config", changed) == {**changed, **BEYOND, "defaultRunTimeoutMs": 1000}
        assert await app.get("/config") == {**changed, **BEYOND, "defaultRunTimeoutMs": 1000}
        # What is beyond the public wire stays as it is unless it is named.
        assert (await app.post("/config", {**CONFIG, "maxTerminals": 5}))["maxTerminals"] == 5
        assert (await app.post("/config", CONFIG))["maxTerminals"] == 5


BAD_CONFIG: list[tuple[Json, int, str | None]] = [
    ({"maxConcurrentProcesses": 0}, 400, "invalid request: maxConcurrentProcesses must be greater than 0"),
    ({"maxRunTimeoutMs": 0}, 400, "invalid request: timeouts must be greater than 0"),
    ({"defaultRunTimeoutMs": 0}, 400, "invalid request: timeouts must be greater than 0"),
    ({"maxOutputBytes": 0}, 400, "invalid request: byte limits must be greater than 0"),
    ({"maxLogBytesPerProcess": 0}, 400, "invalid request: byte limits must be greater than 0"),
    ({"maxInputBytesPerRequest": 0}, 400, "invalid request: byte limits must be greater than 0"),
    ({"maxInputBytesPerRequest": -1}, 422, None),
    ({"maxInputBytesPerRequest": None}, 422, None),
    ({"maxInputBytesPerRequest": "1"}, 422, None),
]


async def test_a_configuration_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        for change, status, detail in BAD_CONFIG:
            answer = await app.ask("POST", "/config", {**CONFIG, **change})
            assert (answer.status, answer.problem) == (status, "invalid_request"), change
            assert detail in (None, answer.detail)
        assert await app.get("/config") == {**CONFIG, **BEYOND}


async def test_a_command_is_run_and_its_result_given(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        result = await app.post("/run", {"command": "sh", "args": ["-c", "echo out; echo err >&2; exit 3"]})
        duration = result.pop("durationMs")
        assert isinstance(duration, int)
        assert list(result.items()) == [
            ("exitCode", 3),
            ("timedOut", False),
            ("stdout", "out\n"),
            ("stderr", "err\n"),
            ("stdoutTruncated", False),
            ("stderrTruncated", False),
        ]
        killed = await app.post("/run", {"command": "sh", "args": ["-c", "kill -9 $$"]})
        assert (killed["exitCode"], killed["signal"], killed["timedOut"]) == (None, 9, False)
        late = await app.post("/run", {"command": "sleep", "args": ["60"], "timeoutMs": 50})
        assert (late["exitCode"], late["timedOut"], "signal" in late) == (None, True, False)
        cut = await app.post("/run", {"command": "echo", "args": ["word"], "maxOutputBytes": 2})
        assert (cut["stdout"], cut["stdoutTruncated"]) == ("wo", True)
        assert (await app.get())["processes"] == []


async def test_a_command_gets_what_is_beyond_the_public_wire(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        script = "cat; echo err >&2; ulimit -n"
        body = {"command": "sh", "args": ["-c", script], "mergeOutput": True, "limits": {"openFiles": 44}}
        result = await app.post("/run", {**body, "stdin": "text\n"})
        assert (result["stdout"], result["stderr"]) == ("text\nerr\n44\n", "")
        assert result["limits"] == {"openFiles": {"value": 44, "heldBy": ["rlimit"]}}
        coded = {"stdin": base64.b64encode(b"\xff\n").decode(), "stdinEncoding": "base64"}
        assert (await app.post("/run", {**body, **coded}))["stdout"] == "\ufffd\nerr\n44\n"
        answer = await app.ask("POST", "/run", {**body, "stdin": "x", "stdinEncoding": "hex"})
        assert answer.detail == "invalid request: encoding must be one of: base64, utf8, text"


BAD_COMMANDS: list[tuple[Json, int, str, str | None]] = [
    ({"command": " "}, 400, "invalid_request", "invalid request: command must not be empty"),
    ({}, 422, "invalid_request", None),
    ({"command": 1}, 422, "invalid_request", None),
    ({"command": "x", "args": None}, 422, "invalid_request", None),
    ({"command": "x", "args": [1]}, 422, "invalid_request", None),
    ({"command": "x", "env": {"A": 1}}, 422, "invalid_request", None),
    ({"command": "x", "timeoutMs": -1}, 422, "invalid_request", None),
    ({"command": "x", "limits": {"cpus": 0}}, 422, "invalid_request", None),
    ({"command": "x", "user": "nobody-at-all"}, 400, "invalid_request", None),
    (
        {"command": "no-such-program"},
        502,
        "stream_error",
        "stream error: failed to spawn process: No such file or directory (os error 2)",
    ),
    (
        {"command": "true", "cwd": "/no/such"},
        502,
        "stream_error",
        "stream error: failed to spawn process: No such file or directory (os error 2)",
    ),
]


async def test_a_command_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        for path in ("", "/run"):
            for body, status, problem, detail in BAD_COMMANDS:
                answer = await app.ask("POST", path, body)
                assert (answer.status, answer.problem) == (status, problem), body
                assert detail in (None, answer.detail)
        assert (await app.get())["processes"] == []


BAD_BODIES: list[tuple[dict[str, str], bytes, int]] = [
    ({}, b'{"command":"true"}', 415),
    ({"Content-Type": "text/plain"}, b'{"command":"true"}', 415),
    ({"Content-Type": "application/json"}, b"", 400),
    ({"Content-Type": "application/json"}, b"{", 400),
    ({"Content-Type": "application/json"}, b"[" * 100_000, 422),
    ({"Content-Type": "application/json"}, b"[]", 422),
]


async def test_a_body_that_is_no_json_is_refused(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        for path in ("", "/run", "/config", "/x/input", "/x/signal", "/x/terminal/resize"):
            for headers, body, status in BAD_BODIES:
                answer = await exchange(app.daemon.port, "POST", f"/v1/processes{path}", headers, body)
                assert answer.status == status, (path, body, answer)
                assert answer.problem


async def test_a_process_has_a_record_from_its_start_to_its_end(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        body = {"command": "cat", "args": ["-"], "cwd": str(tmp_path), "interactive": True}
        record = await app.post("", body)
        assert list(record) == [
            "id",
            "command",
            "args",
            "cwd",
            "tty",
            "interactive",
            "owner",
            "status",
            "pid",
            "createdAtMs",
        ]
        assert alive(record["pid"])
        told = (record["id"], record["status"], record["owner"], record["tty"], record["interactive"], record["cwd"])
        assert told == ("proc_1", "running", "user", False, True, str(tmp_path))
        assert await app.get("/proc_1") == record
        assert await app.get() == await app.get("?owner=user") == {"processes": [record]}
        assert await app.get("?owner=desktop") == await app.get("?owner=system") == {"processes": []}
        assert (await app.ask("GET", "?owner=me")).status == 400

        assert await app.post("/proc_1/input", {"data": "", "eof": True}) == {"bytesWritten": 0}
        ended = await app.exited("proc_1")
        assert (ended["exitCode"], "pid" in ended, "signal" in ended) == (0, False, False)
        assert list(ended)[-3:] == ["exitCode", "createdAtMs", "exitedAtMs"]
        assert await app.post("/proc_1/stop") == await app.post("/proc_1/kill") == ended
        answer = await app.ask("DELETE", "/proc_1")
        assert (answer.status, answer.body, "content-type" in answer.headers) == (204, b"", False)
        assert (await app.ask("DELETE", "/proc_1")).status == 404


ENDPOINTS: list[tuple[str, str, Json]] = [
    ("GET", "", None),
    ("DELETE", "", None),
    ("POST", "/stop", None),
    ("POST", "/kill", None),
    ("POST", "/signal", {"signal": "SIGINT"}),
    ("GET", "/logs", None),
    ("GET", "/logs?follow=true", None),
    ("POST", "/input", {"data": ""}),
    ("POST", "/terminal/resize", {"cols": 1, "rows": 1}),
]


async def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    id = "a/b ü"
    async with client(tmp_path) as app:
        for method, path, body in ENDPOINTS:
            answer = await app.ask(method, f"/a%2Fb%20%C3%BC{path}", body)
            assert (answer.status, answer.problem) == (404, "not_found"), path
            told = ("Not Found", f"not found: process {id}", {"id": id, "resource": "process"})
            assert (answer.json["title"], answer.detail, answer.json["details"]) == told
            assert (await app.ask(method, f"/%ff{path}", body)).status == 400


async def test_running_ones_are_limited_and_kept(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        await app.post("/config", {**CONFIG, "maxConcurrentProcesses": 1})
        await app.create("cat")
        answer = await app.ask("POST", "", {"command": "cat"})
        assert (answer.status, answer.detail) == (409, "conflict: max concurrent process limit reached (1)")
        assert answer.json["details"] == {"message": "max concurrent process limit reached (1)"}
        answer = await app.ask("DELETE", "/proc_1")
        detail = "conflict: process is still running; stop or kill it before delete"
        assert (answer.status, answer.detail) == (409, detail)
        # Calls of run are counted for themselves.
        assert (await app.post("/run", {"command": "true"}))["exitCode"] == 0


async def test_the_list_is_in_the_order_of_the_numbers(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        for _ in range(11):
            await app.create("true")
        listed = [record["id"] for record in (await app.get())["processes"]]
        assert listed == [f"proc_{number}" for number in range(1, 12)]


async def test_stop_and_kill_tell_what_has_become_of_it(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        id = await app.create("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done")
        await app.until(id, b"ready")
        assert (await app.post(f"/{id}/stop?waitMs=50"))["status"] == "running"
        assert (await app.post(f"/{id}/stop?waitMs=0"))["status"] == "running"
        for query in ("?waitMs=-1", "?waitMs=x", "?killAfterMs=x"):
            assert (await app.ask("POST", f"/{id}/stop{query}")).status == 400
        record = await app.post(f"/{id}/stop?waitMs=10000&killAfterMs=50")
        assert (record["status"], record["signal"], "exitCode" in record) == ("exited", 9, False)
        id = await app.create("sleep", "60")
        assert (await app.post(f"/{id}/kill"))["status"] == "exited"
        id = await app.create("sleep", "60")
        assert (await app.post(f"/{id}/stop"))["signal"] == 15


async def test_a_signal_goes_by_name_or_number(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        script = "trap 'echo one' USR1; trap 'echo two' USR2; echo ready; while :; do sleep 0.02; done"
        id = await app.create("sh", "-c", script)
        await app.until(id, b"ready")
        assert (await app.post(f"/{id}/signal", {"signal": "SIGUSR1"}))["status"] == "running"
        await app.until(id, b"one")
        await app.post(f"/{id}/signal", {"signal": 12})
        await app.until(id, b"two")
        await app.post(f"/{id}/signal", {"signal": "KILL"})
        await app.exited(id)
        for unknown in ("SIGNONE", "", 0, 99, -1):
            answer = await app.ask("POST", f"/{id}/signal", {"signal": unknown})
            assert (answer.status, answer.problem) == (400, "invalid_request")
        answer = await app.ask("POST", f"/{id}/signal", {"signal": "INT"})
        assert (answer.status, answer.detail) == (409, "conflict: process is not running")


async def test_input_is_read_as_it_is_encoded(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        id = await app.create("cat")
        written = [
            await app.post(f"/{id}/input", {"data": base64.b64encode(b"one\xff").decode()}),
            await app.post(f"/{id}/input", {"data": "zwölf", "encoding": "utf8"}),
            await app.post(f"/{id}/input", {"data": "x", "encoding": "text", "eof": True}),
        ]
        assert written == [{"bytesWritten": 4}, {"bytesWritten": 6}, {"bytesWritten": 1}]
        await app.exited(id)
        assert await app.output(id) == b"one\xff" + "zwölfx".encode()
        answer = await app.ask("POST", f"/{id}/input", {"data": ""})
        assert (answer.status, answer.detail) == (409, "conflict: process is not running")


async def test_input_that_makes_no_sense_is_refused_in_this_order(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        await app.post("/config", {**CONFIG, "maxInputBytesPerRequest": 4})
        id = await app.create("sh", "-c", "exec <&-; echo ready; sleep 60")
        await app.until(id, b"ready")
        for path, body, status, detail in (
            (
                "nope",
                {"data": "*", "encoding": "x"},
                400,
                "invalid request: encoding must be one of: base64, utf8, text",
            ),
            ("nope", {"data": "*"}, 400, "invalid request: invalid base64 input: "),
            ("nope", {"data": "ümlaut", "encoding": "utf8"}, 413, "invalid request: input payload exceeds "),
            ("nope", {"data": ""}, 404, "not found: process nope"),
            ("nope", {}, 422, "invalid request: "),
            (
                id,
                {"data": "x", "encoding": "text"},
                502,
                "stream error: failed to write stdin: Broken pipe (os error 32)",
            ),
        ):
            answer = await app.ask("POST", f"/{path}/input", body)
            assert (answer.status, answer.detail.startswith(detail)) == (status, True), answer
            if status == 413:
                assert answer.json["title"] == "Payload Too Large"


async def test_input_that_nobody_reads_is_refused_at_once_with_when_to_come_again(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        id = await app.create("sleep", "60")
        data = base64.b64encode(bytes(60_000)).decode()
        for _ in range(100):
            answer = await app.ask("POST", f"/{id}/input", {"data": data})
            if answer.status != 200:
                break
        assert (answer.status, answer.problem, answer.headers["retry-after"]) == (503, "overloaded", "1")


async def test_sizes_are_for_terminals_that_live(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        id = await app.create("sh", "-c", "stty size; read line; stty size", tty=True, cols=100, rows=30)
        await app.until(id, b"30 100")
        assert await app.post(f"/{id}/terminal/resize", {"cols": 132, "rows": 43}) == {"cols": 132, "rows": 43}
        for body, status in (
            ({"cols": 0, "rows": 0}, 400),
            ({"cols": 80, "rows": 0}, 400),
            ({"cols": 65536, "rows": 24}, 422),
            ({"cols": -1, "rows": 24}, 422),
            ({"cols": 80}, 422),
        ):
            assert (await app.ask("POST", f"/{id}/terminal/resize", body)).status == status
        assert (await app.post(f"/{id}/terminal/resize", {"cols": 65535, "rows": 65535}))["rows"] == 65535
        await app.post(f"/{id}/input", {"data": "\n", "encoding": "text"})
        await app.exited(id)
        assert b"65535 65535" in await app.output(id)
        answer = await app.ask("POST", f"/{id}/terminal/resize", {"cols": 80, "rows": 24})
        assert (answer.status, answer.detail) == (409, "conflict: PTY resize handle unavailable")
        pipe = await app.create("cat")
        answer = await app.ask("POST", f"/{pipe}/terminal/resize", {"cols": 80, "rows": 24})
        assert (answer.status, answer.detail) == (409, "conflict: process is not running in tty mode")
        assert (await app.ask("POST", "", {"command": "cat", "tty": True, "cols": 0})).status == 400


async def test_a_process_is_started_again_as_it_was_asked_for(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        restart = {"policy": "on-failure", "maxRestarts": 2, "backoffMs": 1}
        id = await app.create("sh", "-c", "echo run; exit 1", restart=restart)
        record = await app.exited(id)
        assert (record["restarts"], record["exitCode"]) == (2, 1)
        assert await app.output(id) == b"run\nrun\nrun\n"
        answer = await app.ask("POST", "", {"command": "true", "restart": {"policy": "sometimes"}})
        assert answer.status == 422


async def test_a_process_has_its_time_its_input_and_its_limits(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        body = {"timeoutMs": 200, "stdin": "text", "limits": {"openFiles": 44}, "mergeOutput": True}
        id = await app.create("sh", "-c", "cat; ulimit -n >&2; sleep 60", **body)
        record = await app.exited(id)
        assert (record["endedBy"], record["signal"]) == ("timeout", 9)
        assert record["limits"] == {"openFiles": {"value": 44, "heldBy": ["rlimit"]}}
        assert await app.output(id, "?stream=stdout") == b"text44\n"


async def test_a_client_that_leaves_takes_its_command_along(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    async with client(tmp_path) as app:
        script = f"setsid sleep 60 & echo $! > {mark}.new; mv {mark}.new {mark}; sleep 60"
        body = json.dumps({"command": "sh", "args": ["-c", script]}).encode()
        headers = {"Content-Type": "application/json"}
        async with await trio.open_tcp_stream("127.0.0.1", app.daemon.port) as stream:
            await stream.send_all(request_bytes("POST", "/v1/processes/run", headers, body))
            await eventually(mark.exists)
            assert alive(int(mark.read_text()))
        await eventually(lambda: not alive(int(mark.read_text())))


async def test_nothing_of_processes_is_held_when_they_are_gone(tmp_path: Path) -> None:
    async with client(tmp_path) as app:
        await app.post("/run", {"command": "true"})
        before = Resources.now()
        for number in range(10):
            id = await app.create("cat", tty=number % 2 == 0)
            await app.post("/run", {"command": "true", "limits": {"openFiles": 50}})
            await app.post(f"/{id}/kill")
            await app.ask("DELETE", f"/{id}")
        await before.back()


async def test_without_the_token_nothing_is_told_or_done(tmp_path: Path) -> None:
    with trio.fail_after(WITHIN):
        async with serving(tmp_path, token=TOKEN) as daemon:
            for method, path in (("GET", ""), ("POST", "/run"), ("GET", "/config"), ("GET", "/x/logs")):
                answer = await exchange(daemon.port, method, f"/v1/processes{path}?access_token={TOKEN}")
                assert answer.status == 401
