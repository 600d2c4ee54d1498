"""Structured logs on stderr: what happened, to which session, how long it took; never what was said, never a secret.

Secrets are known by the name under which they would be told, and by their text where the daemon was given them.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, TextIO, cast

import structlog

from sandbox_actors.redaction import Redactor

from .stderr import Stderr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from structlog.typing import EventDict, Processor, WrappedLogger

__all__ = ["finish_logs", "hide_also", "set_up_logs"]

SECRET_NAMES = re.compile(r"(?i)(^|_)(token|secret|password|authorization|cookie|api_?key)($|_)")
UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters and those that change the direction of text: a client's id could forge log lines with them."""


_stderr = Stderr()
finish_logs = _stderr.finish

_late = Redactor()


def hide_also(secrets: Iterable[str]) -> None:
    """Keep these out of the log as well: secrets that came after it was set up."""
    _late.learn(secrets)


def set_up_logs(level: str, *, as_json: bool, redactor: Redactor | None = None) -> None:
    """Write logs of a level (`debug`, `info`, `warning`, `error`) and above to stderr.

    Args:
      as_json: one JSON object a line instead of `key=value` pairs.
      redactor: knows what must not be told.
    """
    renderer = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            *([] if redactor is None else [hide(redactor)]),
            hide(_late),
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _stderr)),
        cache_logger_on_first_use=True,
    )


def hide(redactor: Redactor) -> Processor:
    """A structlog processor: take the secrets that are known out of every text, also within lists and tables."""

    def hidden(value: object) -> object:
        match value:
            case str():
                return redactor.redact(value)
            case list() | tuple():
                return [hidden(one) for one in cast("Sequence[object]", value)]
            case dict():
                return {name: hidden(one) for name, one in cast("Mapping[str, object]", value).items()}
            case _:
                return value

    def processor(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        return {name: hidden(value) for name, value in event.items()}

    return processor


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: hide what is named like a secret, and what could forge a line."""
    for name, value in event.items():
        if SECRET_NAMES.search(name) and isinstance(value, str):
            event[name] = "[redacted]"
        elif isinstance(value, str):
            lines = value.split("\n") if name == "exception" else [value]
            event[name] = "\n".join(UNSAFE.sub("\N{REPLACEMENT CHARACTER}", line) for line in lines)
    return event
