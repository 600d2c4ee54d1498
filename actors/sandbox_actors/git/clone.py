"""Clones: made under another name beside the place where they go, and moved there when they are whole.

A token goes to Git in its environment, by a helper that answers once for the host of the URL and for no other, where a
redirect may lead. It is no argument, is not stored with the remote, and no helper of the user's gets to keep it.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import trio

from ..errors import InvalidRequest
from ..files import Descriptor, translated
from ..files.errors import DestinationExists
from ..files.paths import above
from ..files.tree import remove_tree, temporary_name
from .environment import WRITING
from .errors import RemoteFailed
from .history import Head, read_head
from .repository import Repository
from .revisions import checked_branch

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..files import FileSystem, Leftovers
    from .runner import Runner

__all__ = ["Clone", "Progress", "Wish", "clone", "parse_progress"]

PROTOCOLS = ("http", "https", "ssh", "git", "file")
"""Not `ext` and other helpers, which run what the URL says."""

SHORT_URL = re.compile(r"[A-Za-z0-9_][\w.-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^-].*", re.ASCII)
"""`user@host:path`, for SSH."""

USERNAME = "x-access-token"
"""For a token without one: the common hosts take any, and GitHub names this."""

HELPER = (
    "!f() { test \"$1\" = get && printf 'username=%s\\npassword=%s\\n' "
    '"$SANDBOX_GIT_USERNAME" "$SANDBOX_GIT_TOKEN"; }; f'
)
"""A credential helper (gitcredentials(7)) that stores nothing."""

PROGRESS = re.compile(r"(?:remote: )?(?P<phase>[A-Z][a-z ]+): +(?P<percent>\d+)% \((?P<done>\d+)/(?P<total>\d+)\)")

_BAD = re.compile(r"[\x00-\x20\x7f]")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be cloned.

    Attributes:
      branch: a branch or tag; None for the remote's own.
      depth: how many commits back; None for all.
      token, username: for HTTP.
      seconds: for all of it.
    """

    url: str
    directory: str
    seconds: float
    branch: str | None = None
    depth: int | None = None
    token: str | None = None
    username: str | None = None

    def checked(self) -> Wish:
        """Raises `InvalidRequest` where this makes no sense, or would not be safe."""
        origin = _origin(self.url)
        if self.branch is not None:
            checked_branch(self.branch)
        if self.token is not None and not origin.startswith("http"):
            raise InvalidRequest("a token is for a URL with http or https; SSH has keys of its own")
        for text in (self.token, self.username):
            if text is not None and (not text or _BAD.search(text)):
                raise InvalidRequest("a token or a user name has no blanks and no line ends")
        return self


@dataclass(frozen=True, slots=True)
class Progress:
    """How far Git is, in its own words."""

    phase: str
    percent: int
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Clone:
    """What was made."""

    directory: str
    head: Head


async def clone(wish: Wish, runner: Runner, files: FileSystem, tell: Callable[[Progress], None]) -> Clone:
    """Clone. Whatever goes wrong, or is cancelled, leaves nothing behind but folders above the place.

    Raises:
      RemoteFailed: Git could not.
      Refusal: as the file system has it, for the place, or for a `file` URL.
    """
    if (parts := urlsplit(wish.url)).scheme == "file":
        with await files.directory(unquote(parts.path)):
            pass  # a root holds for what is cloned, too
    destination = files.located(wish.directory).rstrip("/")
    name = destination.rpartition("/")[2]
    if name in ("", ".", ".."):
        raise InvalidRequest(f"there can be no clone at {wish.directory}")
    with await files.directory(above(destination), make=True) as folder:
        await trio.to_thread.run_sync(_check_free, folder, name, destination)
        place = await trio.to_thread.run_sync(os.readlink, folder.path)
        temporary = temporary_name()
        try:
            await trio.to_thread.run_sync(files.leftovers.record, folder.number, temporary)
            head = await _fetch(wish, runner, place, temporary, tell)
            await trio.to_thread.run_sync(_move, folder, temporary, name, destination)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(_clear, folder, temporary, files.leftovers)
    return Clone(destination, head)


async def _fetch(wish: Wish, runner: Runner, place: str, name: str, tell: Callable[[Progress], None]) -> Head:
    settings = list(WRITING)
    env = {"GIT_ALLOW_PROTOCOL": ":".join(PROTOCOLS)}
    if wish.token is not None:
        settings += ["credential.helper=", f"credential.{_origin(wish.url)}.helper={HELPER}"]
        env |= {"SANDBOX_GIT_USERNAME": wish.username or USERNAME, "SANDBOX_GIT_TOKEN": wish.token}

    def hear(line: str) -> None:
        if (progress := parse_progress(line)) is not None:
            tell(progress)

    words = ["clone", "--progress", "--no-recurse-submodules"]
    words += [] if wish.branch is None else [f"--branch={wish.branch}"]
    words += [] if wish.depth is None else [f"--depth={wish.depth}"]
    output = await runner.run(*words, "--", wish.url, name, cwd=place, settings=settings, env=env, tell=hear)
    if output.code != 0:
        raise RemoteFailed("git clone", output.code, [line for line in output.stderr if parse_progress(line) is None])
    return await read_head(Repository(f"{place}/{name}", runner, WRITING, {}))


def parse_progress(line: str) -> Progress | None:
    """What a line of Git's tells of how far it is."""
    match = PROGRESS.match(line)
    return None if match is None else Progress(match["phase"], *map(int, match.group("percent", "done", "total")))


def _origin(url: str) -> str:
    """Protocol and host of a URL. Raises `InvalidRequest` where we do not clone from there."""
    if not url or _BAD.search(url) or url.startswith("-"):
        raise InvalidRequest("the URL is empty, or has blanks or line ends")
    try:
        parts = urlsplit(url)
        password, host, port = parts.password, parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidRequest(f"this is no URL: {error}") from None
    if "://" not in url or "::" in url.partition("://")[0]:
        if SHORT_URL.fullmatch(url) and "::" not in url:
            return "ssh://"
        raise InvalidRequest("a URL begins with https://, http://, ssh://, git:// or file://, or is user@host:path")
    if parts.scheme not in PROTOCOLS or not url.startswith(parts.scheme):
        raise InvalidRequest(f"the protocol is none of {', '.join(PROTOCOLS)}")
    if password is not None:
        raise InvalidRequest("the URL has a password in it, where it would be stored: send it as 'token'")
    if host.startswith("-") or (not host and parts.scheme != "file"):
        raise InvalidRequest("the URL has no host")
    if parts.scheme == "file" and (host not in ("", "localhost") or not parts.path.startswith("/")):
        raise InvalidRequest("a file URL is file:// and an absolute path")
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + ("" if port is None else f":{port}")


def _check_free(folder: Descriptor, name: str, destination: str) -> None:
    try:
        taken = bool(os.listdir(f"{folder.path}/{name}"))
    except FileNotFoundError:
        return
    except NotADirectoryError:
        taken = True
    if taken:
        raise DestinationExists(destination)


def _move(folder: Descriptor, temporary: str, name: str, destination: str) -> None:
    try:
        # In the place of an empty directory, and of nothing else.
        os.rename(temporary, name, src_dir_fd=folder.number, dst_dir_fd=folder.number)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise DestinationExists(destination) from None
        with translated(destination):
            raise


def _clear(folder: Descriptor, temporary: str, leftovers: Leftovers) -> None:
    try:
        with suppress(FileNotFoundError):  # moved, or never made
            remove_tree(folder.number, temporary, to_the_end=True)
    finally:
        leftovers.settle(folder.number, temporary)
