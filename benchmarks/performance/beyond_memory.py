"""DCNv2 with tables that truly exceed memory: on disk under a limit, beside the same tables in memory.

    python benchmarks/performance/beyond_memory.py [--rows 50000000] [--limit-mib 1536] [--scratch FOLDER] [--quick]

The limit is on resident memory and page cache together: a control group of Linux, which needs the right to make one
(root). Where none can be made, ask for more rows than the machine has memory for (400000000 are 27 GB); what does not
exceed memory is skipped, aloud. `--scratch` is on a disk, not in memory (tmpfs), and has room for two and a half times
the tables. Rows are numbered by how often they come, so that often read ones share pages; every batch is new.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from contenders import Timed, Turns, in_turns, ours
from dcnv2_training import DTYPES, named
from measured import RESULTS, Figure, in_ms, keep, machine
from workload import rows_in_all, write

HELD = 1 << 21
TARGET = 4.0
GROUPS = Path("/sys/fs/cgroup")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--limit-mib", type=int, default=1536)
    parser.add_argument("--scratch", type=Path)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    sizes = (
        replace(rows_in_all(20_000), steps=1).quick() if options.quick else replace(rows_in_all(options.rows), steps=1)
    )
    turns = Turns(rounds=1, steps=2, warm=0) if options.quick else Turns(rounds=8, steps=20, warm=0)
    on = machine(sizes.threads)
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch, ExitStack() as stack:
        group = stack.enter_context(limited(options.limit_mib))
        bytes_in_all = sizes.rows * (sizes.width + 1) * 4
        if (
            not options.quick
            and group is None
            and bytes_in_all < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        ):
            print(f"SKIPPED: no limit of memory can be set, and {named(sizes.rows)} rows fit into it", file=sys.stderr)
            return
        disk = {
            "disk": str(Path(scratch) / "tables"),
            "cgroup": group and str(group),
            "held_rows": 200 if options.quick else HELD,
        }
        memory = {"disk": None, "cgroup": None, "held_rows": HELD}
        smaller = sizes if group or options.quick else rows_in_all(50_000_000, steps=1)
        folders = []
        for name, place, those in (("disk", disk, sizes), ("memory", memory, smaller)):
            folders.append(write(those, Path(scratch) / name))
            (folders[-1] / "place.json").write_text(json.dumps(place))
        there, here = (stack.enter_context(ours("ours_beyond_memory", folder, sizes.threads)) for folder in folders)
        pairs = {dtype: (Timed(there, dtype), Timed(here, dtype)) for dtype in DTYPES}
        counted = {}
        for dtype, pair in pairs.items():
            in_turns(pair, replace(turns, rounds=1))  # until pages and rows are in memory as they will be
            for timed in pair:
                timed.seconds.clear()
            before = _counted(folders[0])
            in_turns(pair, turns)
            counted[dtype] = {name: count - before[name] for name, count in _counted(folders[0]).items()}
        where = f"{named(sizes.rows)} rows on disk" + (f" in {options.limit_mib:,} MiB" if group else "")
        figures, rows = [], []
        for dtype, (disk_timed, memory_timed) in pairs.items():
            figures.append(
                Figure(
                    label=f"step of DCNv2, {dtype}, Zipf ids: {where}, beside {named(smaller.rows)} in memory",
                    unit="ms",
                    ours=in_ms(disk_timed),
                    theirs=in_ms(memory_timed),
                    target=TARGET,
                    at_most=True,
                    versions=there.versions,
                )
            )
            steps = counted[dtype].pop("steps")
            mean = {
                name: statistics.mean(timed.seconds) for name, timed in (("disk", disk_timed), ("memory", memory_timed))
            }
            rows.append(
                {
                    "dtype": dtype,
                    "steps": steps,
                    "checkpoints": counted[dtype].pop("checkpoints"),
                    "ms a step, with checkpoints": round(1e3 * mean["disk"]),
                    "times memory's": round(mean["disk"] / mean["memory"], 2),
                    **{f"{name} a step": round(count / steps, 1) for name, count in counted[dtype].items()},
                }
            )
    keep(
        "beyond_memory", figures, on, options.out, tables={"What it costs, checkpoints and first rounds included": rows}
    )
    sys.exit(int(not options.quick and not all(figure.ok for figure in figures)))


def _counted(folder: Path) -> dict[str, float]:
    return json.loads((folder / "counted.json").read_text())


@contextmanager
def limited(mib: int) -> Iterator[Path | None]:
    """A control group whose processes have so much memory, pages of files included; None where none can be made."""
    old = (GROUPS / "memory").is_dir()
    group = (GROUPS / "memory" if old else GROUPS) / f"fullrank-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(mib << 20))
    except OSError:
        with suppress(OSError):  # it may not have been made; what is in it is the system's and goes with it
            group.rmdir()
        yield None
        return
    try:
        yield group
    finally:
        group.rmdir()  # its process has ended: the contenders were closed before


if __name__ == "__main__":
    main()
