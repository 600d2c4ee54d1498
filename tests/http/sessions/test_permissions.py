"""Permissions over HTTP: listed while they are open, answered once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from support.session_client import SessionClient, session_client

if TYPE_CHECKING:
    from pathlib import Path

Json = Any


async def asking(app: SessionClient) -> Json:
    """The permission that a new turn waits for."""
    seq = (await app.prompt("/permission execute: ls"))["seq"]
    async with app.stream(f"?after={seq}&kind=permission.requested") as stream:
        await stream.until(b"permission.requested")
    (pending,) = (await app.get("/permissions"))["permissions"]
    return pending


async def test_a_permission_is_listed_and_answered_by_one_of_its_options(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        pending = await asking(app)
        assert (pending["kind"], "outcome" in pending) == ("permission", False)
        assert pending["toolCall"]["kind"] == "execute"
        assert (await app.get())["pendingPermissions"] == 1
        path = f"/permissions/{pending['permissionId']}"
        bad: list[Json] = [{}, {"optionId": "?"}, {"optionId": "yes", "outcome": "cancelled"}, {"choice": "yes"}, []]
        for body in bad:
            answer = await app.ask("POST", path, body)
            assert (answer.status, answer.problem) == (400, "invalid_request"), (body, answer)
        option = next(one["optionId"] for one in pending["options"] if one["kind"] == "allow_once")
        settled = await app.post(path, {"optionId": option})
        assert (settled["outcome"], settled["optionId"], settled["by"]) == ("selected", option, "client")
        late = await app.ask("POST", path, {"outcome": "cancelled"})
        assert (late.status, late.problem) == (409, "permission_resolved")
        assert await app.get("/permissions") == {"permissions": []}
        (told,) = (await app.get("/permissions?all=true"))["permissions"]
        assert told["outcome"] == "selected"
        answer = await app.ask("POST", "/permissions/nobody", {"outcome": "cancelled"})
        assert (answer.status, answer.problem) == (404, "permission_not_found")


async def test_a_permission_can_be_cancelled_and_a_cancelled_turn_cancels_it(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        pending = await asking(app)
        settled = await app.post(f"/permissions/{pending['permissionId']}", {"outcome": "cancelled"})
        assert settled["outcome"] == "cancelled"
        async with app.stream("?kind=turn.ended") as stream:
            await stream.until(b"turn.ended")
        await asking(app)
        await app.post("/cancel", status=202)
        assert await app.get("/permissions") == {"permissions": []}


async def test_a_policy_answers_by_itself(tmp_path: Path) -> None:
    async with session_client(tmp_path) as app:
        assert (await app.ask("PATCH", "", {"permissionPolicy": "deny_all"})).status == 200
        assert (await app.say("/permission execute: ls"))["text"] == "permission: reject_once"
        events = (await app.events("?kind=permission.resolved"))["events"]
        assert [one["envelope"]["params"]["by"] for one in events] == ["policy:deny_all"]
