# Written by scripts/make-sync from ../permission_requests.py: change that one, and run it.

"""The synchronous twin of `sandbox_agent.permission_requests`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..models import Permission
    from ..permission_requests import PermissionRequests as AsyncPermissionRequests
    from ._line import Line


__all__ = ["PermissionRequests"]


class PermissionRequests:
    """An iterator over questions: first what waits for an answer, then what is asked. See `Session`.

    Args:
      events: from a moment on before `waiting` is asked for.
      waiting: gives what waits for an answer. Asked at first, and where events are missing.
    """

    def __init__(self, actual: AsyncPermissionRequests, line: Line) -> None:
        self._actual = actual
        self._line = line

    def __iter__(self) -> PermissionRequests:
        return self

    def __next__(self) -> Permission:
        return self._line.next(self._actual)
