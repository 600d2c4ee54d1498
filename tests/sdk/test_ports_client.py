"""`Ports`, against a real daemon: who listens is found, waited for and reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import httpx
import pytest

from sandbox_agent.errors import InvalidRequest, ServerTimeout
from sandbox_agent.ports import Ports
from sandbox_agent.processes import Processes
from support.daemon import free_port
from support.transports import connected, lasting, under

if TYPE_CHECKING:
    from collections.abc import Generator

    from sandbox_agent.transport import Transport
    from support.daemon import Daemon

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])

SHOWS = """
import http.server, sys
class Shows(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = f"{self.path} {self.headers['Authorization']} {self.headers['X-Sandbox-Agent-Token']}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Shows).serve_forever()
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    home = tmp_path_factory.mktemp("ports-client")
    with lasting(home, HOME=str(home)) as daemon:
        yield daemon


@BACKENDS
def test_an_application_is_waited_for_listed_and_reached(backend: str, daemon: Daemon) -> None:
    async def body(transport: Transport) -> None:
        ports, port = Ports(transport), free_port()
        process = await Processes(transport).start("python3", "-c", SHOWS, str(port))
        listener = await ports.wait(port, timeout=20)
        assert (listener.port, listener.on_loopback) == (port, True)
        (listed,) = [one for one in await ports.list() if one.port == port]
        assert listed == listener
        headers = {**ports.headers(), "Authorization": "Bearer of-the-application"}
        async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
            for path, seen in (("", "/"), ("/a b/é?x=1%2F2&y", "/a%20b/%C3%A9?x=1%2F2&y"), ("a%20b", "/a%20b")):
                answer = await client.get(ports.url(port, path))
                assert answer.text == f"{seen} Bearer of-the-application None"
        await process.kill()

    under(backend, daemon, body)


async def test_where_nobody_listens_the_wait_ends_in_its_time(daemon: Daemon) -> None:
    async with connected(daemon) as transport:
        ports = Ports(transport)
        with anyio.fail_after(5):
            with pytest.raises(ServerTimeout):
                await ports.wait(free_port(), timeout=0.3)
            with pytest.raises(ServerTimeout):
                await ports.wait(free_port(), timeout=0)
        with pytest.raises(InvalidRequest):
            await ports.wait(99999)
