"""Transcripts and usage over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.session_client import session_client

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_transcript_is_told_in_three_forms(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        first = await app.say("# one\n/think hm\n/tool look")
        await app.say("two")
        answer = await app.ask("GET", "/transcript")
        assert answer.headers["content-type"] == "text/markdown; charset=utf-8"
        text = answer.body.decode()
        assert text.startswith(f"# Session `{app.id}`\n\nAgent: `mock`\n\n## Turn `{first['turnId']}`\n")
        assert "\n### User\n\n> # one\n" in text
        assert "\n### Thought\n\n> hm\n" in text
        assert "\n### Tool `look`\n\n`other`, `completed`\n" in text
        answer = await app.ask("GET", "/transcript?format=jsonl")
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = [json.loads(line) for line in answer.body.splitlines()]
        document = await app.get("/transcript?format=json")
        assert document == {"sessionId": app.id, "entries": lines}
        assert [line["type"] for line in lines].count("turn_ended") == 2
        only = (await app.get(f"/transcript?format=json&turn={first['turnId']}&thoughts=false"))["entries"]
        assert only == [
            line for line in lines if line.get("turnId") == first["turnId"] and line.get("role") != "thought"
        ]
        for query in ("?format=pdf", "?thoughts=perhaps"):
            refused = await app.ask("GET", f"/transcript{query}")
            assert (refused.status, refused.problem) == (400, "invalid_request")


async def test_an_empty_session_has_an_empty_transcript(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        assert (await app.get("/transcript?format=json"))["entries"] == []
        assert (await app.ask("GET", "/transcript?format=jsonl")).body == b""


async def test_usage_is_counted_on_from_where_it_was(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        assert (await app.get("/usage"))["total"] == {}
        await app.say("/usage 1000000 2000000")
        usage = await app.get("/usage")
        assert usage["total"] == {"turns": 1, "cost": {"USD": 1.0}}
        assert usage["context"][0]["used"] == 1_000_000
        await app.say("/usage 1500000 2000000")
        usage = await app.get("/usage")
        assert (usage["total"], usage["complete"]) == ({"turns": 2, "cost": {"USD": 1.5}}, True)
        assert [turn["cost"] for turn in usage["turns"]] == [{"USD": 1.0}, {"USD": 0.5}]
        assert usage["seq"] == (await app.get())["head"]
