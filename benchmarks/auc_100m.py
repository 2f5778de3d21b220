"""Exact AUC and per-user AUC of many rows that lie in files: seconds, and peak anonymous memory.

    python benchmarks/auc_100m.py --rows 10000000 100000000

Rows (float32 logits of a click model of 3 %, a million users, 8-bit labels) are written to memory-mapped npy files.
Each measurement runs in a process of its own, one thread; a thread beside it reads RssAnon from /proc/self/status
(Linux): what the process holds itself, without pages of mapped files. Up to 10 million rows the in-memory `auc`,
`auc_per_user` and scikit-learn's `roc_auc_score` see the same rows. Prints one line of JSON a measurement; ends with 1
if a file-based one took more than 2 GB or ways that compute the same thing disagree.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

LIMIT = 2_000_000_000  # bytes
IN_MEMORY = 10_000_000  # rows
FROM_FILES = ("auc_of_chunks", "auc_per_user_of_chunks")
FROM_MEMORY = ("auc", "auc_per_user", "sklearn.roc_auc_score")


def write_rows(folder: Path, rows: int, users: int = 1_000_000, chunk: int = 1 << 20) -> None:
    """labels.npy, scores.npy, users.npy: users click at rates of their own, a few of them see most of the ads."""
    random = np.random.default_rng(0)
    taste = random.normal(-4, 1, users)
    code = random.integers(1, 2**63, users, dtype=np.int64)
    columns = {
        name: np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=dtype, shape=(rows,))
        for name, dtype in (("labels", np.uint8), ("scores", np.float32), ("users", np.int64))
    }
    for start in range(0, rows, chunk):
        size = min(chunk, rows - start)
        user = (users * random.random(size) ** 2).astype(np.int64)
        logit = taste[user] + random.normal(0, 1, size)
        part = slice(start, start + size)
        columns["labels"][part] = random.random(size) < 1 / (1 + np.exp(-logit))
        columns["scores"][part] = logit + random.normal(0, 0.5, size)
        columns["users"][part] = code[user]


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("Expected a line RssAnon in /proc/self/status: this needs Linux 4.5 or later.")


def measure(what: str, folder: Path) -> dict[str, object]:
    """One way of computing, in this process."""
    from fullrank.evaluation.auc import auc, auc_per_user
    from fullrank.evaluation.large_auc import auc_of_chunks, auc_per_user_of_chunks, in_chunks

    mapped = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("labels", "scores", "users")]
    rows = len(mapped[0])
    columns = [np.array(column) for column in mapped] if what in FROM_MEMORY else mapped
    if what == "sklearn.roc_auc_score":
        from sklearn.metrics import roc_auc_score
    peak, done = [anonymous_bytes()], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous_bytes())

    base = peak[0]
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    started = time.perf_counter()
    if what == "auc_of_chunks":
        value = auc_of_chunks(in_chunks(*columns[:2]), folder)
    elif what == "auc_per_user_of_chunks":
        value = auc_per_user_of_chunks(in_chunks(*columns), folder).value
    elif what == "auc":
        value = auc(columns[0], columns[1])
    elif what == "auc_per_user":
        value = auc_per_user(columns[0], columns[1], columns[2]).value
    else:
        value = float(roc_auc_score(columns[0], columns[1]))
    seconds = time.perf_counter() - started
    done.set()
    thread.join()
    return {
        "what": what,
        "rows": rows,
        "seconds": round(seconds, 2),
        "peak_anonymous_mb": round(peak[0] / 1e6),
        "before_mb": round(base / 1e6),
        "value": value,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000_000, 100_000_000])
    parser.add_argument("--folder", type=Path, help="where the rows and scratch files go (17 bytes a row, and then 13)")
    parser.add_argument("--here", nargs=2, help=argparse.SUPPRESS)  # measure in this process: what, and the folder
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.here[0], Path(options.here[1]))))
        return
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    failed = False
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            write_rows(Path(name), rows)
            values: dict[bool, list[float]] = {False: [], True: []}  # of all rows, per user
            for what in FROM_FILES + (FROM_MEMORY if rows <= IN_MEMORY else ()):
                command = [sys.executable, __file__, "--here", what, name]
                told = subprocess.run(command, check=True, capture_output=True, text=True, env=one_thread).stdout
                print(told, end="", flush=True)
                result = json.loads(told)
                values["per_user" in what].append(result["value"])
                failed |= what in FROM_FILES and result["peak_anonymous_mb"] * 1e6 > LIMIT
            failed |= any(max(same) - min(same) > 1e-12 for same in values.values())
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
