"""What the boot needs of a sandbox that commands can be run in; providers of such sandboxes offer it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Machine", "Ran"]


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a script.

    Attributes:
      code: the exit code; negative where a signal ended it.
      output: what it wrote to stdout, and where the provider cannot tell them apart to stderr.
      errors: what it wrote to stderr.
    """

    code: int
    output: str
    errors: str = ""


class Machine(Protocol):
    """A sandbox that commands can be run in.

    Errors are `ProviderError`; `SandboxDestroyed` where the sandbox is gone.
    """

    async def run(self, script: str, *, within: float) -> Ran:
        """Run a script by `sh -c`, as the user whose home the server lives in. No secret is in it.

        What it leaves in the background (with its output elsewhere) goes on after it.

        Args:
          within: seconds; a `ProviderError` after that.
        """
        ...

    async def write(self, path: str, data: bytes) -> None:
        """Write a file, over one that is there; its directory is there. Nobody else need be kept from reading it."""
        ...
