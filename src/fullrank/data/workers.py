"""Threads of our own for work on columns and chunks that does not depend on each other."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

MOST = 4  # each holds a chunk in memory, and what reads and writes them is one thread


def threads() -> int:
    """As many as `OMP_NUM_THREADS` says (else: as there are processors), at most `MOST`."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(asked) if asked.isdigit() and int(asked) else os.cpu_count() or 1, MOST)


def workers() -> ThreadPoolExecutor:
    """A pool of so many, for pyarrow, numpy and compiled bodies, which let go of the interpreter's lock; not for loops
    in Python."""
    return ThreadPoolExecutor(threads())
