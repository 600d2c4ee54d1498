"""``python -m sandbox_actors.mock``: the mock agent on stdin and stdout."""

from __future__ import annotations

import sys

from . import main

sys.exit(main())
