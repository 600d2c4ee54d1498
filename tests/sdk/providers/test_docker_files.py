"""The archives by which files get into a container and out of it, and who may read them there."""

from __future__ import annotations

import io
import tarfile

import pytest

from sandbox_agent.errors import ProviderError
from sandbox_agent.providers.docker.private_files import archive, content, group_of

TABLES = {
    "/etc/passwd": b"root:x:0:0::/root:/bin/sh\nbroken\nann:x:1000:1001::/:/bin/sh\nbob:x:1002:many::/:/bin/sh\n",
    "/etc/group": b"root:x:0:\nstaff:x:50:ann\n",
}


@pytest.mark.parametrize(
    ("user", "group"),
    [("", 0), ("root", 0), ("ann", 1001), ("1000", 1001), ("4711", 0), ("ann:staff", 50), ("4711:4712", 4712)],
)
def test_the_group_is_the_one_that_the_engine_gives_the_user(user: str, group: int) -> None:
    assert group_of(user, TABLES.get) == group


@pytest.mark.parametrize(("user", "said"), [("eve", "no user eve"), ("bob", "user bob"), ("ann:crew", "no group crew")])
def test_a_user_that_the_image_does_not_have_is_told(user: str, said: str) -> None:
    with pytest.raises(ProviderError, match=said):
        group_of(user, TABLES.get)


def test_files_are_roots_and_readable_by_one_group() -> None:
    with tarfile.open(fileobj=io.BytesIO(archive({"token": b"t0ken"}, 1001))) as tar:
        told = [(entry.name, entry.mode, entry.uid, entry.gid) for entry in tar]
    assert told == [("etc/sandbox-agent", 0o750, 0, 1001), ("etc/sandbox-agent/token", 0o440, 0, 1001)]


def packed(entry: tarfile.TarInfo, data: bytes = b"") -> bytes:
    stream = io.BytesIO()
    entry.size = len(data)
    with tarfile.open(fileobj=stream, mode="w") as tar:
        tar.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def test_what_a_sandbox_puts_in_the_place_of_a_file_does_no_harm() -> None:
    whole = packed(tarfile.TarInfo("token"), b"t0ken")
    assert content([whole[:100], whole[100:]], 1 << 20) == b"t0ken"
    assert content([whole, b"\0" * (1 << 20)], 1 << 20) is None
    link, folder = tarfile.TarInfo("token"), tarfile.TarInfo("token")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    folder.type = tarfile.DIRTYPE
    for entry in (packed(link), packed(folder), b"", b"garbage" * 512, whole[:514]):
        assert content([entry], 1 << 20) is None
