"""Sandbox Agent: run coding agents in a sandbox and drive them from outside.

The `sandbox-agent` command is in `sandbox_agent.cli`.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
