"""Structured logs on stderr: what happened, to which session, how long it took; never what was said, never a secret."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, TextIO, cast

import structlog

from .stderr import Stderr

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

__all__ = ["finish_logs", "set_up_logs"]

SECRET_NAMES = re.compile(r"(?i)(^|_)(token|secret|password|authorization|cookie|api_?key)($|_)")
UNSAFE = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters and those that change the direction of text: a client's id could forge log lines with them."""


_stderr = Stderr()
finish_logs = _stderr.finish


def set_up_logs(level: str, *, as_json: bool) -> None:
    """Write logs of a level (`debug`, `info`, `warning`, `error`) and above to stderr.

    Args:
      as_json: one JSON object a line instead of `key=value` pairs.
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
            redact,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _stderr)),
        cache_logger_on_first_use=True,
    )


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A structlog processor: hide what is named like a secret, and what could forge a line."""
    for name, value in event.items():
        if SECRET_NAMES.search(name) and isinstance(value, str):
            event[name] = "[redacted]"
        elif isinstance(value, str):
            lines = value.split("\n") if name == "exception" else [value]
            event[name] = "\n".join(UNSAFE.sub("\N{REPLACEMENT CHARACTER}", line) for line in lines)
    return event
