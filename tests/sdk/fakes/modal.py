"""Modal's API, as far as the provider's own SDK uses it for us: gRPC in clear text, and TLS for the tunnels.

On loopback Modal's SDK takes a task command router, by which commands are run, without TLS; so it is on the same port.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

from grpclib import GRPCError, Status
from grpclib.server import Server
from modal_proto import api_grpc, api_pb2, task_command_router_grpc
from modal_proto import task_command_router_pb2 as router_pb2

from .certificate import make_certificate
from .modal_wire import close_connections, jwt, service, tunnel_to
from .sandboxes import FakeSandbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from pathlib import Path
    from typing import Self

__all__ = ["TOKEN_ID", "TOKEN_SECRET", "FakeModal"]

TOKEN_ID, TOKEN_SECRET = "ak-fake", "as-fake"

BUILDER = "2025.06"
"""The version of the image builder that the environment asks for."""

HELD_WITHIN = 20.0
"""Seconds that a held request waits for its release."""

PIECE = 1 << 16
"""Bytes of output in a message."""


@dataclass(slots=True)
class _Command:
    process: subprocess.Popen[bytes]
    output: IO[bytes]
    errors: IO[bytes]
    deadline: float
    written: int = 0


@dataclass(slots=True)
class _Known:
    """What Modal knows of a sandbox; those that have ended are known as well."""

    machine: FakeSandbox
    task: str
    tunnels: dict[int, asyncio.Server] = field(default_factory=dict[int, asyncio.Server])
    commands: dict[str, _Command] = field(default_factory=dict[str, _Command])
    status: int = 0


class FakeModal:
    """See the module.

    Attributes:
      sandboxes: those that run, by their ids.
      created: the definitions of all that were made.
      asked: names of the calls so far.
      refusals: what the next calls get instead of an answer.
      broken: calls that fail.
      tls: trusts the tunnels.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.created: list[Any] = []
        self.asked: list[str] = []
        self.refusals: list[GRPCError] = []
        self.broken: set[str] = set()
        self.held = threading.Event()
        self.port = 0
        self._open = threading.Event()
        self._open.set()
        self._known: dict[str, _Known] = {}
        certificate = make_certificate(root)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(certificate)
        self.tls = ssl.create_default_context(cafile=certificate)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def hold(self) -> None:
        """Sandboxes are not made from now on, until they are released."""
        self.held.clear()
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def expire(self, sandbox_id: str) -> None:
        """The time of the sandbox is over."""
        self._end(sandbox_id, api_pb2.GenericResult.GENERIC_STATUS_TIMEOUT)

    @contextmanager
    def running(self) -> Generator[Self]:
        """It answers for as long as the block runs; then no process and no directory of its sandboxes is left."""
        started, stop = threading.Event(), asyncio.Event()
        loop = asyncio.new_event_loop()

        async def serve() -> None:
            server = Server([_api(self), _router(self)])
            await server.start("127.0.0.1", 0)
            listener: Any = server._server
            self.port = listener.sockets[0].getsockname()[1]
            started.set()
            await stop.wait()
            for known in self._known.values():
                for tunnel in known.tunnels.values():
                    tunnel.close()
            server.close()
            await server.wait_closed()
            await close_connections()

        thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
        thread.start()
        try:
            assert started.wait(HELD_WITHIN)
            yield self
        finally:
            self.release()
            for sandbox_id in list(self.sandboxes):
                self._end(sandbox_id, api_pb2.GenericResult.GENERIC_STATUS_TERMINATED)
            loop.call_soon_threadsafe(stop.set)
            thread.join()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()
            for known in self._known.values():
                for command in known.commands.values():
                    _close(command)

    def check(self, name: str, metadata: Any) -> None:
        """What comes before every call."""
        self.asked.append(name)
        if metadata.get("x-modal-token-secret") != TOKEN_SECRET or metadata.get("x-modal-token-id") != TOKEN_ID:
            raise GRPCError(Status.UNAUTHENTICATED, "Token ID or secret is malformed")
        if self.refusals:
            raise self.refusals.pop(0)
        if name in self.broken:
            raise GRPCError(Status.FAILED_PRECONDITION, "it burns")

    async def create(self, asked: Any) -> Any:
        if not self._open.is_set():
            self.held.set()
            assert await asyncio.to_thread(self._open.wait, HELD_WITHIN), "nobody has released the request"
        sandbox_id = f"sb-{secrets.token_hex(12)}V"  # 22 characters were those of the first version
        self.created.append(asked)
        env = {name: value for source in asked.secret_sources for name, value in source.env.contents.items()}
        machine = self.sandboxes[sandbox_id] = FakeSandbox(self.root, env, id=sandbox_id)
        known = self._known[sandbox_id] = _Known(machine, f"ta-{secrets.token_hex(11)}V")
        for spec in asked.definition.open_ports.ports:
            known.tunnels[spec.port] = await asyncio.start_server(tunnel_to(spec.port), "127.0.0.1", 0, ssl=self._tls)
        return api_pb2.SandboxCreateV2Response(
            sandbox_id=sandbox_id,
            task_id=known.task,
            tunnels=_tunnels(known),
            metadata=api_pb2.SandboxHandleMetadata(app_id=asked.app_id),
        )

    def find(self, sandbox_id: str = "", task: str = "") -> _Known:
        for key, known in self._known.items():
            if sandbox_id == key or (task and task == known.task):
                return known
        raise GRPCError(Status.NOT_FOUND, f"Sandbox {sandbox_id or task} not found")

    def find_running(self, sandbox_id: str = "", task: str = "") -> _Known:
        known = self.find(sandbox_id, task)
        if known.status:
            raise GRPCError(Status.NOT_FOUND, "the sandbox has ended")
        return known

    async def wait(self, asked: Any) -> Any:
        known = self.find(asked.sandbox_id)
        result = api_pb2.GenericResult(status=known.status)  # type: ignore[arg-type]
        return api_pb2.SandboxWaitResponse(result=result)

    async def terminate(self, asked: Any) -> Any:
        known = self.find(asked.sandbox_id)
        for tunnel in known.tunnels.values():
            tunnel.close()
        await asyncio.to_thread(self._end, asked.sandbox_id, api_pb2.GenericResult.GENERIC_STATUS_TERMINATED)
        return api_pb2.SandboxTerminateResponse()

    async def task_id(self, asked: Any) -> Any:
        known = self.find(asked.sandbox_id)
        if known.status:
            result = api_pb2.GenericResult(status=known.status)  # type: ignore[arg-type]
            return api_pb2.SandboxGetTaskIdResponse(task_result=result)
        return api_pb2.SandboxGetTaskIdResponse(task_id=known.task)

    async def tunnels(self, asked: Any) -> Any:
        return api_pb2.SandboxGetTunnelsResponse(tunnels=_tunnels(self.find_running(asked.sandbox_id)))

    async def router_access(self, asked: Any) -> Any:
        self.find_running(asked.sandbox_id, asked.task_id)
        return api_pb2.SandboxGetCommandRouterAccessResponse(jwt=jwt(), url=self.url)

    async def start(self, asked: Any) -> Any:
        known = self.find_running(task=asked.task_id)
        if asked.exec_id not in known.commands:  # it may be asked again
            output, errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115 (closed with the fake)
            process = known.machine.spawn(list(asked.command_args), stdin=subprocess.PIPE, stdout=output, stderr=errors)
            deadline = time.monotonic() + asked.timeout_secs
            known.commands[asked.exec_id] = _Command(process, output, errors, deadline)
        return router_pb2.TaskExecStartResponse()

    async def write(self, asked: Any) -> Any:
        command = self.find_running(task=asked.task_id).commands[asked.exec_id]
        stdin = command.process.stdin
        assert stdin is not None
        if command.process.poll() is not None or stdin.closed:
            raise GRPCError(Status.FAILED_PRECONDITION, "stdin is closed")
        data = asked.data[max(0, command.written - asked.offset) :]
        try:
            await asyncio.to_thread(_feed, stdin, data, asked.eof)
        except OSError:
            raise GRPCError(Status.FAILED_PRECONDITION, "stdin is closed") from None
        command.written += len(data)
        return router_pb2.TaskExecStdinWriteResponse()

    async def wait_command(self, asked: Any) -> Any:
        code = await self.end_of(asked)
        if code < 0:
            return router_pb2.TaskExecWaitResponse(signal=-code)
        return router_pb2.TaskExecWaitResponse(code=code)

    async def read(self, asked: Any) -> bytes:
        command = self.find_running(task=asked.task_id).commands[asked.exec_id]
        await self.end_of(asked)
        is_output = asked.file_descriptor == router_pb2.TASK_EXEC_STDIO_FILE_DESCRIPTOR_STDOUT
        file = command.output if is_output else command.errors
        file.seek(asked.offset)
        return file.read()

    async def end_of(self, asked: Any) -> int:
        command = self.find_running(task=asked.task_id).commands[asked.exec_id]
        try:
            return await asyncio.to_thread(command.process.wait, max(0.0, command.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            command.process.kill()
            return await asyncio.to_thread(command.process.wait)

    def _end(self, sandbox_id: str, status: int) -> None:
        known = self._known[sandbox_id]
        known.status = known.status or status
        if (machine := self.sandboxes.pop(sandbox_id, None)) is not None:
            machine.destroy()


def _api(cloud: FakeModal) -> Any:
    """The control plane."""

    async def environment(asked: Any) -> Any:
        settings = api_pb2.EnvironmentSettings(image_builder_version=BUILDER)
        metadata = api_pb2.EnvironmentMetadata(name="main", settings=settings)
        return api_pb2.EnvironmentGetOrCreateResponse(environment_id="en-fake", metadata=metadata)

    async def app(asked: Any) -> Any:
        return api_pb2.AppGetOrCreateResponse(app_id=f"ap-{asked.app_name}")

    async def image(asked: Any) -> Any:
        result = api_pb2.GenericResult(status=api_pb2.GenericResult.GENERIC_STATUS_SUCCESS)
        return api_pb2.ImageGetOrCreateResponse(image_id="im-fake", result=result)

    async def token(asked: Any) -> Any:
        return api_pb2.AuthTokenGetResponse(token=jwt())

    calls: dict[str, Callable[[Any], Awaitable[Any]]] = {
        "AppGetOrCreate": app,
        "AuthTokenGet": token,
        "EnvironmentGetOrCreate": environment,
        "ImageGetOrCreate": image,
        "SandboxCreateV2": cloud.create,
        "SandboxGetCommandRouterAccess": cloud.router_access,
        "SandboxGetTaskIdV2": cloud.task_id,
        "SandboxGetTunnelsV2": cloud.tunnels,
        "SandboxTerminateV2": cloud.terminate,
        "SandboxWaitV2": cloud.wait,
    }

    def answering(name: str, call: Callable[[Any], Awaitable[Any]]) -> Any:
        async def method(self: Any, stream: Any) -> None:
            cloud.check(name, stream.metadata)
            await stream.send_message(await call(await stream.recv_message()))

        return method

    return service(api_grpc.ModalClientBase, {name: answering(name, call) for name, call in calls.items()})


def _router(cloud: FakeModal) -> Any:
    """The task command router, which takes the word of the control plane for who may come in."""
    calls: dict[str, Callable[[Any], Awaitable[Any]]] = {
        "TaskExecStart": cloud.start,
        "TaskExecStdinWrite": cloud.write,
        "TaskExecWait": cloud.wait_command,
    }

    def check(stream: Any) -> None:
        if not stream.metadata.get("authorization", "").startswith("Bearer "):
            raise GRPCError(Status.UNAUTHENTICATED, "no token")

    def answering(call: Callable[[Any], Awaitable[Any]]) -> Any:
        async def method(self: Any, stream: Any) -> None:
            check(stream)
            await stream.send_message(await call(await stream.recv_message()))

        return method

    async def read(self: Any, stream: Any) -> None:
        check(stream)
        data = await cloud.read(await stream.recv_message())
        for start in range(0, len(data), PIECE):
            await stream.send_message(router_pb2.TaskExecStdioReadResponse(data=data[start : start + PIECE]))

    methods = {name: answering(call) for name, call in calls.items()}
    return service(task_command_router_grpc.TaskCommandRouterBase, {**methods, "TaskExecStdioRead": read})


def _tunnels(known: _Known) -> list[api_pb2.TunnelData]:
    return [
        api_pb2.TunnelData(host="127.0.0.1", port=server.sockets[0].getsockname()[1], container_port=port)
        for port, server in known.tunnels.items()
    ]


def _feed(stdin: IO[bytes], data: bytes, eof: bool) -> None:
    stdin.write(data)
    stdin.flush()
    if eof:
        stdin.close()


def _close(command: _Command) -> None:
    assert command.process.stdin is not None
    with suppress(OSError):  # what was still to be written
        command.process.stdin.close()
    command.output.close()
    command.errors.close()
