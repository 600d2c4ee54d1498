"""An entry has one form, whatever a client calls its members, and what is none is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from sandbox_actors.directory_config import MCP, SKILLS, InvalidEntry

LOCAL: dict[str, object] = {"type": "local", "command": "npx", "args": []}
REMOTE: dict[str, object] = {"type": "remote", "url": "http://127.0.0.1:9/mcp"}


def as_json(entry: object) -> Any:
    return json.loads(msgspec.json.encode(entry))


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"type": "local", "command": "npx"}, LOCAL),
        ({"type": "stdio", "command": "npx"}, LOCAL),
        ({"command": ["npx", "-y"], "type": "local"}, {"type": "local", "command": ["npx", "-y"], "args": []}),
        ({**LOCAL, "timeout": 5, "unknown": 1}, {**LOCAL, "timeoutMs": 5}),
        ({**LOCAL, "env": None, "enabled": None, "timeoutMs": None, "cwd": None}, LOCAL),
        (
            {**LOCAL, "cwd": "/x", "timeoutMs": 0, "enabled": False, "env": {"A": ""}, "args": ["a"]},
            {**LOCAL, "cwd": "/x", "timeoutMs": 0, "enabled": False, "env": {"A": ""}, "args": ["a"]},
        ),
        ({"type": "http", "url": "u"}, {"type": "remote", "url": "u"}),
        ({**REMOTE, "bearer_token_env_var": "T"}, {**REMOTE, "bearerTokenEnvVar": "T"}),
        ({**REMOTE, "env_http_headers": {"X": "V"}}, {**REMOTE, "envHeaders": {"X": "V"}}),
        ({**REMOTE, "envHttpHeaders": {"X": "V"}, "timeout": 1}, {**REMOTE, "envHeaders": {"X": "V"}, "timeoutMs": 1}),
        ({**REMOTE, "transport": "sse", "oauth": False}, {**REMOTE, "transport": "sse", "oauth": False}),
        ({**REMOTE, "oauth": {"clientId": "c", "x": 1}}, {**REMOTE, "oauth": {"clientId": "c"}}),
        ({**REMOTE, "oauth": {}, "headers": {"A": "b"}}, {**REMOTE, "oauth": {}, "headers": {"A": "b"}}),
    ],
)
def test_a_server_is_stored_in_one_form_whatever_names_were_given(given: object, stored: object) -> None:
    entry = MCP.parse(given)
    assert as_json(entry) == stored
    assert MCP.parse(as_json(entry)) == entry


@pytest.mark.parametrize(
    "given",
    [
        {},
        [],
        None,
        "npx",
        {"command": "npx"},
        {"type": "local"},
        {"type": "remote"},
        {"type": 1},
        {"type": "websocket", "url": "u"},
        {**LOCAL, "args": None},
        {**LOCAL, "command": 1},
        {**LOCAL, "env": {"A": 1}},
        {**LOCAL, "timeoutMs": 1.5},
        {**LOCAL, "timeoutMs": -1},
        {**LOCAL, "timeoutMs": 2**63},
        {**LOCAL, "timeout": 1, "timeoutMs": 1},
        {**LOCAL, "enabled": "yes"},
        {**REMOTE, "transport": "ws"},
        {**REMOTE, "oauth": "yes"},
        {**REMOTE, "headers": ["a"]},
    ],
)
def test_what_is_no_server_is_refused(given: object) -> None:
    with pytest.raises(InvalidEntry):
        MCP.parse(given)


def test_a_set_of_skills_is_a_list_of_sources() -> None:
    source = {"type": "github", "source": "o/r", "skills": ["a"], "ref": "main", "subpath": "x"}
    assert as_json(SKILLS.parse({"sources": [{**source, "x": 1}, {"type": "any", "source": "", "ref": None}]})) == {
        "sources": [source, {"type": "any", "source": ""}]
    }
    assert as_json(SKILLS.parse({"sources": []})) == {"sources": []}
    for wrong in ({}, {"sources": None}, {"sources": [{"type": "git"}]}, {"sources": [{"source": "x"}]}):
        with pytest.raises(InvalidEntry):
            SKILLS.parse(wrong)
