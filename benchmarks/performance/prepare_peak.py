"""What a process and all that it started hold in memory, watched from outside while it works."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EVERY = 0.25  # seconds: what is held for less may not be seen
_PROC = Path("/proc")


class Peak:
    """The most so far, in MiB (None where the system does not tell)."""

    def __init__(self) -> None:
        self.mib: float | None = None


@contextmanager
def peak_of_tree(pid: int) -> Iterator[Peak]:
    """The peak while inside: of anonymous and shared memory, each page shared between processes divided by their number
    (Linux, `smaps_rollup`). Pages of mapped files are left out: the system drops them where it needs them."""
    peak, done = Peak(), threading.Event()

    def look() -> None:
        held = held_mib(pid)
        if held is not None:
            peak.mib = max(peak.mib or 0.0, held)

    def watch() -> None:
        while not done.wait(EVERY):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
        look()


def held_mib(pid: int) -> float | None:
    """Now, of the process and its descendants."""
    if not (_PROC / str(pid) / "smaps_rollup").exists():
        return None
    parents = {child: parent for child, parent in _parents()}
    tree = {pid}
    while more := {child for child, parent in parents.items() if parent in tree} - tree:
        tree |= more
    return sum(_own_kib(member) for member in tree) / 1024


def _own_kib(pid: int) -> int:
    try:
        text = (_PROC / str(pid) / "smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0
    return sum(int(kib) for kib in re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+) kB", text, re.MULTILINE))


def _parents() -> Iterator[tuple[int, int]]:
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text()
            except OSError:
                continue
            yield int(folder.name), int(text.rpartition(")")[2].split()[1])
