"""Setting the mode, the model and the config options of an ACP session, by what its agent offers.

Agents differ: some have modes, some a config option of category `mode` in their place, some both; the same with models.
What is set already is left alone, and what is not offered is not asked for. (ACP protocol version 1, Session Modes,
Session Config Options.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import msgspec
import trio
from msgspec import Raw

from .envelope import Json, members_of, text_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from .acp_session import ConfigOption, Told
    from .envelope import Head, Params

__all__ = ["NotOffered", "NotSet", "Step", "Wanted", "configure", "step"]

SET_WITHIN = 15.0
"""Seconds for one answer: all that an agent does for it is to note it, or to ask its model's vendor for a list."""

CallAgent: TypeAlias = "Callable[[str, Params], Awaitable[Head]]"


class NotOffered(Exception):
    """The agent has no such mode, model, option or value. The message says what it has."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be set."""

    mode: str | None = None
    model: str | None = None
    config: Mapping[str, str | bool] = field(default_factory=dict[str, "str | bool"])

    def items(self) -> Iterator[tuple[str, str | bool]]:
        """One after the other, by name: `mode`, `model`, `config.<id>`. A mode and a model may change the options."""
        if self.mode is not None:
            yield "mode", self.mode
        if self.model is not None:
            yield "model", self.model
        for id, value in self.config.items():
            yield f"config.{id}", value

    def where_told(self, told: Told) -> Wanted:
        """Without that of which the agent says nothing: there it may have kept what was set, or not know it at all."""
        options = {option.id for option in told.options}
        return Wanted(
            self.mode if told.modes_offered or told.option(category="mode") is not None else None,
            self.model if told.models_offered or told.option(category="model") is not None else None,
            {id: value for id, value in self.config.items() if id in options},
        )


@dataclass(frozen=True, slots=True)
class Step:
    """A request that sets something.

    Attributes:
      params: without the `sessionId`.
      is_so: as far as the agent has told, it is set already.
    """

    method: str
    params: dict[str, Json]
    is_so: bool


@dataclass(frozen=True, slots=True)
class NotSet:
    """What could not be set, and why.

    Attributes:
      offered: the agent has it, and does not set it all the same.
    """

    name: str
    reason: str
    offered: bool


def step(told: Told, name: str, value: str | bool) -> Step:
    """What sets something. Raises `NotOffered`."""
    if name == "mode":
        return _listed(told, "mode", value, told.modes_offered, told.mode, "session/set_mode", "modeId")
    if name == "model":
        return _listed(told, "model", value, told.models_offered, told.model, "session/set_model", "modelId")
    id = name.removeprefix("config.")
    if (option := told.option(id=id)) is None:
        raise NotOffered(f"the agent has no config option {id!r}; it has {_named([one.id for one in told.options])}")
    return _chosen(option, value)


def _listed(
    told: Told, kind: str, value: str | bool, offered: list[str], current: str | None, method: str, member: str
) -> Step:
    option = told.option(category=kind)
    # Of a model the option is the newer way, of a mode both are as good.
    if option is not None and (kind == "model" or not offered):
        return _chosen(option, value)
    if value not in offered:
        raise NotOffered(f"the agent has no {kind} {value!r}; it has {_named(offered)}")
    return Step(method, {member: value}, is_so=value == current)


def _chosen(option: ConfigOption, value: str | bool) -> Step:
    if option.type == "boolean":
        if not isinstance(value, bool):
            raise NotOffered(f"the config option {option.id!r} is true or false, not {value!r}")
        params: dict[str, Json] = {"configId": option.id, "type": "boolean", "value": value}
    else:
        if isinstance(value, bool) or (option.values and value not in option.values):
            raise NotOffered(f"the config option {option.id!r} cannot be {value!r}; it can be {_named(option.values)}")
        params = {"configId": option.id, "value": value}
    return Step("session/set_config_option", params, is_so=value == option.current_value)


def _named(names: list[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


async def configure(session_id: str, wanted: Wanted, told: Told, call: CallAgent) -> list[NotSet]:
    """Set what is wanted in an ACP session, as far as the agent lets us. `told` is kept up to date.

    Args:
      session_id: as the agent knows it.
    """
    failed: list[NotSet] = []
    for name, value in wanted.items():
        try:
            needed = step(told, name, value)
        except NotOffered as not_offered:
            failed.append(NotSet(name, str(not_offered), offered=False))
            continue
        if needed.is_so:
            continue
        reason = f"the agent did not answer within {SET_WITHIN:g} s"
        with trio.move_on_after(SET_WITHIN):
            params = {"sessionId": session_id, **needed.params}
            answer = await call(needed.method, params)
            if isinstance(answer.result, Raw):
                given = members_of(Raw(msgspec.json.encode(params)))
                told.has_changed(needed.method, given, members_of(answer.result))
                continue
            reason = f"the agent refuses {name}: {text_of(members_of(answer.error).get('message')) or 'no reason told'}"
        failed.append(NotSet(name, reason, offered=True))
    return failed
