"""The mock agent: a whole ACP agent in one small process, whose behaviour is chosen by the prompt's text.

It is a program of its own and no part of the daemon: what a session meets is a real child with real pipes, real
signals and real exit statuses. It has to start in tens of milliseconds and to stay small, because demos and tests
start hundreds of it. Hence the standard library only, none of its heavier modules (no dataclasses, typing,
subprocess), and threads in place of an event loop: the main thread reads stdin, every turn is a thread.
"""

from __future__ import annotations

from .agent import main

__all__ = ["main"]
