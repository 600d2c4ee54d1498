"""Canaries: secrets that the daemon was given turn up nowhere but with the agents that they are for."""

from __future__ import annotations

import json
import os
import re
import shlex
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import httpx
import pytest
import trio

from sandbox_actors.catalog.environment import BASE
from sandbox_actors.credentials import PROVIDERS
from sandbox_supervisor.sweep import COOKIE_VARIABLE
from support.clients import Session, refused
from support.command import started
from support.processes import command_of
from support.serving import routes, script

if TYPE_CHECKING:
    from pathlib import Path

    from support.clients import Json, Seen
    from support.command import Server

TOKEN = "canary-token-5b1f2e77"
CANARIES = {
    "ANTHROPIC_API_KEY": "sk-ant-canary-91aa-anthropic",
    "OPENAI_API_KEY": 'canary/0c7d+openai"=',
    "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat-canary-33d0-login",
    "MY_SERVICE_PASSWORD": "canary:3f:password",
    "DATABASE_URL": "postgres://me:canary-of-a-database@127.0.0.1/db",
    "SANDBOX_AGENT_TOKEN": TOKEN,
}
STRANGE = {
    "npm_config_registry": "https://registry.example",
    "npm_package_name": "x",
    "SOMETHING_ELSE": "1",
    "AWS_PROFILE": "x",
}
IN_DEFINITION = "canary-in-the-agents-file"
WITHIN = 60

TELL_ALL = """
from urllib.parse import quote
everything = dict(os.environ)
for pair in open(f"/proc/{os.getppid()}/environ").read().split("\\0"):  # the daemon's own, which it may read
    name, _, value = pair.partition("=")
    everything[name] = value
for name in (*CANARIES, "DEFINED_TOKEN"):
    if name in everything:
        value = everything[name]
        print(name, value, repr(value), json.dumps(value), quote(value, safe=""), file=sys.stderr)
        print("x" * 470, value, file=sys.stderr)  # cut within it
print("last words", *(everything.get(name) for name in CANARIES), file=sys.stderr, flush=True)
os._exit(3)
"""

REFUSING = """
heard()
say('{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1}}')
heard()
key = os.environ["ANTHROPIC_API_KEY"]
say(json.dumps({"jsonrpc": "2.0", "id": 2, "error": {"code": -32000, "message": f"the key {key} is invalid"}}))
"""

CURIOUS = """
import pathlib
pathlib.Path(sys.argv[1]).write_text(json.dumps(dict(os.environ)))
os.execv(sys.executable, [sys.executable, "-m", "sandbox_actors.mock"])
"""


def agents_file(home: Path) -> Path:
    """`leaky` tells its whole environment and its daemon's on stderr; `curious` and `own` write theirs to a file.

    So does the npm that is to install `unlucky`; and `refusing` opens no session, and quotes the key that it was given.
    """
    tools = home / "tools"
    tools.mkdir(parents=True, exist_ok=True)
    leaky = script(home / "leaky.py", f"heard()\nCANARIES = {list(CANARIES)!r}\n{TELL_ALL}")
    npm = script(home / "npm.py", f"CANARIES = {list(CANARIES)!r}\n{TELL_ALL}")
    for name, command in (("npm", shlex.join(npm)), ("node", "echo v24.0.0")):
        (tools / name).write_text(f"#!/bin/sh\nexec {command}\n")
        (tools / name).chmod(0o755)
    curious = script(home / "curious.py", CURIOUS)
    definitions = {
        "leaky": {"command": leaky, "env": {"DEFINED_TOKEN": IN_DEFINITION}},
        "curious": {"command": [*curious, str(home / "curious.json")], "credentials": ["anthropic"]},
        "own": {"command": [*curious, str(home / "own.json")]},
        "broken": {"command": ["/nowhere/at-all"]},
        "refusing": {"command": script(home / "refusing.py", REFUSING), "credentials": ["anthropic"]},
        "unlucky": {"distribution": {"npx": {"package": "unlucky@1.0.0"}}},
    }
    file = home / "agents.json"
    file.write_text(json.dumps({"agents": definitions}))
    return file


async def use(server: Server) -> tuple[str, list[Seen]]:
    """Do, rightly and wrongly, what could bring a secret to light; gives all bodies, and all events."""
    bodies: list[str] = []
    events: list[Seen] = []
    talking, leaky = Session(server, "talking"), Session(server, "leaky")
    await talking.open("curious")
    await talking.prompt("/stderr something\n/tool")
    own = Session(server, "own")
    await own.open("own")

    async def post(session: Session, method: str, params: Json, agent: str | None = None) -> str:
        response = await session.post(session.envelope(method, params), agent)
        bodies.append(f"{response.headers} {response.text}")
        return refused(response.json()) if response.status_code == 200 else response.json()["type"].rpartition(":")[2]

    assert await post(leaky, "initialize", {"protocolVersion": 1}, "leaky") == "agent_process_exited"
    assert await post(Session(server, "b"), "initialize", {}, "broken") == "stream_error"
    assert await post(Session(server, "n"), "initialize", {}, "nobody") == "unsupported_agent"
    assert await post(Session(server, "u"), "initialize", {}, "unlucky") == "install_failed"
    assert "last words [redacted]" in bodies[-1]

    each_its_own = httpx.Limits(max_keepalive_connections=0)  # a body that was refused unread may end a connection
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, timeout=20, limits=each_its_own) as client:
        for route in routes(server.home / "unused"):
            for method in set(route.methods) - {"DELETE"}:
                for parameter in ("leaky", "talking", "nothing"):
                    for headers in (server.headers, {"Authorization": "Bearer wrong"}, {}):
                        response = await client.request(
                            method,
                            route.path(parameter),
                            params={"config": "true", "directory": str(server.home)},
                            headers={"Accept": "application/json", "Content-Type": "application/json", **headers},
                            content=b"{ no JSON" if method in ("POST", "PUT") else None,
                        )
                        bodies.append(f"{response.headers} {response.text}")
        for accept in ("application/json", "text/event-stream"):
            headers = {**server.headers, "Accept": accept}
            response = await client.post("/v1/agents/unlucky/install", headers=headers, json={})
            assert "last words [redacted]" in response.text
            bodies.append(response.text)
    for session in (talking, own, leaky):
        async with session.subscribed(0) as subscriber:
            await subscriber.until(lambda event: event.id is not None)
            if session is leaky:
                await subscriber.until_method("_adapter/agent_exited")
        events += subscriber.events
        bodies.append(str(subscriber.headers))
    return "\n".join(bodies), events


@pytest.mark.parametrize("form", ["logfmt", "json"])
async def test_no_secret_of_the_daemons_is_in_anything_that_it_tells_or_keeps(tmp_path: Path, form: str) -> None:
    options = ["--agents", str(agents_file(tmp_path)), "--state-dir", str(tmp_path / "state")]
    options += ["--log-level", "debug", "--log-format", form, "--restart-limit", "0"]
    with trio.fail_after(WITHIN):
        env = {**CANARIES, **STRANGE, "PATH": f"{tmp_path}/tools:{os.environ['PATH']}"}
        async with started(tmp_path, *options, env=env, token=TOKEN) as server:
            bodies, events = await use(server)
            commands = "\n".join(command_of(pid) for pid in server.processes())
            await server.stop()
            await server.until('"?event"?[=:] ?"?stopped')
    stderr = [line for event in events for line in event.message.get("params", {}).get("stderr", [])]
    assert any(line.startswith("last words [redacted]") for line in stderr)  # it did reach us
    for name in (*CANARIES, "DEFINED_TOKEN"):
        assert any(line.startswith(f"{name} ") and "[redacted]" in line for line in stderr), name
    assert re.search(r'"configError":"[^"]*last words \[redacted\]', bodies)
    assert '"configError":"the key [redacted] is invalid"' in bodies
    assert re.search('event"?[=:] ?"install failed"', server.stderr)
    assert "curious" in commands or "sandbox_actors.mock" in commands
    kept = b"".join(file.read_bytes() for file in (tmp_path / "state").rglob("*") if file.is_file()).decode("latin-1")
    assert "last words" in kept
    places = {
        "the log": server.stderr,
        "answers": bodies,
        "events": "\n".join(event.data.decode() for event in events),
        "the state directory": kept,
        "command lines": commands,
    }
    # Half a word is looked for, so that no secret is there in part either, where it was cut.
    assert {place: shown for place, text in places.items() if (shown := re.findall(".{0,30}cana.{0,9}", text))} == {}


async def test_agents_have_no_variable_beyond_what_is_allowed(tmp_path: Path) -> None:
    options = ["--agents", str(agents_file(tmp_path)), "--inherit-env", "MY_CHOICE,npm_*", "--inherit-env", "SANDBOX_*"]
    given = {**CANARIES, **STRANGE, "MY_CHOICE": "yes"}
    with trio.fail_after(WITHIN):
        async with started(tmp_path, *options, env=given, token=TOKEN) as server:
            for agent in ("curious", "own"):
                await Session(server, agent).open(agent)
            await server.stop()
    ours = {COOKIE_VARIABLE, "SANDBOX_AGENT_BIN", "MY_CHOICE"}
    for agent, providers in (("curious", {"anthropic"}), ("own", set(PROVIDERS))):
        inherited = json.loads((tmp_path / f"{agent}.json").read_text())
        credentials = {variable for name in providers for variable in PROVIDERS[name].secrets}
        settings = {variable for name in providers for variable in PROVIDERS[name].settings}
        for name in inherited.keys() - ours - credentials - settings:
            assert any(fnmatchcase(name, pattern) for pattern in BASE), (agent, name)
        assert inherited["ANTHROPIC_API_KEY"] == CANARIES["ANTHROPIC_API_KEY"]
        assert "CLAUDE_CODE_OAUTH_TOKEN" not in inherited  # the key wins
        assert ("OPENAI_API_KEY" in inherited) == (agent == "own")
        assert inherited["MY_CHOICE"] == "yes"
        assert inherited["PATH"] == os.environ["PATH"]
        assert TOKEN not in inherited.values()
        assert not [name for name in inherited if name.startswith("npm_")]
