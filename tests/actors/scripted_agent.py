"""A tiny agent for tests: each method is one thing to do. It knows nothing of ACP but `initialize`.

    python scripted_agent.py [FOLDER]

Files in the folder change how it starts: with `broken` it crashes at once, with `mute` it answers no `initialize`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def write(message: dict[str, Any]) -> None:
    os.write(1, json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")


def main() -> None:
    flags = os.listdir(sys.argv[1]) if len(sys.argv) > 1 else []
    if "broken" in flags:
        sys.exit("broken from the start")
    received: list[str] = []
    kept: list[dict[str, Any]] = []
    for line in sys.stdin:
        received.append(line.rstrip("\n"))
        message = json.loads(line)
        params = message.get("params") or {}
        result: object = {}
        match message.get("method"):
            case "initialize" if "mute" in flags:
                continue
            case "keep" | "session/prompt":
                kept.append(message)
                continue
            case "release":
                for one in reversed(kept):
                    write({"id": one["id"], "result": one["params"]})
            case "question":
                write({"id": params["id"], "method": "session/request_permission", "params": {"options": []}})
            case "print":
                os.write(1, params["text"].encode("latin-1"))
            case "received":
                result = received
            case "deaf":
                write({"id": message["id"], "result": {}})
                time.sleep(1000)
            case "exit":
                print("last words", file=sys.stderr, flush=True)
                os._exit(params["code"])
        if "id" in message and "method" in message:
            write({"id": message["id"], "result": result})


if __name__ == "__main__":
    main()
