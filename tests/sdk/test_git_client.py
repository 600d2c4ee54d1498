"""`Git`, against a real daemon and real repositories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from sandbox_agent.errors import ConnectionFailed, GitFailed, GitRemoteFailed, InvalidRequest, RepositoryNotFound
from sandbox_agent.files import Files
from sandbox_agent.git import Git
from sandbox_agent.git_models import Author, Head
from sandbox_agent.providers.provider import Endpoint
from support.breaking import open_way
from support.daemon import free_port
from support.repositories import GIT, new_repository
from support.transports import connected, lasting, under

if TYPE_CHECKING:
    from collections.abc import Generator

    from sandbox_agent.transport import Transport
    from support.daemon import Daemon

BACKENDS = pytest.mark.parametrize("backend", ["trio", "asyncio"])

ADA = Author("Ada", "ada@example.org")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Generator[Daemon]:
    home = tmp_path_factory.mktemp("git-client")
    with lasting(home, HOME=str(home), GIT_CONFIG_NOSYSTEM=GIT["GIT_CONFIG_NOSYSTEM"]) as daemon:
        yield daemon


@BACKENDS
def test_what_has_changed_is_looked_at_and_committed(backend: str, daemon: Daemon) -> None:
    directory = f"app-{backend}"
    new_repository(daemon.home / directory, a__txt="one\n")

    async def body(transport: Transport) -> None:
        git, files = Git(transport), Files(transport)
        assert (await git.status(directory)).clean
        await files.write(f"{directory}/a.txt", "one\ntwo\u2028\n")
        await files.write(f"{directory}/*", "star\n")
        status = await git.status(directory)
        assert status.branch.head == "main"
        assert [(one.path, one.kind, one.worktree) for one in status.changes] == [
            ("a.txt", "changed", "M"),
            ("*", "untracked", "?"),
        ]
        few = await git.status(directory, limit=1)
        assert (len(few.changes), few.truncated) == (1, True)
        assert "+two\u2028".encode() in (await git.diff(directory)).data
        assert (await git.diff(directory, staged=True)).data == b""
        cut = await git.diff(directory, max_bytes=40)
        assert cut.truncated
        await git.add(directory, ["*"])
        assert (await git.diff(directory, staged=True, paths=["*"])).data.count(b"+star") == 1
        first = await git.commit(directory, "A star\n\nby the letter", author=ADA)
        second = await git.commit(directory, "The rest", author=ADA, all=True)
        log = await git.log(directory, limit=2)
        assert [(one.id, one.subject, one.body.strip()) for one in log.commits] == [
            (second, "The rest", ""),
            (first, "A star", "by the letter"),
        ]
        assert log.truncated
        assert log.commits[0].author.name == "Ada"
        assert (await git.diff(directory, ref=first, to=second)).data.count(b"+two") == 1
        with pytest.raises(GitFailed) as caught:
            await git.commit(directory, "Nothing", author=ADA)
        assert caught.value.status == 409

    under(backend, daemon, body)


@BACKENDS
def test_branches_are_made_gone_to_and_deleted(backend: str, daemon: Daemon) -> None:
    directory = f"branches-{backend}"
    new_repository(daemon.home / directory, a__txt="one\n")

    async def body(transport: Transport) -> None:
        git, files = Git(transport), Files(transport)
        main = (await git.status(directory)).branch.commit
        await git.create_branch(directory, "door")
        assert await git.checkout(directory, "door") == Head("door", main)
        await files.write(f"{directory}/a.txt", "two\n")
        with pytest.raises(GitFailed):
            await git.checkout(directory, "nowhere")
        await git.restore(directory, ["a.txt"])
        assert await files.read(f"{directory}/a.txt") == b"one\n"
        made = await git.commit(directory, "Empty", author=ADA, allow_empty=True)
        assert await git.checkout_commit(directory, made) == Head(None, made)
        assert await git.checkout(directory, "window", create=True, start="main") == Head("window", main)
        assert {(one.name, one.current) for one in await git.branches(directory)} == {
            ("main", False),
            ("door", False),
            ("window", True),
        }
        with pytest.raises(GitFailed):
            await git.delete_branch(directory, "door")
        await git.delete_branch(directory, "door", force=True)
        assert {one.name for one in await git.branches(directory)} == {"main", "window"}

    under(backend, daemon, body)


@BACKENDS
def test_a_clone_tells_how_far_it_is_and_what_came_of_it(backend: str, daemon: Daemon) -> None:
    directory = f"origin-{backend}"
    origin = new_repository(daemon.home / directory, **{f"file{number}": "x\n" * number for number in range(200)})

    async def body(transport: Transport) -> None:
        git = Git(transport)
        whole = await git.clone(f"file://{origin}", f"deep/whole-{backend}")
        assert whole.directory == str(daemon.home / f"deep/whole-{backend}")
        assert whole.branch == "main"
        async with git.cloning(f"file://{origin}", f"shallow-{backend}", depth=1) as progress:
            phases = [step.phase async for step in progress]
        assert phases
        assert progress.outcome.commit == whole.commit
        with pytest.raises(InvalidRequest):
            await git.clone(f"file://{origin}", f"deep/whole-{backend}")
        with pytest.raises(GitRemoteFailed):
            await git.clone(f"http://127.0.0.1:{free_port()}/x.git", f"nothing-{backend}", timeout=20)
        with pytest.raises(RepositoryNotFound):
            await git.status("deep")

    under(backend, daemon, body)


async def test_a_clone_whose_connection_breaks_is_not_asked_for_again(daemon: Daemon) -> None:
    """The other side of the clone takes the connection, and says nothing."""
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as silent,
        open_way(daemon.port) as way,
        connected(daemon) as transport,
        anyio.create_task_group() as tasks,
    ):
        asked = 0

        async def hold(stream: anyio.abc.SocketStream) -> None:
            nonlocal asked
            asked += 1
            async with stream:
                await way.cut()
                await anyio.sleep_forever()

        tasks.start_soon(silent.serve, hold)
        transport.endpoint = Endpoint(f"http://127.0.0.1:{way.port}", daemon.token)
        port = silent.extra(anyio.abc.SocketAttribute.local_port)
        with anyio.fail_after(20), pytest.raises(ConnectionFailed):
            await Git(transport).clone(f"http://127.0.0.1:{port}/x.git", "broken")
        assert asked == 1
        assert not await Files(transport).exists("broken")
        tasks.cancel_scope.cancel()
