"""Problems, as every answer with an error has them (RFC 9457)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sandbox_actors.errors import PROBLEM_PREFIX

from ..problems import TABLE
from ..scopes import SCOPES
from .operation import Shape
from .schema import ANYTHING, COUNT, TEXT, any_of, items, one_of, record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox_actors.envelope import Json

    from .operation import Trouble

__all__ = ["PROBLEM", "responses_of"]

PROBLEM = Shape(
    "Problem",
    record(
        {
            "type": {"type": "string", "enum": [PROBLEM_PREFIX + name for name in TABLE]},
            "title": TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": TEXT,
        },
        {
            "details": ANYTHING,
            "agent": TEXT,
            "agentCode": {"type": "integer"},
            "agentMessage": TEXT,
            "authMethods": items(TEXT),
            "by": TEXT,
            "current": COUNT,
            "directory": TEXT,
            "exitCode": {"type": "integer"},
            "generation": COUNT,
            "neededScopes": items(one_of(*SCOPES)),
            "optionId": TEXT,
            "outcome": TEXT,
            "port": COUNT,
            "scopes": items(one_of(*SCOPES)),
            "sessionId": TEXT,
            "signal": COUNT,
            "stderr": any_of(TEXT, items(TEXT)),
        },
    ),
)


def responses_of(troubles: Iterable[Trouble]) -> dict[int, tuple[str, dict[str, Json]]]:
    """By status, a name for what the problems have in common that are told by it, and the response.

    Its schema is that of every problem, with fewer types.
    """
    names: dict[int, list[str]] = {}
    for trouble in troubles:
        status = trouble.status or TABLE[trouble.name].status
        if trouble.name not in names.setdefault(status, []):
            names[status].append(trouble.name)
    return {
        status: (f"{status}.{'.'.join(sorted(told))}", _response(status, sorted(told)))
        for status, told in names.items()
    }


def _response(status: int, names: list[str]) -> dict[str, Json]:
    types = [PROBLEM_PREFIX + name for name in names]
    schema = {
        "$ref": f"#/components/schemas/{PROBLEM.name}",
        "properties": {"type": {"enum": types}, "status": {"const": status}},
    }
    return {
        "description": "The problem " + " or ".join(f"`{name}`" for name in names) + ".",
        "content": {"application/problem+json": {"schema": schema}},
    }
