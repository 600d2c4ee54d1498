"""Bodies of any kind are answered, and never with a failure of ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from support.session_client import session_client

if TYPE_CHECKING:
    from pathlib import Path

    from support.session_client import SessionClient

NAMES = (
    *("agent", "id", "cwd", "mcpServers", "env", "mode", "model", "config", "permissionPolicy", "title", "tags"),
    *("idleLimitMs", "turnDeadlineMs", "queueLimit", "resume", "content", "type", "text", "path", "data", "mimeType"),
    *("resource", "uri", "blob", "turnId", "optionId", "outcome", "action", "rules", "decision", "kind"),
)
EXAMPLES = 60

words = st.sampled_from(["mock", "text", "file", "/", "ask", "allow", "cancelled", "\0", "é", "\u202e", ""])
values = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2**70) | st.floats() | words | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
    max_leaves=6,
)
bodies = st.one_of(
    st.dictionaries(st.sampled_from(NAMES), values, max_size=4).map(lambda body: json.dumps(body).encode()),
    values.map(lambda body: json.dumps(body).encode()),
    st.binary(max_size=30),
    st.just(b"[" * 3000),
    st.just(b'{"content":' * 600),
)
targets = st.sampled_from(
    [
        ("PATCH", ""),
        ("POST", "/prompt"),
        ("POST", "/cancel"),
        ("POST", "/permissions/perm_1"),
        ("POST", "/../sessions"),
        ("POST", "/hibernate"),
    ]
)


async def test_whatever_is_sent_is_answered_with_a_success_or_the_clients_mistake(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        token = trio.lowlevel.current_trio_token()
        await trio.to_thread.run_sync(_fuzz, app, token)
        assert (await app.get())["state"] != "failed"


def _fuzz(app: SessionClient, token: trio.lowlevel.TrioToken) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(targets, bodies)
    def check(target: tuple[str, str], body: bytes) -> None:
        method, path = target
        answer = trio.from_thread.run(_ask, app, method, path, body, trio_token=token)
        assert answer.status < 500, (target, body, answer)
        if answer.status >= 400:
            assert answer.problem

    check()


async def _ask(app: SessionClient, method: str, path: str, body: bytes) -> Any:
    if path == "/../sessions":
        own, app.id = app.id, ""
        try:
            return await app.ask("POST", "", raw=body, headers={"Content-Type": "application/json"})
        finally:
            app.id = own
    return await app.ask(method, path, raw=body, headers={"Content-Type": "application/json"})


NASTY = ["%00", "%FF", "%C3%A9", "..%2F..", "a" * 3000, "%E2%80%AE", "%20", "x%0Ay"]


async def test_ids_of_any_kind_are_answered(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        own = app.id
        for nasty in NASTY:
            for id, path in ((nasty, ""), (nasty, "/events"), (own, f"/turns/{nasty}")):
                app.id = id
                answer = await app.ask("GET", path)
                assert answer.status in (400, 404), (id, path)
                assert answer.problem
            app.id = own
            answer = await app.ask("POST", f"/permissions/{nasty}", {"outcome": "cancelled"})
            assert answer.status in (400, 404)
            for query in (f"?kind={nasty}", f"?turn={nasty}", f"?epoch={nasty}", f"?after={nasty}", f"?limit={nasty}"):
                assert (await app.ask("GET", f"/events{query}")).status in (200, 400)
            app.id = ""
            for query in (f"?agent={nasty}", f"?tag={nasty}:x", f"?cursor={nasty}", f"?state={nasty}"):
                assert (await app.ask("GET", query)).status in (200, 400)
            app.id = own
