"""The policy of a session: what becomes of an agent's request for permission before anybody is asked.

Rules are tried in their order, the first that fits decides, and the default decides the rest. A rule fits where all
that it names fits. An allow rule must be sure, so it is read strictly; a deny or ask rule is read broadly:

              allow                                                 deny, ask
    kind      the tool's kind, `other` where it is not told, and    the same, whatever it runs
              no command line beside it, but for `execute`
    tool      the tool's name                                       its name or its title
    command   one plain command line, and all of it, told by the    any command of the line or the title, however
              input, and nothing told that changes what it does     it is quoted and whatever leads to it
    path      every place, also what only looks like one, and no    any place
              command line beside them

No allow rule that names anything fits a call of which something is not known any more.

Paths are compared by words, after `.`, `..` and `//` are resolved: what links do is not seen here. All of it is the
agent's own account of what it is about to do; whoever must not trust the agent needs a sandbox, not a rule.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from .command_line import commands_of, is_plain
from .places import check_pattern, fits

if TYPE_CHECKING:
    from .tool_call import ToolCall

__all__ = ["PRESETS", "Decision", "Policy", "Preset", "Rule", "ToolKind", "Verdict", "policy_of"]

Preset: TypeAlias = Literal["ask", "allow_reads", "allow_all", "deny_all"]
Decision: TypeAlias = Literal["allow", "deny", "ask"]
ToolKind: TypeAlias = Literal[
    "read", "edit", "delete", "move", "search", "execute", "think", "fetch", "switch_mode", "other"
]
"""ACP protocol version 1, Tool Calls."""

PRESETS: tuple[Preset, ...] = ("ask", "allow_reads", "allow_all", "deny_all")
READS = frozenset({"read", "search", "think"})

RULES_LIMIT = 256
"""Rules of a policy: they are kept with the session, and tried one by one for every request."""

PATTERN_LIMIT = 4096
"""Characters of a pattern."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says, and which part of it: `rules[2]`, or the name of the default."""

    decision: Decision
    because: str


class Rule(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One rule. What it does not name may be anything.

    Attributes:
      kind: the tool's kind, or one of several.
      command: a glob over the command line, where `*` is any text. `*` alone is any command line, also several in one.
      path: a glob over the places that are touched; a relative one starts from the session's working directory.
      tool: a glob over the tool's name.
    """

    decision: Decision
    kind: ToolKind | tuple[ToolKind, ...] | None = None
    command: str | None = None
    path: str | None = None
    tool: str | None = None

    def __post_init__(self) -> None:
        for pattern in (self.command, self.path, self.tool):
            if pattern is not None and not 0 < len(pattern) <= PATTERN_LIMIT:
                raise ValueError(f"a pattern has between 1 and {PATTERN_LIMIT} characters")
        if self.path is not None:
            check_pattern(self.path)

    def fits(self, call: ToolCall, cwd: str) -> bool:
        """Whether it decides about a tool call of a session that works in a directory."""
        strict = self.decision == "allow"
        if strict and not call.known and (self.kind, self.tool, self.command, self.path) != (None,) * 4:
            return False
        if self.kind is not None and not self._fits_kind(call, strict):
            return False
        if self.tool is not None and not self._fits_tool(call, strict):
            return False
        if self.command is not None and not self._fits_command(call, strict):
            return False
        return self.path is None or self._fits_path(self.path, call, cwd, strict)

    def _fits_kind(self, call: ToolCall, strict: bool) -> bool:
        if call.kind not in ((self.kind,) if isinstance(self.kind, str) else self.kind or ()):
            return False
        # What runs a command is of no other kind, whatever the agent says.
        return not (strict and self.command is None and call.kind != "execute" and call.runs_something)

    def _fits_tool(self, call: ToolCall, strict: bool) -> bool:
        pattern = self.tool or ""
        names = [call.name or call.title] if strict else [call.name, call.title]
        return any(fnmatchcase(name, pattern) for name in names if name)

    def _fits_command(self, call: ToolCall, strict: bool) -> bool:
        pattern = self.command or ""
        line = call.command_line
        if strict:
            if line is None or not call.sure:
                return False
            return pattern == "*" or (is_plain(line) and fnmatchcase(line, pattern))
        lines = [line, call.title if call.kind == "execute" else None]
        return any(fnmatchcase(part, pattern) for line in lines if line for part in (line, *commands_of(line)))

    def _fits_path(self, pattern: str, call: ToolCall, cwd: str, strict: bool) -> bool:
        if not strict:
            return any(fits(pattern, place, cwd) for place in (*call.places(cwd), *call.surroundings(cwd)))
        # A command line may touch anything, whatever places are told beside it.
        if call.runs_something and self.command is None:
            return False
        places = call.places(cwd)
        return bool(places) and all(
            fits(pattern, place, cwd) for place in (*places, *call.hints(cwd), *call.surroundings(cwd))
        )


class Policy(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """See the module. The one that says nothing asks, and waits for an answer as long as that takes.

    Attributes:
      timeout: seconds until a request that nobody has answered is settled; None: never.
      on_timeout: how it is settled then.
    """

    default: Preset = "ask"
    rules: tuple[Rule, ...] = ()
    timeout: float | None = None
    on_timeout: Literal["deny", "allow", "cancel"] = "deny"

    def __post_init__(self) -> None:
        if len(self.rules) > RULES_LIMIT:
            raise ValueError(f"a policy has {RULES_LIMIT} rules at most")
        if self.timeout is not None and not 0 < self.timeout <= 31_536_000:
            raise ValueError("timeout must be more than 0 seconds, and a year at most")

    def decide(self, call: ToolCall, cwd: str) -> Verdict:
        """What becomes of a tool call of a session that works in a directory."""
        for number, rule in enumerate(self.rules):
            if rule.fits(call, cwd):
                return Verdict(rule.decision, f"rules[{number}]")
        match self.default:
            case "allow_all":
                return Verdict("allow", self.default)
            case "deny_all":
                return Verdict("deny", self.default)
            case "allow_reads" if call.kind in READS and call.known and not call.runs_something:
                return Verdict("allow", self.default)
            case _:
                return Verdict("ask", self.default)


def policy_of(given: Preset | Policy) -> Policy:
    """A policy as clients write it: one that has no rules is the name of its default."""
    return Policy(default=given) if isinstance(given, str) else given
