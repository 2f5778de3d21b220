"""How far a long operation has come: one bar a stage on standard error, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

Done = Callable[[int], object]  # told of rows as they are done


class Stages:
    """`begin` a stage of so many rows (None: not known), say what is `done`; leaving ends the last one."""

    def __init__(self, show: bool):
        self._show = show
        self._bar: Any = None

    def begin(self, name: str, rows: int | None = None) -> None:
        self._end()
        if self._show:
            from tqdm import tqdm

            self._bar = tqdm(desc=name, total=rows, unit=" rows", unit_scale=True)

    def done(self, rows: int) -> None:
        if self._bar is not None:
            self._bar.update(rows)

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
