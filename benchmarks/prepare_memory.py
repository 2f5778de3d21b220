"""Peak anonymous memory of preparing a simulated log, at several sizes with the same users and ads.

    python benchmarks/prepare_memory.py --rows 1000000 10000000

Each size runs in a process of its own. A thread reads RssAnon from /proc/self/status (Linux): what the process holds
itself, without pages of mapped files. Prints one line of JSON a size, and the ratio to the first. Ends with 1 where one
is above 1.2.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

MOST = 1.2  # times the memory of the first size


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("Expected a line RssAnon in /proc/self/status: this needs Linux 4.5 or later.")


def measure(rows: int, folder: Path, sorted_by_time: bool) -> dict[str, float]:
    """Prepare `rows` rows in this process."""
    from fullrank.data.prepare import prepare
    from fullrank.data.simulate import SimulatedLog, SimulatorConfig
    from fullrank.data.splits import ByTime

    peak, done = [anonymous_bytes()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_bytes())

    base = peak[0]
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    started = time.perf_counter()
    config = SimulatorConfig(rows=rows, new_keys_per_day=0.0, sorted_by_time=sorted_by_time)
    prepare(SimulatedLog(config), folder, split=ByTime())
    seconds = time.perf_counter() - started
    done.set()
    thread.join()
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "rows": rows,
        "peak_anonymous_mib": round(peak[0] / 2**20, 1),
        "before_mib": round(base / 2**20, 1),
        "seconds": round(seconds, 1),
        "rows_per_second": round(rows / seconds),
        "folder_mib": round(size / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--shuffled", action="store_true", help="requests in random order instead of by time")
    parser.add_argument(
        "--here", type=Path, help=argparse.SUPPRESS
    )  # measure in this process, into this folder
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.rows[0], options.here, not options.shuffled)))
        return
    first, most = None, 0.0
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as name:
            command = [sys.executable, __file__, "--rows", str(rows), "--here", f"{name}/data"]
            command += ["--shuffled"] if options.shuffled else []
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        first = first or result["peak_anonymous_mib"]
        most = max(most, result["peak_anonymous_mib"] / first)
        print(json.dumps({**result, "ratio_to_first": round(result["peak_anonymous_mib"] / first, 3)}), flush=True)
    sys.exit(int(most > MOST))


if __name__ == "__main__":
    main()
