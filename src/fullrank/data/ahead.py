"""Work that is done before it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(
    pool: ThreadPoolExecutor, function: Callable[[Item], Made], items: Iterable[Item], depth: int
) -> Generator[Made, None, None]:
    """`function(item)` of each item, in order, made by the pool's threads up to `depth` items before it is asked for.

    Items are drawn in the asking thread. What `function` raises is raised where its result would have come, what
    `items` raises after the results of all items before. Closing it drops what has not begun; `pool.shutdown()` waits
    for what has.
    """
    pending: deque[Future[Made]] = deque()
    failed: Exception | None = None
    source = iter(items)
    try:
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as error:
                failed = error
                break
            pending.append(pool.submit(function, item))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        if failed is not None:
            raise failed
    finally:
        for future in pending:
            future.cancel()
