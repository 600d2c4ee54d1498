"""A daemon that is killed in the middle of an archive, an upload or a clone leaves nothing for good."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import quote

import trio

from actors.packing import Item, tar
from support.daemon import running
from support.processes import eventually
from support.wire import request_bytes

if TYPE_CHECKING:
    from pathlib import Path

WITHIN = 20


async def test_a_kill_in_the_middle_of_an_archive_leaves_nothing_after_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine").write_text("mine")
    content = tar([Item("first", b"x"), Item("large", bytes(8 << 20))])
    target = f"/v1/fs/upload-batch?path={quote(str(folder))}"
    async with running(tmp_path / "home") as daemon:
        headers = {**daemon.headers, "Content-Type": "application/x-tar"}
        head = request_bytes("POST", target, headers).replace(b"Length: 0", b"Length: %d" % len(content))
        async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
            await stream.send_all(head + content[: 4 << 20])
            with trio.fail_after(WITHIN):
                await eventually(lambda: len(os.listdir(folder)) > 1)
            await daemon.kill()
        (left,) = set(os.listdir(folder)) - {"mine"}
        assert os.listdir(daemon.state_dir / "on-their-way") == [left]
        await daemon.start()
        with trio.fail_after(WITHIN):
            await eventually(lambda: not os.listdir(daemon.state_dir / "on-their-way"))
        assert os.listdir(folder) == ["mine"]
        assert "deleted what an earlier daemon left behind" in daemon.said
