"""How Python and the C library manage memory in a daemon: what they do by default is made for small programs."""

from __future__ import annotations

import ctypes
import gc

__all__ = ["tune_memory"]

GARBAGE_THRESHOLD = 20_000
"""Objects that are made before the youngest are looked through: Python's own 700 cost a tenth of a stream's speed."""

MMAP_THRESHOLD = 4 << 20
"""Bytes from which on a block is asked of the kernel, and given back, by itself. With glibc's 128 KiB that would be
every read of an upload: its pages are cleared by the kernel each time, which costs as much as the read."""

TRIM_THRESHOLD = 8 << 20
"""Bytes free at the end of the heap from which on they are given back."""

# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def tune_memory() -> None:
    """Call it once, at the start."""
    # What is loaded by now stays for good, and streaming makes many objects and few cycles: look for those less often.
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not every C library has it
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, TRIM_THRESHOLD)
