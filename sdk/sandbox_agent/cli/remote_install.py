"""An install that a server does, followed over its event stream (`POST /v1/agents/{id}/install`)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from .agent_report import read
from .install_display import showing_installs
from .options import Failure, tell_table
from .refusal import ProblemDocument, sentence_of
from .server_events import server_events

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

__all__ = ["install_remotely", "tell_installed"]


class ProgressEvent(msgspec.Struct, rename="camel"):
    """What a `progress` event says."""

    agent: str
    step: str
    message: str = ""
    bytes: int = 0
    total_bytes: int | None = None


class Artifact(msgspec.Struct):
    kind: str
    path: str
    source: str
    version: str | None = None


class Installed(msgspec.Struct):
    already_installed: bool
    artifacts: list[Artifact] = []


def install_remotely(client: httpx.Client, agent: str, body: Mapping[str, object]) -> bytes:
    """Have an agent installed and show how far it is; gives the server's answer, a JSON document.

    Raises:
      Failure: the server refused, or the install failed.
    """
    path = f"/v1/agents/{quote(agent, safe='')}/install"
    # A server that knows no streams here answers with JSON, after however long it takes.
    accept = {"Accept": "text/event-stream, application/json;q=0.9"}
    with client.stream("POST", path, json=body, headers=accept) as answer:
        if not answer.is_success:
            answer.read()
            raise Failure(sentence_of(answer))
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            return answer.read()
        with showing_installs() as display:
            for event in server_events(answer.iter_bytes()):
                match event.name:
                    case "progress":
                        now = read(event.data, ProgressEvent)
                        display.show(now.agent, now.step, now.message, now.bytes, now.total_bytes)
                    case "installed":
                        return event.data
                    case "failed":
                        raise Failure(read(event.data, ProblemDocument).detail)
                    case _:
                        pass
    raise Failure("the server stopped before the install had ended; ask again once it runs")


def tell_installed(agent: str, body: bytes) -> None:
    """Say for people how an install ended."""
    import click

    outcome = read(body, Installed)
    if outcome.already_installed:
        click.echo(f"{agent} is already installed")
        return
    rows = [(each.kind, each.version or "-", each.source, each.path) for each in outcome.artifacts]
    tell_table(("INSTALLED", "VERSION", "SOURCE", "PATH"), rows)
