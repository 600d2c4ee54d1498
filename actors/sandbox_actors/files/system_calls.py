"""System calls of Linux that Python's `os` does not have: `openat2` and `renameat2`."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

__all__ = ["OPENAT2_UNKNOWN", "open_beneath", "rename_new"]

SYS_OPENAT2 = 437
"""The same on every architecture but Alpha: the call is younger (5.6) than the numbers' unification."""

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
RENAME_NOREPLACE = 1

OPENAT2_UNKNOWN = {errno.ENOSYS, errno.EPERM}
"""An old kernel, or a filter that refuses calls it has never heard of. Opening by O_PATH alone never gives EPERM."""

_NO_RENAME = {errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_long]


def open_beneath(directory: int, path: str, flags: int) -> int:
    """Open a path from a directory on, without ever leaving what is below it: the kernel sees to that.

    Raises:
      OSError: `EXDEV` where it would lead out, `EAGAIN` where that cannot be told because of a rename meanwhile.
    """
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    descriptor = _libc.syscall(SYS_OPENAT2, directory, os.fsencode(path), how, len(how))
    if descriptor < 0:
        raise _error()
    return int(descriptor)


def rename_new(source: str, destination: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    """Rename, unless there is something of the new name.

    Raises:
      FileExistsError: there is.
      OSError.
    """
    rename = getattr(_libc, "renameat2", None)
    if rename is not None:
        if not rename(src_dir_fd, os.fsencode(source), dst_dir_fd, os.fsencode(destination), RENAME_NOREPLACE):
            return
        error = _error()
        if error.errno not in _NO_RENAME:
            raise error
    # The file system cannot do it at once. Between the look and the rename another process may come in.
    try:
        os.stat(destination, dir_fd=dst_dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        os.rename(source, destination, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
