"""Git: status, differences, history, branches, commits and clones, by the `git` program and without a shell."""

from .changes import (
    Author,
    add,
    checkout_branch,
    checkout_commit,
    commit,
    create_branch,
    delete_branch,
    restore,
)
from .clone import Clone, Progress, Wish
from .errors import GitDistrusts, GitFailed, GitNotInstalled, GitTimeout, RemoteFailed, RepositoryNotFound
from .git import Cloning, Git, open_git
from .history import read_branches, read_diff, read_head, read_log
from .status import read_status

__all__ = [
    "Author",
    "Clone",
    "Cloning",
    "Git",
    "GitDistrusts",
    "GitFailed",
    "GitNotInstalled",
    "GitTimeout",
    "Progress",
    "RemoteFailed",
    "RepositoryNotFound",
    "Wish",
    "add",
    "checkout_branch",
    "checkout_commit",
    "commit",
    "create_branch",
    "delete_branch",
    "open_git",
    "read_branches",
    "read_diff",
    "read_head",
    "read_log",
    "read_status",
    "restore",
]
