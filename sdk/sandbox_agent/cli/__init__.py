"""The `sandbox-agent` command. The daemon and the agents are imported only by the commands that need them."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from .. import __version__
from .agents import agents
from .api import api
from .credentials import credentials
from .daemon import daemon
from .doctor import doctor
from .install import install_agent
from .server import demo, mock_agent, mock_agent_process, server

__all__ = ["main"]


class _Command(click.Group):
    """It ends at ^C without a word, with the exit code that shells expect."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except* KeyboardInterrupt:  # out of Trio it comes in a group
            pass
        sys.exit(130)


@click.group(
    cls=_Command,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
)
@click.version_option(__version__, "-V", "--version", prog_name="sandbox-agent", message="%(prog)s %(version)s")
@click.option("-t", "--token", envvar="SANDBOX_AGENT_TOKEN", help="The bearer token that clients must send.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    envvar="SANDBOX_AGENT_TOKEN_FILE",
    help="A file that holds the token, and nothing else but blanks around it.",
)
@click.option("-n", "--no-token", is_flag=True, help="Take requests without a token; on loopback only.")
@click.pass_context
def main(context: click.Context, token: str | None, token_file: Path | None, no_token: bool) -> None:
    """Run coding agents in a sandbox and drive them over HTTP."""
    context.obj = {"token": token, "token_file": token_file, "no_token": no_token}


for command in (server, daemon, install_agent, agents, api, credentials, doctor, demo, mock_agent, mock_agent_process):
    main.add_command(command)
