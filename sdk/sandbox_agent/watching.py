"""What happens in a folder of the sandbox, as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .following import Following

if TYPE_CHECKING:
    from .transport import Transport

__all__ = ["Change", "Watching"]


class Change(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """One thing that happened.

    Attributes:
      type: `created`, `modified`, `deleted`, `moved`; or
        `ready`: from here on everything is told. It comes first, and again after each break of the connection. What
        happened before it is not known, so whoever shows the tree looks at it then;
        `overflow`: something was not told, so look at the tree again;
        `gone`: the folder itself is not there any more: the last one.
      path: absolute.
      entry_type: `file` or `directory`, of what changed.
      source: where something was that has `moved`.
      reason: of an `overflow`: `queue` (too much at once) or `watches` (more folders than the system allows).
    """

    type: str
    path: str = ""
    entry_type: str | None = None
    source: str | None = msgspec.field(default=None, name="from")
    reason: str | None = None
    message: str | None = None


class Watching:
    """An async iterator over changes, to be used as an async context manager, too. See `Files.watch`."""

    def __init__(self, transport: Transport, path: str, *, recursive: bool) -> None:
        params: dict[str, str | bool] = {"path": path, "recursive": recursive}
        self._frames = Following(transport, lambda: ("/v1/fs/watch", params))
        self._over = False

    async def __aenter__(self) -> Watching:
        await self._frames.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._frames.__aexit__(*exc_info)

    def __aiter__(self) -> Watching:
        return self

    async def __anext__(self) -> Change:
        while not self._over:
            frame = await anext(self._frames)
            # A server that goes says `stopping`; the next one begins with `ready`.
            if not frame.data or frame.event == "stopping":
                continue
            change = msgspec.json.decode(frame.data, type=Change)
            self._over = change.type == "gone"
            return change
        raise StopAsyncIteration
