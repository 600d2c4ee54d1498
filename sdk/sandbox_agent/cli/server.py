"""`sandbox-agent server`, and what shows or serves the mock agent."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from .options import data_dir_option, env, flags, own_token, program_path, read_secret, token_options

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["demo", "mock_agent", "mock_agent_process", "server"]

DAY = 24 * 60 * 60


@click.command()
@flags(
    click.option("-H", "--host", default="127.0.0.1", show_default=True, **env("HOST"), help="Address to listen on."),
    click.option("-p", "--port", default=2468, type=click.IntRange(0, 65535), show_default=True, **env("PORT")),
    click.option(
        "--address-file", type=click.Path(path_type=Path, dir_okay=False), **env("ADDRESS_FILE"),
        help="Write the URL into this file once it listens; 0 as the port takes a free one.",
    ),
    token_options,
    click.option(
        "--tokens-file", type=click.Path(path_type=Path, dir_okay=False), **env("TOKENS_FILE"),
        help="TOML or JSON file of further tokens, with scopes and expiry; read again on SIGHUP.",
    ),
    click.option(
        "--await-init", is_flag=True, **env("AWAIT_INIT"),
        help="Do nothing until POST /v1/init has given the token, once.",
    ),
    click.option(
        "--init-secret-file", type=click.Path(path_type=Path, dir_okay=False), **env("INIT_SECRET_FILE"),
        help="File of a secret that POST /v1/init has to bring along.  [or env var: SANDBOX_AGENT_INIT_SECRET]",
    ),
    click.option(
        "-O", "--cors-allow-origin", multiple=True, metavar="ORIGIN", **env("CORS_ALLOW_ORIGIN"),
        help="A web page's origin that may call this server; repeatable.",
    ),
    click.option("-M", "--cors-allow-method", multiple=True, metavar="METHOD", **env("CORS_ALLOW_METHOD")),
    click.option("-A", "--cors-allow-header", multiple=True, metavar="HEADER", **env("CORS_ALLOW_HEADER")),
    click.option("-C", "--cors-allow-credentials", is_flag=True, **env("CORS_ALLOW_CREDENTIALS")),
    data_dir_option,
    click.option(
        "--state-dir", type=click.Path(path_type=Path, file_okay=False), **env("STATE_DIR"),
        help="Where this daemon's journal is.  [default: DATA_DIR/daemons/HOST-PORT]",
    ),
    click.option(
        "--agents", type=click.Path(path_type=Path, dir_okay=False), **env("AGENTS"),
        help="TOML or JSON file that defines agents of your own.",
    ),
    click.option(
        "--default-agent", metavar="AGENT", **env("DEFAULT_AGENT"),
        help="The agent that clients of /acp get who name none.  [default: they must name one]",
    ),
    click.option(
        "--offline", is_flag=True, **env("OFFLINE"), help="Install no agents: refuse at once what would need a network."
    ),
    click.option(
        "--require-preinstall", is_flag=True, **env("REQUIRE_PREINSTALL"),
        help="Install no agents on first use; a request to install one is still carried out.",
    ),
    click.option(
        "--inherit-env", multiple=True, metavar="PATTERN", **env("INHERIT_ENV"),
        help="Variables of this environment that agents get, too, such as 'MY_*'; repeatable. '*' alone: all.",
    ),
    click.option(
        "--trust-directory-config", is_flag=True, **env("TRUST_DIRECTORY_CONFIG"),
        help="Give sessions also those MCP servers of their directory that were not stored through this server.",
    ),
    click.option(
        "--max-body", default=64 << 20, type=click.IntRange(min=1), show_default=True, **env("MAX_BODY"),
        help="Bytes of the largest request body.",
    ),
    click.option(
        "--max-upload", default=0, type=click.IntRange(min=0), **env("MAX_UPLOAD"),
        help="Bytes of the largest file, or archive, that is uploaded; 0: no limit.  [default: no limit]",
    ),
    click.option(
        "--fs-root", type=click.Path(path_type=Path, file_okay=False), **env("FS_ROOT"),
        help="Keep the file API within this directory: no path or link leads out of it.  [default: no limit]",
    ),
    click.option(
        "--request-timeout-ms", type=click.IntRange(min=1), envvar="SANDBOX_AGENT_ACP_REQUEST_TIMEOUT_MS",
        show_envvar=True, help="Answer a request with an error if the agent has not by then.  [default: never]",
    ),
    click.option(
        "--retention-bytes", default=1 << 30, type=click.IntRange(min=0), show_default=True, **env("RETENTION_BYTES"),
        help="Bytes of events kept for each session; 0: no limit.",
    ),
    click.option(
        "--retention-events", default=0, type=click.IntRange(min=0), **env("RETENTION_EVENTS"),
        help="Events kept for each session.  [default: no limit]",
    ),
    click.option(
        "--retention-days", default=0.0, type=click.FloatRange(min=0), **env("RETENTION_DAYS"),
        help="Days that events are kept.  [default: no limit]",
    ),
    click.option(
        "--journal-sync", default="full", type=click.Choice(["full", "normal"]), show_default=True,
        **env("JOURNAL_SYNC"), help="full: events survive a power cut; normal: the end of any process.",
    ),
    click.option(
        "--restart-limit", default=5, type=click.IntRange(min=0), show_default=True, **env("RESTART_LIMIT"),
        help="Crashes of an agent within a minute that are followed by a restart.",
    ),
    click.option(
        "--restart-backoff-ms", default=200, type=click.IntRange(min=0), show_default=True,
        **env("RESTART_BACKOFF_MS"), help="Delay of the first restart; it doubles with each further crash.",
    ),
    click.option(
        "--queue-limit", default=8, type=click.IntRange(min=0), show_default=True, **env("QUEUE_LIMIT"),
        help="Prompts that may wait in a session whose client says nothing of it.",
    ),
    click.option(
        "--turn-deadline-ms", type=click.IntRange(min=1), **env("TURN_DEADLINE_MS"),
        help="Cancel a turn that takes longer, in a session whose client says nothing of it.  [default: never]",
    ),
    click.option(
        "--transcript-limit", default=48 << 10, type=click.IntRange(min=0), show_default=True,
        **env("TRANSCRIPT_LIMIT"),
        help="Bytes of the transcript that an agent is told which has lost the conversation; 0: none.",
    ),
    click.option(
        "--max-agents", default=0, type=click.IntRange(min=0), **env("MAX_AGENTS"),
        help="Agents that run at a time; for one more, the one that is idle longest is ended.  [default: no limit]",
    ),
    click.option(
        "--idle-limit", default=0.0, type=click.FloatRange(min=0), metavar="SECONDS", **env("IDLE_LIMIT"),
        help="End an agent that has had nothing to do for so long, until it has something.  [default: never]",
    ),
    click.option(
        "--grace", default=8.0, type=click.FloatRange(min=0.1), show_default=True, **env("GRACE"),
        help="Seconds that a shutdown may take.",
    ),
    click.option(
        "--exit-with-stdin", is_flag=True, **env("EXIT_WITH_STDIN"),
        help="Shut down at the end of stdin, too: with whoever holds the other end of that pipe, however it ends.",
    ),
    click.option(
        "--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), show_default=True,
        **env("LOG_LEVEL"),
    ),
    click.option(
        "--log-format", default="logfmt", type=click.Choice(["logfmt", "json"]), show_default=True, **env("LOG_FORMAT")
    ),
    click.option("--no-telemetry", is_flag=True, hidden=True, help="There is none; taken for compatibility."),
)  # fmt: skip
@click.pass_context
def server(
    context: click.Context,
    *,
    host: str,
    port: int,
    address_file: Path | None,
    tokens_file: Path | None,
    await_init: bool,
    init_secret_file: Path | None,
    cors_allow_origin: tuple[str, ...],
    cors_allow_method: tuple[str, ...],
    cors_allow_header: tuple[str, ...],
    cors_allow_credentials: bool,
    data_dir: Path,
    state_dir: Path | None,
    agents: Path | None,
    default_agent: str | None,
    offline: bool,
    require_preinstall: bool,
    inherit_env: tuple[str, ...],
    trust_directory_config: bool,
    max_body: int,
    max_upload: int,
    fs_root: Path | None,
    request_timeout_ms: int | None,
    retention_bytes: int,
    retention_events: int,
    retention_days: float,
    journal_sync: Literal["full", "normal"],
    restart_limit: int,
    restart_backoff_ms: int,
    queue_limit: int,
    turn_deadline_ms: int | None,
    transcript_limit: int,
    max_agents: int,
    idle_limit: float,
    grace: float,
    exit_with_stdin: bool,
    log_level: str,
    log_format: str,
    no_telemetry: bool,
) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Without a token it listens on loopback only. Give the token by SANDBOX_AGENT_TOKEN or --token-file rather than by
    --token: other users of the machine can see command lines.
    """
    import trio

    from sandbox_actors.journal import Retention
    from sandbox_actors.redaction import Redactor, secrets_in
    from sandbox_http.config import BadConfig, Config, Cors
    from sandbox_http.daemon import run_daemon
    from sandbox_http.logs import set_up_logs
    from sandbox_supervisor import RestartPolicy

    token = own_token(context)
    config = Config(
        data_dir=data_dir,
        host=host,
        port=port,
        token=token,
        cors=Cors(cors_allow_origin, cors_allow_method, cors_allow_header, cors_allow_credentials),
        state_dir=None if state_dir is None else state_dir.absolute(),
        agents_file=agents,
        default_agent=default_agent,
        offline=offline,
        preinstalled_only=require_preinstall,
        max_body=max_body,
        max_upload=max_upload,
        fs_root=fs_root,
        request_timeout=None if request_timeout_ms is None else request_timeout_ms / 1000,
        retention=Retention(retention_days * DAY or None, retention_events or None, retention_bytes or None),
        synchronous="NORMAL" if journal_sync == "normal" else "FULL",
        restart=RestartPolicy(intensity=restart_limit, backoff=restart_backoff_ms / 1000),
        queue_limit=queue_limit,
        turn_deadline=None if turn_deadline_ms is None else turn_deadline_ms / 1000,
        transcript_limit=transcript_limit,
        max_agents=max_agents,
        idle_limit=idle_limit,
        grace=grace,
        program=program_path(),
        inherited=tuple(pattern for given in inherit_env for pattern in given.replace(",", " ").split()),
        trust_directory_config=trust_directory_config,
        tokens_file=tokens_file,
        await_init=await_init,
        init_secret=_init_secret(init_secret_file) if await_init else None,
        address_file=address_file,
        exit_with_stdin=exit_with_stdin,
    )
    redactor = Redactor({*secrets_in(os.environ), *filter(None, [token, config.init_secret])})
    set_up_logs(log_level, as_json=log_format == "json", redactor=redactor)
    try:
        trio.run(run_daemon, config)
    except* BadConfig as group:
        for error in _leaves(group):
            click.echo(f"sandbox-agent: {redactor.redact(str(error))}", err=True)
        sys.exit(1)


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    """The errors in a group, however deep."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _init_secret(file: Path | None) -> str | None:
    """The secret that whoever initializes us has to know; never an argument, which other users could see."""
    return os.environ.get("SANDBOX_AGENT_INIT_SECRET") if file is None else read_secret("--init-secret-file", file)


@click.command()
def demo() -> None:
    """Show a first conversation with the mock agent: starts a daemon of its own and ends it again."""
    import trio

    from sandbox_http.logs import set_up_logs

    from ..demo import run_demo

    set_up_logs("error", as_json=False)
    trio.run(run_demo)
    click.echo("\n  Now start your own:  sandbox-agent server   (see the README)\n")


@click.command("mock-agent")
def mock_agent() -> None:
    """Be the built-in mock agent: ACP on stdin and stdout, for tests and demonstrations."""
    from sandbox_actors.mock import main as run_mock_agent

    sys.exit(run_mock_agent())


mock_agent_process = click.Command("mock-agent-process", callback=mock_agent.callback, hidden=True)
"""The name by which launcher scripts of the public wire call it."""
