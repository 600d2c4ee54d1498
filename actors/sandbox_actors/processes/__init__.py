"""Processes and terminals: clients' own commands, run as whole trees that leave nothing behind."""

from .cgroups import Cgroups
from .config import ProcessConfig
from .errors import ProcessNotFound
from .limits import Holder, Limits
from .log import Entry, Gap, LogCursor, ProcessLog, Stream
from .process import Process
from .processes import Processes, open_processes
from .run import RunResult
from .spec import Spec
from .terminal import Size
from .viewers import Viewer

__all__ = [
    "Cgroups",
    "Entry",
    "Gap",
    "Holder",
    "Limits",
    "LogCursor",
    "Process",
    "ProcessConfig",
    "ProcessLog",
    "ProcessNotFound",
    "Processes",
    "RunResult",
    "Size",
    "Spec",
    "Stream",
    "Viewer",
    "open_processes",
]
