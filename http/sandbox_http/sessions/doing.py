"""What clients do to a session, whichever way they say it: prompt, cancel, answer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox_actors.messages import AnswerPermission, CancelTurn, Prompt

from .content import content_blocks

if TYPE_CHECKING:
    from msgspec import Raw

    from sandbox_actors.files import FileSystem
    from sandbox_actors.native_turns import Turn
    from sandbox_actors.permissions.permission import Permission
    from sandbox_actors.session import Session

    from .bodies import AnswerBody

__all__ = ["Doing", "working_directory"]


@dataclass(frozen=True, slots=True)
class Doing:
    """See the module. All raise the refusals of the session.

    `generation` is that of the owner who says so, where it has one: see `sandbox_actors.fencing`.
    """

    files: FileSystem

    async def prompt(
        self, session: Session, content: Raw, key: str | None, acp_session: str | None, generation: int | None
    ) -> Turn:
        """Have a prompt taken; its turn may have to wait for others."""
        blocks = await content_blocks(content, self.files, working_directory(session, self.files))
        return await session.fence.ask(Prompt(blocks, key, acp_session), generation)

    async def cancel(self, session: Session, turn: str | None, generation: int | None) -> list[str]:
        """Cancel a turn, or all there are; gives the ids of those that will end so."""
        return list(await session.fence.ask(CancelTurn(turn), generation))

    async def answer(self, session: Session, permission: str, answer: AnswerBody, generation: int | None) -> Permission:
        """Answer what the agent has asked; gives it as it was settled."""
        option, outcome, content = answer.decided()
        return await session.fence.ask(AnswerPermission(permission, option, outcome, content), generation)


def working_directory(session: Session, files: FileSystem) -> str:
    """Where a session works, as far as the daemon knows it."""
    return session.setup.cwd or os.path.normpath(files.located("."))
