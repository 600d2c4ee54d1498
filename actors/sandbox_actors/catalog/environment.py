"""What an agent inherits of the daemon's environment: a list of what is allowed, and nothing else.

    the base                what programs and their tools need: PATH, locale, proxies, certificates, Git, toolchains
    credentials             of the providers that the agent works with, and where these are to be sent
    the agent's own         patterns of its definition
    the user's              patterns that the daemon was started with

Never the daemon's own settings and token (`SANDBOX_AGENT_*`), and never what npm leaves when it started us (`npm_*`).
"""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING

import msgspec

from ..credentials import PROVIDERS
from ..redaction import looks_secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..credentials import Provider
    from .entry import Agent

__all__ = ["BASE", "agent_environment"]

PRIVATE = re.compile(r"SANDBOX_AGENT_.*|npm_.*", re.DOTALL)
"""Variables of the daemon's that no agent gets, whatever is asked for."""

_text = resources.files("sandbox_actors.catalog").joinpath("inherited.toml").read_text(encoding="utf-8")
BASE = tuple(name for names in msgspec.convert(tomllib.loads(_text), dict[str, list[str]]).values() for name in names)
"""What every agent gets."""

WITHOUT_CREDENTIALS = frozenset({"mock"})
"""Agents that need none, and therefore get none."""


def agent_environment(agent: Agent, environment: Mapping[str, str], inherited: Sequence[str]) -> dict[str, str]:
    """What an agent gets of the daemon's environment.

    Args:
      inherited: patterns (`*` stands for any text) of further variables that every agent gets.
    """
    base, asked = _matching(BASE), _matching((*agent.environment, *inherited, *_of_providers(agent)))
    chosen = {
        name: value
        for name, value in environment.items()
        if PRIVATE.fullmatch(name) is None and (asked.fullmatch(name) or _in_base(name, base))
    }
    for provider in PROVIDERS.values():
        for variable in _idle(provider, agent.env, chosen):
            chosen.pop(variable, None)
    return chosen


def _of_providers(agent: Agent) -> list[str]:
    """The variables of the agent's providers; of all of them where its definition names none, as a user's own may."""
    if agent.id in WITHOUT_CREDENTIALS:
        return []
    named = agent.credentials or PROVIDERS
    return [
        variable
        for name, provider in PROVIDERS.items()
        if name in named
        for variable in (*provider.secrets, *provider.settings)
    ]


def _idle(provider: Provider, own: Mapping[str, str], chosen: Mapping[str, str]) -> set[str]:
    """The provider's variables that would do harm.

    An empty one hides a login from some agents. With an API key and a token, agents differ in which one they take, or
    send both: they get the key alone. What the agent's own definition sets comes before what it would inherit.
    """
    idle = {variable for variable in provider.secrets if not chosen.get(variable, "").strip()}
    for given in (own, chosen):
        if any(given.get(variable, "").strip() for variable in provider.keys):
            return idle.union(provider.tokens)
        if any(given.get(variable, "").strip() for variable in provider.tokens):
            return idle.union(provider.keys)
    return idle


def _in_base(name: str, base: re.Pattern[str]) -> bool:
    return base.fullmatch(name) is not None and (name in BASE or not looks_secret(name))


@lru_cache(maxsize=128)
def _matching(patterns: tuple[str, ...]) -> re.Pattern[str]:
    written = "|".join(re.escape(pattern).replace(r"\*", ".*") for pattern in patterns)
    return re.compile(written or r"(?!)", re.DOTALL)
