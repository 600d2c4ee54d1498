"""A program between an agent and its client, which hides that the agent can load and resume sessions.

python forgetful.py COMMAND...
"""

from __future__ import annotations

import json
import subprocess
import sys


def main() -> int:
    with subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE) as agent:
        assert agent.stdout is not None
        for line in agent.stdout:
            sys.stdout.buffer.write(_hidden(line) if b'"agentCapabilities"' in line else line)
            sys.stdout.buffer.flush()
    return agent.returncode


def _hidden(line: bytes) -> bytes:
    message = json.loads(line)
    capabilities = message.get("result", {}).get("agentCapabilities", {})
    capabilities.pop("loadSession", None)
    capabilities.get("sessionCapabilities", {}).pop("resume", None)
    return json.dumps(message).encode() + b"\n"


if __name__ == "__main__":
    sys.exit(main())
