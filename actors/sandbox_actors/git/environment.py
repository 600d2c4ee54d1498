"""What Git gets of the environment, and what it is told so that reading runs nothing.

A repository brings settings along (`.git/config`) and many of them name programs. Who only looks at a repository must
not run them: not the monitor of files, not hooks, pagers, or external diffs, no filter of contents, no way to a remote.
Whoever changes one runs its hooks and filters, as at a terminal; there Git itself refuses what belongs to other users.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["READING", "READING_ENVIRONMENT", "WRITING", "git_environment"]

INHERITED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|TZ|XDG_(CONFIG|DATA|STATE|CACHE)_HOME|LD_LIBRARY_PATH"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|(?i:https?_proxy|all_proxy|no_proxy)|SSH_AUTH_SOCK|GNUPGHOME"
    r"|GIT_(SSH|SSH_COMMAND|SSH_VARIANT|SSL_.*|HTTP_.*|PROXY_.*|EXEC_PATH|TEMPLATE_DIR)"
    r"|GIT_(CONFIG_GLOBAL|CONFIG_SYSTEM|CONFIG_NOSYSTEM|CEILING_DIRECTORIES|DISCOVERY_ACROSS_FILESYSTEM)"
    r"|GIT_(AUTHOR|COMMITTER)_(NAME|EMAIL)",
    re.ASCII,
)
"""Not `GIT_DIR` and its kin, which would make each directory the same repository, and nothing that traces."""

FIXED = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_EDITOR": "false",
    "GIT_PAGER": "cat",
    "LC_ALL": "C.UTF-8",  # messages are read
}

_ALWAYS = ("core.fsmonitor=false", "core.pager=cat", "gc.auto=0", "maintenance.auto=false")

# A directory that looks like a bare repository may have come with the files of another one.
_DISCOVERY = ("safe.bareRepository=explicit",)

READING = (
    *_ALWAYS,
    *_DISCOVERY,
    "safe.directory=*",  # nothing of it is run
    "core.hooksPath=/dev/null",
    "log.showSignature=false",
    "submodule.recurse=false",
    "diff.noprefix=false",
    "diff.mnemonicPrefix=false",
    "core.quotePath=true",
)
"""Settings for commands that only look."""

READING_ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",  # older ones know only this against a fetch of what is missing
}

WRITING = (*_ALWAYS, *_DISCOVERY)
"""Settings for commands that change something."""


def git_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What Git gets of the daemon's environment."""
    return {name: value for name, value in environment.items() if INHERITED.fullmatch(name)} | FIXED
