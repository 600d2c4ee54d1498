"""The store: sessions on disk, one append-only file of JSON lines each, so that another process can go on with them.

A record is one write of whole lines, made before anyone is told of it: after ``kill -9`` all that a client has seen is
there. A torn last line (full disk, dead machine) is skipped by the reader and fenced off by the next writer.
"""

from __future__ import annotations

import os
import time

from .wire import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from .wire import Object

SUFFIX = ".jsonl"


def home(environ: Mapping[str, str]) -> str:
    """Where sessions are kept: MOCK_AGENT_HOME, or a folder of the user's state directory."""
    if chosen := environ.get("MOCK_AGENT_HOME"):
        return chosen
    state = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "sandbox-agent-mock")


class Store:
    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._failed = False

    def append(self, session: str, header: Object, record: Object) -> None:
        """Remember one record; the header goes before the first. A disk that refuses costs the memory, not the turn."""
        try:
            os.makedirs(self._directory, exist_ok=True)
            file = os.open(self._path(session), os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(file).st_size
                torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
                before = encode(header) if size == 0 else b"\n" if torn else b""
                os.write(file, before + encode(record))
            finally:
                os.close(file)
        except OSError as error:
            self._complain(error)

    def read(self, session: str) -> list[Object]:
        """The records of a session, the header first; nothing for a session that is not there."""
        # The id comes from the client and must not lead out of the directory.
        if not session.replace("-", "").replace("_", "").isalnum():
            return []
        try:
            with open(self._path(session), "rb") as file:
                lines = file.read().split(b"\n")
        except OSError:
            return []
        records: list[Object] = []
        for line in lines:
            try:
                record = decode(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                records.append(record)
        return records if records and "session" in records[0] else []

    def sessions(self) -> list[str]:
        """All ids on disk, in no order."""
        try:
            names = os.listdir(self._directory)
        except OSError:
            return []
        return [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]

    def updated_at(self, session: str) -> float:
        try:
            return os.stat(self._path(session)).st_mtime
        except OSError:
            return time.time()

    def delete(self, session: str) -> None:
        try:
            os.unlink(self._path(session))
        except OSError:
            return

    def _complain(self, error: OSError) -> None:
        if self._failed:
            return
        self._failed = True
        try:
            os.write(2, f"mock agent: sessions are not remembered: {error}\n".encode(errors="replace"))
        except OSError:
            return

    def _path(self, session: str) -> str:
        return os.path.join(self._directory, session + SUFFIX)


def timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
