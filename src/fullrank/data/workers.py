"""Threads of our own for work on columns and chunks that does not depend on each other."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

MOST = 4  # each holds a chunk in memory, and what reads and writes them is one thread


def workers() -> ThreadPoolExecutor:
    """A pool of as many threads as `OMP_NUM_THREADS` says (else: as there are processors), at most `MOST`.

    For pyarrow, numpy and compiled bodies, which let go of the interpreter's lock; not for loops in Python.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return ThreadPoolExecutor(min(int(asked) if asked.isdigit() and int(asked) else os.cpu_count() or 1, MOST))
