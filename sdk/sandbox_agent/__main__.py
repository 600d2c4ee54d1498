"""`python -m sandbox_agent`: the command, where it is not on PATH."""

from .cli import main

main(prog_name="sandbox-agent")
