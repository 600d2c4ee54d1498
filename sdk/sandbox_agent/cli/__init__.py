"""The `sandbox-agent` command. The daemon and the agents are imported only by the commands that need them."""

from __future__ import annotations

import click

from .. import __version__
from .server import demo, mock_agent, mock_agent_process, server

__all__ = ["main"]


@click.group(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    }
)
@click.version_option(__version__, "-V", "--version", prog_name="sandbox-agent", message="%(prog)s %(version)s")
@click.option("-t", "--token", envvar="SANDBOX_AGENT_TOKEN", help="The bearer token that clients must send.")
@click.option("-n", "--no-token", is_flag=True, help="Take requests without a token; on loopback only.")
@click.pass_context
def main(context: click.Context, token: str | None, no_token: bool) -> None:
    """Run coding agents in a sandbox and drive them over HTTP."""
    context.obj = {"token": token, "no_token": no_token}


for command in (server, demo, mock_agent, mock_agent_process):
    main.add_command(command)
