"""A file on its way: written beside its place, and put there at once when all of it has come.

Whoever reads the file sees it as it was or as it is to be, also after a crash. What is on its way has no name at all
where the file system can do that, so nothing is left of it, whatever happens to the daemon.

    draft → pour in, piece by piece → on the disk → look once more whether it is still wanted → rename

A few files cannot be replaced: those that something is mounted on, and those in folders that we may not write to.
They are written in place, from a draft that is complete.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakValueDictionary

from .descriptor import Descriptor
from .entries import etag_of
from .errors import NotAFile, PreconditionFailed
from .folders import make_folders
from .paths import above
from .root import MOST_LINKS, parent
from .system_calls import rename_new
from .tree import temporary_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .leftovers import Leftovers
    from .root import Root

__all__ = ["MOST_PIECES", "Draft", "Precondition", "Written", "begin_draft"]

Precondition: TypeAlias = "Callable[[str | None], bool]"
"""Whether a file with this etag may be written; None stands for no file."""

MOST_PIECES = 1000
"""Pieces that the kernel takes in one call are 1,024."""

COPY_SIZE = 1 << 20

_NO_UNNAMED = {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL}
"""The file system, or the kernel, does not know files without names."""

_NO_NEW = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_RENAME = {errno.EBUSY, errno.EACCES, errno.EPERM}


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write.

    Attributes:
      bytes: that came.
      etag: of the file, without quotes.
    """

    bytes: int
    etag: str


class _Locks:
    """One lock for each folder in which a file is being put into its place: looking and renaming is one step."""

    def __init__(self) -> None:
        self._all: WeakValueDictionary[tuple[int, int], Lock] = WeakValueDictionary()
        self._own = Lock()

    def of(self, folder: Descriptor) -> Lock:
        status = os.fstat(folder.number)
        with self._own:
            return self._all.setdefault((status.st_dev, status.st_ino), Lock())


_locks = _Locks()


@dataclass(slots=True)
class Draft:
    """What is to become a file. Everything here blocks, and waits for what was begun before.

    Attributes:
      over: it is in its place, or given up.
      path: the client's, to be told.
      temporary: the draft's name in the folder; None while it has none.
      elsewhere: it is not in the file's folder, and can only be copied.
      mode: of permissions, where the client gives one.
      recorded: the name that there is a record of among the leftovers.
    """

    path: str
    folder: Descriptor
    name: str
    file: Descriptor
    temporary: str | None
    elsewhere: bool
    append: bool
    mode: int | None
    precondition: Precondition
    leftovers: Leftovers
    recorded: str | None
    size: int = field(default=0, init=False)
    over: bool = field(default=False, init=False)
    _at_work: Lock = field(default_factory=Lock, init=False)

    def pour(self, pieces: Sequence[bytes]) -> None:
        """Write some more, at most `MOST_PIECES` at once. Raises `OSError`."""
        with self._at_work:
            written = os.writev(self.file.number, pieces)
            size = sum(map(len, pieces))
            self.size += size
            if written < size:
                _write_all(self.file, memoryview(b"".join(pieces))[written:])

    def finish(self) -> Written:
        """Put it in its place.

        Raises:
          PreconditionFailed, NotAFile.
          OSError. The file is as it was, except where it had to be written in place.
        """
        with self._at_work:
            try:
                if not (self.append or self.elsewhere):
                    os.fsync(self.file.number)
                with _locks.of(self.folder):
                    before = _status(self.folder, self.name)
                    _check(self.path, before, self.precondition)
                    target = self._placed(before)
                    return Written(self.size, etag_of(os.fstat(target.number)))
            finally:
                self._end()

    def discard(self) -> None:
        """Leave nothing of it behind."""
        with self._at_work:
            self._end()

    def _end(self) -> None:
        if not self.over:
            self.over = True
            if self.temporary is not None:
                with suppress(FileNotFoundError):
                    os.unlink(self.temporary, dir_fd=self.folder.number)
            if self.recorded is not None:
                self.leftovers.settle(self.folder.number, self.recorded)
            self.file.close()
            self.folder.close()

    def _placed(self, before: os.stat_result | None) -> Descriptor:
        if self.append:
            return self._appended()
        return self._overwritten() if self.elsewhere else self._replaced(before)

    def _replaced(self, before: os.stat_result | None) -> Descriptor:
        self._dress(before)
        if self.temporary is None:
            name = temporary_name()
            os.link(self.file.path, name, dst_dir_fd=self.folder.number, follow_symlinks=True)
            self.temporary = name
        at = self.folder.number
        try:
            if before is None:
                rename_new(self.temporary, self.name, src_dir_fd=at, dst_dir_fd=at)
            else:
                os.rename(self.temporary, self.name, src_dir_fd=at, dst_dir_fd=at)
        except FileExistsError:
            # Another process was quicker. That is a reason to refuse only if the client says so.
            _check(self.path, _status(self.folder, self.name), self.precondition)
            os.rename(self.temporary, self.name, src_dir_fd=at, dst_dir_fd=at)
        except OSError as error:
            if before is None or error.errno not in _NO_RENAME:
                raise
            return self._overwritten()
        self.temporary = None
        return self.file

    def _dress(self, before: os.stat_result | None) -> None:
        """Give it the mode and, where we may, the owner of the file that it replaces."""
        if before is not None:
            mode = stat.S_IMODE(before.st_mode)
            now = os.fstat(self.file.number)
            if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
                try:
                    os.fchown(self.file.number, before.st_uid, before.st_gid)
                except PermissionError:
                    mode &= 0o777  # what runs as its owner must not run as us
            os.fchmod(self.file.number, mode)
        if self.mode is not None:
            os.fchmod(self.file.number, self.mode)

    def _appended(self) -> Descriptor:
        target = self._opened(os.O_CREAT | os.O_APPEND)
        length = os.fstat(target.number).st_size
        try:
            self._copy_into(target)
        except OSError:
            if os.fstat(target.number).st_size <= length + self.size:  # nobody else has written meanwhile
                os.ftruncate(target.number, length)
            raise
        os.fsync(target.number)
        return target

    def _overwritten(self) -> Descriptor:
        target = self._opened(0)
        self._copy_into(target)
        os.ftruncate(target.number, self.size)
        os.fsync(target.number)
        return target

    def _opened(self, flags: int) -> Descriptor:
        flags |= os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        target = Descriptor(os.open(self.name, flags, 0o666, dir_fd=self.folder.number))
        if not stat.S_ISREG(os.fstat(target.number).st_mode):
            raise NotAFile(self.path)
        if self.mode is not None:
            os.fchmod(target.number, self.mode)
        return target

    def _copy_into(self, target: Descriptor) -> None:
        offset = 0
        while piece := os.pread(self.file.number, COPY_SIZE, offset):
            offset += len(piece)
            _write_all(target, memoryview(piece))


def begin_draft(
    root: Root,
    path: str,
    precondition: Precondition,
    leftovers: Leftovers,
    *,
    append: bool = False,
    mode: int | None = None,
    unnamed: bool = True,
) -> Draft:
    """Begin to write a file; folders that are not there are made, links at the end are followed. Blocks.

    Args:
      leftovers: where a draft that has a name is recorded.
      unnamed: whether the draft may be without a name.

    Raises:
      NotAFile, OutsideRoot, InvalidRequest.
      PreconditionFailed: it is clear by now that the file is not to be written.
      OSError.
    """
    if path.endswith("/"):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    try:
        folder, name = _target(root, path)
    except FileNotFoundError:
        _check(path, None, precondition)
        make_folders(root, above(path))
        folder, name = _target(root, path)
    before = _status(folder, name)
    _check(path, before, precondition)
    if before is not None and not os.access(name, os.W_OK, dir_fd=folder.number, effective_ids=True):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    elsewhere = False
    try:
        file, temporary = _new(folder, leftovers, private=before is not None, unnamed=unnamed)
    except OSError as error:
        if before is None or error.errno not in _NO_NEW:
            raise
        elsewhere = True
        with Descriptor(os.open(tempfile.gettempdir(), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as spool:
            file, temporary = _new(spool, leftovers, private=True, unnamed=unnamed)
            if temporary is not None:
                os.unlink(temporary, dir_fd=spool.number)
                leftovers.settle(spool.number, temporary)
                temporary = None
    return Draft(
        path, folder, name, file, temporary, elsewhere, append, mode, precondition, leftovers, recorded=temporary
    )


def _write_all(file: Descriptor, left: memoryview) -> None:
    while left:
        left = left[os.write(file.number, left) :]


def _target(root: Root, path: str) -> tuple[Descriptor, str]:
    """The folder and the name of the file that a path leads to, be it there or not."""
    for _ in range(MOST_LINKS):
        folder, name = parent(root, path)
        try:
            link = os.readlink(name, dir_fd=folder.number)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):  # no link, nothing at all
                raise
            return folder, name
        path = link if link.startswith("/") else f"{above(path).rstrip('/')}/{link}"
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


def _status(folder: Descriptor, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder.number, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _check(path: str, status: os.stat_result | None, precondition: Precondition) -> None:
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if status is not None and not stat.S_ISREG(status.st_mode):
        raise NotAFile(path)
    if not precondition(None if status is None else etag_of(status)):
        raise PreconditionFailed(path)


def _new(folder: Descriptor, leftovers: Leftovers, *, private: bool, unnamed: bool) -> tuple[Descriptor, str | None]:
    """A new file, and its name where it has to have one."""
    mode = 0o600 if private else 0o666  # what replaces a file gets that one's mode in the end
    if unnamed:
        try:
            return Descriptor(os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode, dir_fd=folder.number)), None
        except OSError as error:
            if error.errno not in _NO_UNNAMED:
                raise
    name = temporary_name()
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    leftovers.record(folder.number, name)
    try:
        return Descriptor(os.open(name, flags, mode, dir_fd=folder.number)), name
    except OSError:
        leftovers.settle(folder.number, name)
        raise
