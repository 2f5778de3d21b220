"""The side of a process that is timed: it makes its things once, then does some steps whenever it is asked.

The other side is `benchmarks/performance/contenders.py`. A process gets the folder of a workload as its first argument
and the names of its modes (all if none) behind it, and answers every line of JSON on its standard input by one on its
standard output. Needs torch and numpy alone, so that it runs in any environment.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True)
class Mode:
    """A step, and what comes before each without being timed."""

    step: Callable[[], object]
    before: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Work:
    """What every contender gets: `sizes` (see `performance/workload.py`), `ids_SBF` (int64) and `labels_SB` of S steps,
    by the name of their distribution, and the modes that are asked for."""

    sizes: dict
    ids_SBF: dict[str, torch.Tensor]
    labels_SB: torch.Tensor
    modes: tuple[str, ...]

    def wants(self, mode: str) -> bool:
        return not self.modes or mode in self.modes


def work() -> Work:
    """The workload of the command line. Threads are set here, before anything is computed."""
    folder, *modes = sys.argv[1:]
    sizes = json.loads((Path(folder) / "sizes.json").read_text())
    torch.set_num_threads(sizes["threads"])
    torch.manual_seed(0)
    ids_SBF = {
        path.name.split(".")[1]: torch.from_numpy(np.load(path, allow_pickle=False)).long()
        for path in sorted(Path(folder).glob("ids.*.npy"))
    }
    labels_SB = torch.from_numpy(np.load(Path(folder) / "labels.npy", allow_pickle=False))
    return Work(sizes, ids_SBF, labels_SB, tuple(modes))


def serve(modes: dict[str, Mode], **about: object) -> None:
    """Answer until the input ends. `about`: what is worth storing beside the figures."""
    # Libraries print as they like; the answers have the standard output for themselves.
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**words: object) -> None:
        print(json.dumps(words), file=out, flush=True)

    answer(modes=list(modes), versions={"torch": str(torch.__version__), "numpy": np.__version__}, about=about)
    for line in sys.stdin:
        asked = json.loads(line)
        mode = modes[asked["mode"]]
        if asked.get("profile"):
            answer(profile=profile(mode, asked["steps"]))
            continue
        seconds = []
        for number in range(-asked["warm"], asked["steps"]):
            mode.before()
            begun = time.perf_counter()
            mode.step()
            if number >= 0:
                seconds.append(time.perf_counter() - begun)
        answer(seconds=seconds, peak_mib=peak_mib())


def peak_mib() -> float:
    """The most memory this process had resident, in MiB. (`ru_maxrss` of Linux begins with that of the parent.)"""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def profile(mode: Mode, steps: int, most: int = 14) -> list[dict[str, object]]:
    """Where a step's time goes by torch's own profiler: operations by the time in themselves, in ms a step."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watch

    mode.before()
    mode.step()
    with watch(activities=[ProfilerActivity.CPU]) as watched:
        for _ in range(steps):
            mode.before()
            mode.step()
    events = sorted(watched.key_averages(), key=lambda event: -event.self_cpu_time_total)[:most]
    return [
        {
            "operation": event.key,
            "calls": round(event.count / steps, 1),
            "ms": round(event.self_cpu_time_total / steps / 1e3, 2),
        }
        for event in events
    ]
