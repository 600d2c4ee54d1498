"""The commands: the table that the parser, `/help` and `/commands` read, and the loop that takes a prompt's steps."""

from __future__ import annotations

import json
import os

from . import mischief, updates
from .script import Misuse, Words
from .wire import RpcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    from .script import Prompt
    from .turn import Turn
    from .wire import Json, Object

    # What a command returns, if anything, is the stop reason with which the turn ends there.
    Act: TypeAlias = "Callable[[Turn, Words], str | None]"


def sleep(turn: Turn, words: Words) -> None:
    turn.sleep(words.number(1))


def hang(turn: Turn, words: Words) -> None:
    turn.sleep()


def recite(turn: Turn, words: Words) -> None:
    *earlier, _ = turn.session.prompts()
    said = [f"{number}. [{role}] {text}" for number, (role, text) in enumerate(earlier, 1)]
    turn.say("\n".join([f"earlier prompts: {len(said)}", *said]))


def state(turn: Turn, words: Words) -> None:
    session = turn.session
    known: Object = {
        "sessionId": session.id,
        "pid": os.getpid(),
        "cwd": session.cwd,
        "mcpServers": session.servers,
        **session.chosen,
    }
    turn.say(json.dumps(known))


def env(turn: Turn, words: Words) -> None:
    name = words.word()
    value = os.environ.get(name)
    turn.say(f"{name} is not set" if value is None else f"{name}={value}")


def error(turn: Turn, words: Words) -> None:
    word = words.word()
    try:
        code = int(word)
    except ValueError:
        raise Misuse(f"{word!r} is no code") from None
    raise RpcError(code, words.rest("the prompt asked for this error"))


def stop(turn: Turn, words: Words) -> str:
    return words.word()


def silent(turn: Turn, words: Words) -> str:
    return "end_turn"


def tell_commands(turn: Turn, words: Words) -> None:
    commands: list[Json] = []
    for name, (_, hint, description) in COMMANDS.items():
        hinted: Object = {"input": {"hint": hint}} if hint else {}
        commands.append({"name": name, "description": description, **hinted})
    turn.update({"sessionUpdate": "available_commands_update", "availableCommands": commands})


def tell_help(turn: Turn, words: Words) -> None:
    turn.say("\n".join(f"{usage(name)}: {description}" for name, (_, _, description) in COMMANDS.items()))


COMMANDS: dict[str, tuple[Act, str, str]] = {
    "echo": (updates.echo, "TEXT", "says TEXT in a few chunks"),
    "think": (updates.think, "TEXT", "thinks TEXT"),
    "stream": (updates.stream, "N [SIZE] [RATE]", "N updates, lines of about SIZE bytes, RATE a second (0: at once)"),
    "huge": (updates.huge, "BYTES", "one update, its line that long"),
    "tool": (updates.tool, "[NAME]", "a tool call: pending, in progress, completed"),
    "write": (updates.write, "PATH TEXT", r"writes the file, as a tool call with a diff (\n is a line break)"),
    "write?": (updates.write_if_allowed, "PATH TEXT", "the same, if the client permits it"),
    "permission": (updates.permission, "[KIND:] [TITLE]", "asks for permission and tells the outcome"),
    "plan": (updates.plan, "A; B; C", "a plan whose entries get done one by one"),
    "usage": (updates.usage, "[USED] [SIZE]", "a usage update"),
    "commands": (tell_commands, "", "an update with these commands"),
    "title": (updates.title, "TEXT", "gives the session a title"),
    "ask-client": (updates.ask_client, "METHOD [JSON]", "sends the client a request and tells the answer"),
    "recite": (recite, "", "tells the earlier prompts and context of this session"),
    "state": (state, "", "tells the session's id, pid, cwd, MCP servers, mode and options as JSON"),
    "env": (env, "NAME", "tells an environment variable"),
    "sleep": (sleep, "[SECONDS]", "waits"),
    "hang": (hang, "", "waits for ever; can be cancelled"),
    "silent": (silent, "", "ends the turn here"),
    "stop": (stop, "REASON", "ends the turn here with this stop reason"),
    "error": (error, "CODE [MESSAGE]", "answers the prompt with a JSON-RPC error"),
    "crash": (mischief.crash, "[CODE] [N]", "exits at once with that status, after N updates"),
    "signal": (mischief.kill, "NAME", "sends itself a signal"),
    "deaf": (mischief.deaf, "", "waits for ever; cannot be cancelled"),
    "garbage": (mischief.garbage, "[N]", "N lines on stdout that are no JSON, some no UTF-8"),
    "stderr": (mischief.stderr, "TEXT [N]", "writes N lines to stderr"),
    "ignore-sigterm": (mischief.ignore_sigterm, "", "survives SIGTERM and the end of input from now on"),
    "grandchild": (mischief.grandchild, "[SECONDS]", "starts a process in the same group, on the same pipes"),
    "orphan": (mischief.orphan, "[SECONDS] [pipes]", "starts a process that has left the group and lost its parent"),
    "help": (tell_help, "", "tells all this"),
}


def usage(name: str) -> str:
    return f"/{name} {COMMANDS[name][1]}".rstrip()


def take(turn: Turn, prompt: Prompt) -> str:
    """Take the prompt's steps; returns the stop reason."""
    for name, argument in prompt.steps():
        turn.check()
        if not name:
            turn.echo(argument)
        elif name not in COMMANDS:
            turn.say(f"there is no command /{name}; /help lists them")
        else:
            try:
                reason = COMMANDS[name][0](turn, Words(argument))
            except Misuse as misuse:
                turn.say(f"{misuse}; usage: {usage(name)}")
                continue
            if reason is not None:
                return reason
    return "end_turn"
