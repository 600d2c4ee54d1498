"""Watching a tree: what is created, modified, deleted and moved in it."""

from .changes import Change
from .watch import Batch, TooManyWatches, Watch, open_watch

__all__ = ["Batch", "Change", "TooManyWatches", "Watch", "open_watch"]
