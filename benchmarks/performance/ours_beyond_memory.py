"""Our DCNv2 with its tables in memory, or on disk under a limit of memory; every step has ids never drawn before.

`place.json` of the folder says which: `disk` (a folder for the tables' files, or null) and `cgroup` (a folder of
Linux's control groups to live in, or null). On disk a step makes a checkpoint of the tables when enough rows are held,
as `train` does. Faults and bytes read are counted over the steps that are timed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(sys.argv[1])
PLACE = json.loads((FOLDER / "place.json").read_text())
if PLACE["cgroup"]:  # before anything else is in memory
    (Path(PLACE["cgroup"]) / "cgroup.procs").write_text(str(os.getpid()))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from ours_dcnv2 import batch_of, build, stepper  # noqa: E402
from worker import Mode, serve, work  # noqa: E402

import fullrank  # noqa: E402
from fullrank.features.tables import DiskTables  # noqa: E402
from fullrank.kernels.pages import keep_freed_memory  # noqa: E402

COUNTED = FOLDER / "counted.json"


class Drawn:
    """Batches of new ids: P(id) ~ id^-zipf within every feature."""

    def __init__(self, sizes: dict[str, Any]) -> None:
        self.sizes, self.random = sizes, np.random.default_rng(1)
        last = sizes["rows_of_a_feature"] - 1
        self.below = np.cumsum(np.arange(1, last + 1, dtype=np.float64) ** -sizes["zipf"])
        self.draw()

    def draw(self) -> None:
        shape = (self.sizes["batch"], self.sizes["features"])
        drawn = np.searchsorted(self.below, self.random.random(shape) * self.below[-1], side="right")
        label_B = torch.from_numpy((self.random.random(shape[0]) < 0.25).astype(np.float32))
        self.batch = batch_of(torch.from_numpy(np.minimum(drawn, len(self.below) - 1) + 1), label_B)

    def __iter__(self) -> Drawn:
        return self

    def __next__(self) -> Any:
        return self.batch


class OnDisk:
    """What `train` does about tables on disk, and what that costs."""

    def __init__(self, ranker: Any, folder: Path) -> None:
        self.tables, self.folder, self.number = ranker.tables, folder, 0
        self.tables.begin_on_disk(folder / "0")
        self.counted = {"steps": 0, "checkpoints": 0, "major_faults": 0, "read_mib": 0.0, "written_mib": 0.0}

    def stepped(self, step: Any) -> Any:
        def timed() -> None:
            before = _counters()
            step()
            if any(disk.full for disk in self.tables.on_disk()):
                self._checkpoint()
            for name, count in _counters().items():
                self.counted[name] += count - before[name]
            self.counted["steps"] += 1
            COUNTED.write_text(json.dumps(self.counted))

        return timed

    def _checkpoint(self) -> None:
        before, self.number = self.folder / str(self.number), self.number + 1
        here = self.folder / str(self.number)
        for disk in self.tables.on_disk():
            files = {name: write(here / name) for name, write in disk.writers().items()}
            disk.load(here, {name: (file.size, file.sha256) for name, file in files.items()})
        shutil.rmtree(before, ignore_errors=True)
        self.counted["checkpoints"] += 1


def _counters() -> dict[str, float]:
    """Faults that waited for the disk, and what this process had read and written there, so far."""
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    told = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    mib = {name: int(told[f"{name}_bytes"]) / 2**20 for name in ("read", "write")}
    return {"major_faults": int(stat[9]), "read_mib": mib["read"], "written_mib": mib["write"]}


def main() -> None:
    keep_freed_memory()
    given = work()
    spaces = tuple(f"c{place}" for place in range(given.sizes["features"]))
    disk = DiskTables(key_spaces=spaces if PLACE["disk"] else (), held_rows=PLACE["held_rows"])
    learner = build(given.sizes, seed=0, disk=disk)
    drawn = Drawn(given.sizes)
    steps = {dtype: stepper(*learner, drawn, dtype == "bf16") for dtype in ("fp32", "bf16")}
    if PLACE["disk"]:
        on_disk = OnDisk(learner[0], Path(PLACE["disk"]))
        steps = {dtype: on_disk.stepped(step) for dtype, step in steps.items()}
    serve({dtype: Mode(step, drawn.draw) for dtype, step in steps.items()}, fullrank=fullrank.__version__)


if __name__ == "__main__":
    main()
