"""The machine of a sandbox: files, a command, a server of one's own with its log and its port, and a terminal."""

from __future__ import annotations

import anyio
import httpx

from sandbox_agent import SandboxAgent
from sandbox_agent.providers import LocalProvider

SERVER = """
import http.server
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
print(server.server_port, flush=True)
server.serve_forever()
"""


async def main() -> None:
    async with SandboxAgent.start(LocalProvider()) as sandbox:
        files = sandbox.files
        await files.mkdir("app")
        await files.write("app/hello.txt", "Hello from a sandbox\n")
        print(f"files: {[entry.name for entry in await files.list('app')]}")
        print(f"size: {(await files.stat('app/hello.txt')).size}")

        result = await sandbox.processes.run("wc", "-w", "app/hello.txt")
        print(f"run: exit {result.exit_code}, {result.stdout.strip()}")

        server = await sandbox.processes.start("python3", "-c", SERVER, cwd=str((await files.stat("app")).path))
        async with server.follow(stream="stdout") as log:
            port = int((await anext(log)).data)
        await sandbox.ports.wait(port)
        async with httpx.AsyncClient(headers=sandbox.ports.headers(), trust_env=False) as client:
            answer = await client.get(sandbox.ports.url(port, "/hello.txt"))
        print(f"through the sandbox's server: {answer.text.strip()}")
        stopped = await server.stop()
        print(f"stopped: {stopped.status}")

        shell = await sandbox.processes.terminal("sh", "-c", "read name; echo Hello, $name; exit 3")
        async with shell.terminal() as terminal:
            await terminal.write("Ann\n")
            shown = b"".join([piece async for piece in terminal])
        print(f"terminal: {shown.decode().splitlines()[-1]}, exit {terminal.exit_code}")


if __name__ == "__main__":
    anyio.run(main)
