"""Why an archive is not unpacked. Whatever the reason, nothing of it is."""

from __future__ import annotations

from ..errors import Refusal

__all__ = ["ArchiveConflict", "ArchiveTooLarge", "BadEntryPath", "DamagedArchive", "UnsafeArchive"]

NOTHING = "nothing of it was unpacked"


class UnsafeArchive(Refusal):
    """It would write elsewhere than into its folder, or make what is neither file, folder nor link.

    Attributes:
      why: what is wrong with it, beginning with "it" or an entry's name.
    """

    name = "invalid_request"

    def __init__(self, why: str) -> None:
        super().__init__(f"the archive is not safe: {why}; {NOTHING}")
        self.why = why


class BadEntryPath(UnsafeArchive):
    """An entry's name leads out of the folder, or cannot be a path. The sentence is the public wire's."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path!r} is no path in the folder")
        self.args = (f"invalid relative path: {path}",)


class ArchiveTooLarge(Refusal):
    """It is more than an archive may be."""

    name = "invalid_request"

    def __init__(self, why: str) -> None:
        super().__init__(f"the archive is too large: {why}; {NOTHING}")
        self.why = why


class DamagedArchive(Refusal):
    """It is cut off, or no archive of the kind that it was said to be."""

    name = "stream_error"

    def __init__(self, why: str) -> None:
        super().__init__(f"the archive is damaged: {why}; {NOTHING}")
        self.why = why


class ArchiveConflict(Refusal):
    """What is there already is of another kind than the archive's entry of that name."""

    name = "conflict"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path} {why}; {NOTHING}")
