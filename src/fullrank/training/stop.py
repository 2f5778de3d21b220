"""Ctrl-C and SIGTERM as a wish: the step is finished and saved first."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class StopSignals:
    """While inside, SIGINT (Ctrl-C) and SIGTERM set `received` to the signal's name instead of ending the process.

    A second signal is not caught: it ends the process at once, as it would have without this. Only the main thread
    can catch signals; in any other thread nothing changes and `received` stays empty.
    """

    received: str = ""

    def __enter__(self) -> StopSignals:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._receive)
        return self

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()
