"""A compiled loop over a range, on several threads.

In the main thread these are torch's own, where torch brings GNU's OpenMP (Linux): after every operation torch's threads
wait for the next one by running in a circle, for milliseconds, and threads of ours would get half a core each beside
them: a kernel after a matrix product took 1.6 times as long. Elsewhere, and in other threads (a loader's, a server's),
they are a pool of ours. Not Numba's: those need one of three threading libraries, of which the only one that is always
there ends the process when two threads meet in it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

WAITING = 16  # threads of loops that wait for a disk: with more, no disk we have seen reads faster
_pool: ThreadPoolExecutor | None = None
_waiting: ThreadPoolExecutor | None = None
_forked = False
_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _after_fork() -> None:
    """A forked child has none of its parent's threads, and GNU's OpenMP does not know that."""
    global _pool, _waiting, _forked
    _pool, _waiting, _forked = None, None, True


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork)


def even_cuts(num: int, grain: int) -> list[int]:
    """Where the parts of `range(num)` begin and end: one part a thread of torch, none smaller than `grain`."""
    parts = max(1, min(torch.get_num_threads(), num // grain))
    return [num * part // parts for part in range(parts + 1)]


def in_parts(function: Callable[..., Any], cuts: Sequence[int], *arguments: Any) -> list[Any]:
    """`function(cuts[i], cuts[i + 1], *arguments)` of every part; what each returned, or the error of one.

    `function` releases the interpreter's lock (`compiled`) and writes nothing that another part reads.
    """
    spans = list(pairwise(cuts))
    if len(spans) == 1:
        return [function(*spans[0], *arguments)]
    if _openmp() is not None and not _forked and threading.current_thread() is threading.main_thread():
        return _in_team(lambda low, high: function(low, high, *arguments), spans)
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="kernel")
    others = [_pool.submit(function, *span, *arguments) for span in spans[1:]]
    return [function(*spans[0], *arguments), *(other.result() for other in others)]


def in_waiting_parts(function: Callable[..., Any], num: int, grain: int, *arguments: Any) -> None:
    """`function(low, high, *arguments)` of the parts of `range(num)`, as `in_parts`, for loops that wait for a disk
    more than they compute: up to 16 threads whatever torch has, none with less than `grain`."""
    parts = max(1, min(WAITING, num // grain))
    cuts = [num * part // parts for part in range(parts + 1)]
    global _waiting
    if _waiting is None:
        _waiting = ThreadPoolExecutor(WAITING, thread_name_prefix="disk")
    others = [_waiting.submit(function, *span, *arguments) for span in list(pairwise(cuts))[1:]]
    function(cuts[0], cuts[1], *arguments)
    for other in others:
        other.result()


@cache
def _openmp() -> ctypes.CDLL | None:
    """The OpenMP that torch has loaded, if it is GNU's."""
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    return ctypes.CDLL(str(found[0])) if found else None


def _in_team(function: Callable[[int, int], Any], spans: list[tuple[int, int]]) -> list[Any]:
    openmp = _openmp()
    assert openmp is not None
    results: list[Any] = [None] * len(spans)
    errors: list[BaseException] = []

    def run(_: int) -> None:
        try:
            for part in range(openmp.omp_get_thread_num(), len(spans), openmp.omp_get_num_threads()):
                results[part] = function(*spans[part])
        except BaseException as error:  # it must not cross OpenMP; raised below
            errors.append(error)

    openmp.GOMP_parallel(_CALLBACK(run), None, len(spans), 0)
    if errors:
        raise errors[0]
    return results
