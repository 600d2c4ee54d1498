"""Package registries on loopback: npm's, PyPI's simple index, and a host of archives, in one small server.

It speaks what npm, uv, pip and a browser would see of the real ones, takes down what it is asked for, and can be told
to hold an answer back.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import zipfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import unquote

import h11
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

__all__ = ["NODE_AGENT", "PYTHON_AGENT", "SHELL_AGENT", "Registries", "open_registries", "tar_of"]

TarMode: TypeAlias = Literal["w", "w:gz", "w:bz2", "w:xz"]

SHELL_AGENT = """#!/bin/sh
read -r line
echo '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"agentInfo":{"name":"shell","version":"1"}}}'
exec cat >/dev/null
"""

NODE_AGENT = """#!/usr/bin/env node
require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
  const { id } = JSON.parse(line);
  const agentInfo = { name: 'node', version: process.version, home: process.env.HOME };
  console.log(JSON.stringify({ jsonrpc: '2.0', id, result: { protocolVersion: 1, agentInfo } }));
});
"""

PYTHON_AGENT = """import json, sys

def main():
    for line in sys.stdin:
        result = {"protocolVersion": 1, "agentInfo": {"name": "python", "version": sys.version.split()[0]}}
        print(json.dumps({"jsonrpc": "2.0", "id": json.loads(line)["id"], "result": result}), flush=True)
"""


@dataclass(slots=True, eq=False)
class Registries:
    """What is served.

    Attributes:
      url: where, without a slash at the end.
      asked: the paths of all requests so far.
      held: paths whose answer waits for the event.
      refused: by path, the statuses of its next answers.
    """

    url: str
    asked: list[str] = field(default_factory=list[str])
    held: dict[str, trio.Event] = field(default_factory=dict[str, trio.Event])
    refused: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    _npm: dict[str, dict[str, object]] = field(default_factory=dict[str, "dict[str, object]"])
    _wheels: dict[str, dict[str, str]] = field(default_factory=dict[str, "dict[str, str]"])
    _files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    _redirects: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def environment(self) -> dict[str, str]:
        """What points npm, uv and pip here."""
        return {
            "npm_config_registry": f"{self.url}/npm/",
            "UV_INDEX_URL": f"{self.url}/simple/",
            "PIP_INDEX_URL": f"{self.url}/simple/",
            "PIP_CONFIG_FILE": "/dev/null",
        }

    def file(self, path: str, content: bytes) -> str:
        """Serve a file; gives its URL."""
        self._files[f"/{path}"] = content
        return f"{self.url}/{path}"

    def redirect(self, path: str, to: str) -> str:
        """Serve a redirect; gives its URL."""
        self._redirects[f"/{path}"] = to
        return f"{self.url}/{path}"

    def npm(self, name: str, version: str, files: Mapping[str, str], **manifest: object) -> str:
        """Publish an npm package; gives its spec, `name@version`.

        Args:
          files: by path within the package; those below `bin/` are programs.
          manifest: of its package.json.
        """
        whole = {"name": name, "version": version, **manifest}
        tarball = tar_of(
            {f"package/{path}": text for path, text in {"package.json": json.dumps(whole), **files}.items()}
        )
        last = name.rpartition("/")[2]
        url = self.file(f"npm/{name}/-/{last}-{version}.tgz", tarball)
        integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball).digest()).decode()
        document = self._npm.setdefault(name, {"name": name, "dist-tags": {}, "versions": {}})
        versions, tags = document["versions"], document["dist-tags"]
        assert isinstance(versions, dict)
        assert isinstance(tags, dict)
        versions[version] = {**whole, "dist": {"tarball": url, "integrity": integrity}}
        tags["latest"] = version
        return f"{name}@{version}"

    def npm_agent(self, name: str, version: str, source: str = NODE_AGENT, **manifest: object) -> str:
        """Publish an npm package with one program, called like it."""
        program = name.rpartition("/")[2]
        return self.npm(name, version, {f"bin/{program}": source}, bin={program: f"bin/{program}"}, **manifest)

    def wheel(self, name: str, version: str, source: str = PYTHON_AGENT, python: str = ">=3.8") -> str:
        """Publish a PyPI package with one program, called like it; gives its requirement."""
        module = name.replace("-", "_")
        info = f"{module}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Python: {python}\n"
        entries = {
            f"{module}.py": source,
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {module}:main\n",
        }
        record = "".join(f"{path},,\n" for path in [*entries, f"{info}/RECORD"])
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for path, text in {**entries, f"{info}/RECORD": record}.items():
                file.writestr(path, text)
        wheel = f"{module}-{version}-py3-none-any.whl"
        url = self.file(f"wheels/{wheel}", buffer.getvalue())
        digest = hashlib.sha256(buffer.getvalue()).hexdigest()
        self._wheels.setdefault(name, {})[wheel] = f"{url}#sha256={digest}"
        return f"{name}=={version}"

    def sdist(self, name: str, version: str) -> str:
        """Publish a PyPI package that has to be built, by code of its own; gives its requirement."""
        self.wheel(name, version)
        wheel = f"{name}-{version}-py3-none-any.whl"
        url = self._wheels[name].pop(wheel).partition("#")[0]
        backend = (
            "import base64, pathlib\n"
            "def build_wheel(directory, config_settings=None, metadata_directory=None):\n"
            f"    content = base64.b64decode({base64.b64encode(self._files[url.removeprefix(self.url)])!r})\n"
            f"    pathlib.Path(directory, {wheel!r}).write_bytes(content)\n"
            f"    return {wheel!r}\n"
        )
        files = {
            "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n',
            "own.py": backend,
            "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        }
        sdist = f"{name}-{version}.tar.gz"
        content = tar_of({f"{name}-{version}/{path}": text for path, text in files.items()})
        self._wheels[name][sdist] = self.file(f"sdists/{sdist}", content)
        return f"{name}=={version}"

    def asked_for(self, part: str) -> int:
        """How many requests had this in their path."""
        return sum(part in path for path in self.asked)

    def answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers."""
        if statuses := self.refused.get(path):
            return statuses.pop(0), b"", {}
        if path in self._redirects:
            return 302, b"", {"Location": self._redirects[path]}
        if path in self._files:
            return 200, self._files[path], {"Content-Type": "application/octet-stream"}
        if path.startswith("/npm/") and (document := self._npm.get(path.removeprefix("/npm/"))) is not None:
            return 200, json.dumps(document).encode(), {"Content-Type": "application/json"}
        if path.startswith("/simple/") and (wheels := self._wheels.get(path.split("/")[2])) is not None:
            links = "".join(f'<a href="{url}">{wheel}</a>\n' for wheel, url in wheels.items())
            return 200, f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), {"Content-Type": "text/html"}
        return 404, b'{"error":"not found"}', {"Content-Type": "application/json"}


@asynccontextmanager
async def open_registries() -> AsyncGenerator[Registries]:
    """Serve on a free port of loopback, for as long as the block runs."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    registries = Registries(f"http://127.0.0.1:{port}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, partial(_serve, registries), listeners))
        yield registries
        nursery.cancel_scope.cancel()


async def _serve(registries: Registries, stream: trio.SocketStream) -> None:
    http = h11.Connection(h11.SERVER)
    try:
        async with stream:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await stream.receive_some(65536))
                elif isinstance(event, h11.Request):
                    await _respond(registries, http, stream, event)
                elif isinstance(event, h11.EndOfMessage):
                    http.start_next_cycle()
                elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                    return
    except (trio.BrokenResourceError, h11.RemoteProtocolError):
        return  # a client that was killed


async def _respond(
    registries: Registries, http: h11.Connection, stream: trio.SocketStream, request: h11.Request
) -> None:
    path = unquote(request.target.decode()).partition("?")[0]
    registries.asked.append(path)
    if path in registries.held:
        await registries.held[path].wait()
    status, body, headers = registries.answer(path)
    told = {"Content-Length": str(len(body)), **headers}
    await stream.send_all(http.send(h11.Response(status_code=status, headers=list(told.items()))) or b"")
    if request.method != b"HEAD":
        await stream.send_all(http.send(h11.Data(data=body)) or b"")
    await stream.send_all(http.send(h11.EndOfMessage()) or b"")


def tar_of(files: Mapping[str, str], mode: TarMode = "w:gz") -> bytes:
    """A tar with these files; what lies below a `bin` or begins with `#!` is a program."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(text.encode())
            entry.mode = 0o755 if "/bin/" in path or text.startswith("#!") else 0o644
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()
