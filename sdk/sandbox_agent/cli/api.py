"""`sandbox-agent api`: the HTTP API of a running server, from a shell."""

from __future__ import annotations

import sys
import time
from typing import IO, TYPE_CHECKING
from urllib.parse import quote

import click

from .calling import calling, endpoint_option
from .options import Failure, flags, given_token, json_option, tell_json, tell_table, token_options

if TYPE_CHECKING:
    import httpx

__all__ = ["api"]

STREAM_SILENCE = 60.0
"""Seconds. The server sends a comment every ten or fifteen."""


@click.group()
def api() -> None:
    """Call the HTTP API of a running server."""


@api.group()
def agents() -> None:
    """See and install the agents of a server."""


@agents.command("list")
@flags(endpoint_option, token_options, json_option)
@click.pass_context
def list_agents(context: click.Context, *, endpoint: str, as_json: bool) -> None:
    """List the agents that the server knows."""
    from .agent_report import Listing, read, yes_or_no

    with calling(endpoint, given_token(context)) as client:
        body = _succeeded(client.get("/v1/agents")).content
    if as_json:
        _print_json(body)
        return
    rows = [
        (agent.id, yes_or_no(agent.installed), yes_or_no(agent.credentials_available), agent.running)
        for agent in read(body, Listing).agents
    ]
    tell_table(("AGENT", "INSTALLED", "CREDENTIALS", "PROCESS"), rows)


@agents.command()
@flags(
    endpoint_option,
    token_options,
    click.option("--json", "as_json", is_flag=True, help="Taken for uniformity: the report is JSON in any case."),
)
@click.pass_context
def report(context: click.Context, *, endpoint: str, as_json: bool) -> None:
    """Print the models, modes and thought levels of each agent, as JSON."""
    from .agent_report import Listing, read, report_of

    with calling(endpoint, given_token(context)) as client:
        body = _succeeded(client.get("/v1/agents", params={"config": "true"})).content
    tell_json(report_of(read(body, Listing), endpoint, round(time.time() * 1000)))


@agents.command()
@flags(
    click.argument("agent"),
    click.option("-r", "--reinstall", is_flag=True, help="Install it again where it is installed already."),
    click.option("--agent-version", metavar="VERSION", help="Of the agent's own command line tool."),
    click.option("--agent-process-version", metavar="VERSION", help="Of the program that speaks ACP."),
    endpoint_option,
    token_options,
    json_option,
)
@click.pass_context
def install(
    context: click.Context,
    *,
    agent: str,
    reinstall: bool,
    agent_version: str | None,
    agent_process_version: str | None,
    endpoint: str,
    as_json: bool,
) -> None:
    """Let the server install AGENT, and show how far it is."""
    from .remote_install import install_remotely, tell_installed

    body: dict[str, object] = {"reinstall": reinstall}
    body |= {"agentVersion": agent_version} if agent_version is not None else {}
    body |= {"agentProcessVersion": agent_process_version} if agent_process_version is not None else {}
    with calling(endpoint, given_token(context)) as client:
        outcome = install_remotely(client, agent, body)
    if as_json:
        _print_json(outcome)
    else:
        tell_installed(agent, outcome)


@api.group()
def acp() -> None:
    """Talk ACP (JSON-RPC) to an agent of a server."""


def _server_id(_context: click.Context, _parameter: click.Parameter, given: str) -> str:
    # Not usage errors with exit code 2, as on the public command.
    if not given.strip():
        raise Failure("server id must not be empty")
    if "/" in given:
        raise Failure("server id must not contain '/'")
    return given


server_id_option = click.option(
    "--server-id", required=True, metavar="ID", callback=_server_id, help="Your name for the conversation."
)


@acp.command()
@flags(
    server_id_option,
    click.option("--agent", help="Which agent to start; needed with the first message of a server id."),
    click.option("--json", "payload", metavar="JSON", help="The message."),
    click.option("--json-file", type=click.File("rb"), metavar="FILE", help="A file with the message; '-' is stdin."),
    endpoint_option,
    token_options,
)
@click.pass_context
def post(
    context: click.Context,
    *,
    server_id: str,
    agent: str | None,
    payload: str | None,
    json_file: IO[bytes] | None,
    endpoint: str,
) -> None:
    """Send a message to an agent and print its answer.

    A notification has no answer, and nothing is printed. A refusal is printed on stderr as the server's problem
    document, with exit code 1.
    """
    if payload is not None and json_file is not None:
        raise Failure("provide either --json or --json-file, not both")
    if payload is None and json_file is None:
        raise Failure("missing payload: provide --json or --json-file")
    message = json_file.read() if json_file is not None else (payload or "").encode("utf-8", "surrogateescape")
    _check_json(message)
    with calling(endpoint, given_token(context)) as client:
        answer = client.post(
            _path(server_id),
            params={} if agent is None else {"agent": agent},
            content=message,  # as it was given: numbers and the order of members stay
            headers={"Content-Type": "application/json"},
        )
    _tell_problem(answer)
    if answer.content:
        _print_json(answer.content)


@acp.command()
@flags(
    server_id_option,
    click.option(
        "--last-event-id", metavar="NUMBER", help="Begin behind this event.  [default: with the first one that is kept]"
    ),
    endpoint_option,
    token_options,
)
@click.pass_context
def stream(
    context: click.Context,
    *,
    server_id: str,
    last_event_id: str | None,
    endpoint: str,
) -> None:
    """Print all that the agent says, a JSON document a line, until the stream ends.

    It ends when the server id is closed or the server stops, and with ^C.
    """
    from .server_events import server_events

    headers = {"Accept": "text/event-stream"}
    headers |= {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    with (
        calling(endpoint, given_token(context), silence=STREAM_SILENCE) as client,
        client.stream("GET", _path(server_id), headers=headers) as answer,
    ):
        if not answer.is_success:
            answer.read()
            _tell_problem(answer)
        for event in server_events(answer.iter_bytes()):
            click.echo(event.data)  # flushed, for whoever reads it live


@acp.command()
@flags(server_id_option, endpoint_option, token_options)
@click.pass_context
def close(context: click.Context, *, server_id: str, endpoint: str) -> None:
    """End a conversation and its agent's process."""
    with calling(endpoint, given_token(context)) as client:
        _tell_problem(client.delete(_path(server_id)))


def _path(server_id: str) -> str:
    return f"/v1/acp/{quote(server_id, safe='')}"


def _succeeded(answer: httpx.Response) -> httpx.Response:
    if not answer.is_success:
        from .refusal import sentence_of

        raise Failure(sentence_of(answer))
    return answer


def _tell_problem(answer: httpx.Response) -> None:
    """Where the answer is a refusal, print it as it came and end with code 1."""
    if answer.is_success:
        return
    import msgspec

    from .refusal import sentence_of

    try:
        problem = msgspec.json.format(answer.content, indent=2)
    except msgspec.DecodeError:
        raise Failure(sentence_of(answer)) from None
    click.echo(problem, err=True)
    sys.exit(1)


def _check_json(message: bytes) -> None:
    import msgspec

    try:
        msgspec.json.decode(message)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Failure(f"the payload is not JSON: {error}") from None


def _print_json(body: bytes) -> None:
    """Print a JSON document that came from the server, indented, with its numbers as they came."""
    import msgspec

    try:
        shown = msgspec.json.format(body, indent=2)
    except msgspec.DecodeError:
        raise Failure("the answer is not JSON: is this a Sandbox Agent server?") from None
    click.echo(shown)
