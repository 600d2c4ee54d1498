"""What a server tells of its agents (`GET /v1/agents`), and the report that is made of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from .options import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Listing", "read", "report_of", "yes_or_no"]

T = TypeVar("T")

MEMBERS = {"model": "models", "mode": "modes", "thought_level": "thoughtLevels"}
"""Categories of config options (ACP, session config options), and where the report has them."""


class ServerStatus(msgspec.Struct):
    status: str


class Option(msgspec.Struct):
    """One value of a config option, or a named group of them."""

    value: str | None = None
    name: str = ""
    options: list[Option] = []


class ConfigOption(msgspec.Struct, rename="camel"):
    """A setting of an agent. Only those with a list of values are in the report."""

    id: str = ""
    category: str | None = None
    current_value: str | bool | None = None
    options: list[Option] = []


class AgentInfo(msgspec.Struct, rename="camel"):
    id: str
    installed: bool
    credentials_available: bool = False
    server_status: ServerStatus | None = None
    config_options: list[ConfigOption] | None = None
    config_error: str | None = None

    @property
    def running(self) -> str:
        """The state of its processes, in a word."""
        return self.server_status.status if self.server_status is not None else "-"


class Listing(msgspec.Struct):
    agents: list[AgentInfo]


def read(body: bytes, shape: type[T]) -> T:
    """A document of the server's.

    Raises:
      Failure: it is not of that shape, so this is some other server.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Failure(f"the answer is not as expected ({error}): is this a Sandbox Agent server?") from None


def yes_or_no(answer: bool) -> str:
    return "yes" if answer else "no"


def report_of(listing: Listing, endpoint: str, now_ms: int) -> dict[str, object]:
    """The report of the public command, with `configError` where an agent could not be asked."""
    return {
        "generatedAtMs": now_ms,
        "endpoint": endpoint,
        "agents": [_report_of(agent) for agent in listing.agents],
    }


def _report_of(agent: AgentInfo) -> dict[str, object]:
    entry: dict[str, object] = {"id": agent.id, "installed": agent.installed}
    if agent.config_error is not None:
        entry["configError"] = agent.config_error
    entry |= {member: {"currentValue": None, "values": []} for member in MEMBERS.values()}
    for option in agent.config_options or ():
        if (member := MEMBERS.get(option.category or option.id)) is not None and not isinstance(
            option.current_value, bool
        ):
            values = sorted(_values(option.options), key=lambda value: value["value"])
            entry[member] = {"currentValue": option.current_value, "values": values}
    return entry


def _values(options: Iterable[Option]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for option in options:
        if option.value is not None:
            found.append({"value": option.value, "name": option.name or option.value})
        found += _values(option.options)
    return found
