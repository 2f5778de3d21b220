"""Rows a second of a loader alone: 39 categories and a label out of one Parquet file, in batches of 4,096.

    python benchmarks/loader.py [--rows 1000000] [--turns 5] [--work FOLDER] [--peers PYTHON]

    ours, shuffled    `Loader` on the file as prepared: int64 `[B, F]` and labels, in windows of 8 blocks
    ours, in order    the same without shuffling
    histories         beside 9 categories the newest 50 events of a user, 4 fields each, batches of 512
    pyarrow           `ParquetFile.iter_batches`, its columns stacked to int64 `[B, F]`; in order, no shuffling
    fuxictr           its Parquet loader (on Ray) and its own format's; they hand out a dict of columns
    torch-rechub      `DataGenerator` on arrays in memory, and its Parquet data set

Each is timed from asking for an epoch to its last batch, in turns of which the fastest counts, and keeps freed memory
as training does; peers run in `PYTHON` (an environment that has them), two epochs each, of which slow ones are cut off.
Prints a line of JSON each: `ratio` is ours, shuffled, over it.

Then how well ours shuffles: `displacement`, how far a row is from its place in the log (share of the log, mean; 1/3 in
a shuffle of all rows), and `same_block`, the chance that two rows of a batch are of one block, beside that of a shuffle
of all rows.

Exits with 1 if ours delivers less than 2 M rows/s, 20 times the fastest loader of the libraries or 1.5 times pyarrow.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fullrank.data.inputs import Inputs
from fullrank.data.loader import Loader
from fullrank.data.partition_writer import BLOCK_ROWS
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.readers.tabular import TabularSource
from fullrank.data.splits import AllTrain
from fullrank.kernels.pages import keep_freed_memory
from fullrank.schema import EventFeature, EventOutcome, Feature, History, Roles, Schema, Task

NAMES = tuple(f"C{number}" for number in range(1, 40))
VALUES = (100, 1_000, 10_000, 30_000)  # of the columns, in turn
BATCH, BATCH_OF_HISTORIES = 4096, 512
LIBRARIES = ("fuxictr", "torch-rechub")
LEAST, OVER_LIBRARIES, OVER_PYARROW = 2_000_000, 20.0, 1.5
FLAT = Schema(
    roles=Roles(order="row"),
    time_unit="position",
    features=tuple(Feature(name=name, kind="categorical", of="pair") for name in NAMES),
    tasks=(Task(name="click"),),
)
PAST = Schema(
    roles=Roles(user="user", item="item", time="time"),
    features=(
        Feature(name="brand", kind="categorical", of="item"),
        *(Feature(name=name, kind="categorical", of="pair") for name in NAMES[:8]),
    ),
    histories=(
        History(
            name="seen", max_length=50, features=(EventFeature(name="page"),), outcomes=(EventOutcome(name="click"),)
        ),
    ),
    tasks=(Task(name="click"),),
)


def draw(rows: int, random: np.random.Generator) -> pa.Table:
    """Ids of a long tail; what both logs have."""
    columns = {
        name: random.pareto(1.05, rows).astype(np.int64) % VALUES[at % len(VALUES)] for at, name in enumerate(NAMES)
    }
    return pa.table(columns | {"click": (random.random(rows) < 0.25).astype(np.float32), "row": np.arange(rows)})


def with_users(flat: pa.Table, random: np.random.Generator) -> pa.Table:
    """The same rows of 50 impressions a user."""
    rows = flat.num_rows
    item = random.pareto(1.05, rows).astype(np.int64) % 50_000
    columns = {
        "user": random.integers(0, max(rows // 50, 1), rows),
        "item": item,
        "brand": item % 997,
        "page": random.integers(0, 20, rows),
        "time": np.sort(random.integers(0, 30 * 86_400, rows)),
    }
    return pa.table(columns | {name: flat[name] for name in (*NAMES[:8], "click")})


def prepared(work: Path, rows: int) -> tuple[Path, PreparedData, PreparedData]:
    random = np.random.default_rng(0)
    files = {"flat": (work / f"flat-{rows}.parquet", FLAT), "past": (work / f"past-{rows}.parquet", PAST)}
    if not all(path.exists() for path, _ in files.values()):
        flat = draw(rows, random)
        pq.write_table(flat, files["flat"][0])
        pq.write_table(with_users(flat.slice(0, rows // 2), random), files["past"][0])
    for path, schema in files.values():
        if not (path.with_suffix("") / "manifest.json").exists():
            prepare(TabularSource([path], schema), path.with_suffix(""), split=AllTrain())
    flat, past = (PreparedData.open(path.with_suffix("")) for path, _ in files.values())
    return files["flat"][0], flat, past


def ours(data: PreparedData, batch_size: int, *, shuffle: bool) -> Callable[[int], int]:
    loader = Loader(data, Inputs.of(data.schema), "train", batch_size=batch_size, shuffle=shuffle)
    return lambda turn: sum(batch.num_rows for batch in loader.epoch(turn))


def plain_pyarrow(path: Path) -> Callable[[int], int]:
    def epoch(turn: int) -> int:
        rows = 0
        for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH, columns=[*NAMES, "click"]):
            columns = [torch.from_numpy(batch.column(name).to_numpy(zero_copy_only=False).copy()) for name in NAMES]
            ids_BF = torch.stack(columns, dim=1)
            torch.from_numpy(batch.column("click").to_numpy(zero_copy_only=False).copy())
            rows += len(ids_BF)
        return rows

    return epoch


def timed(epochs: dict[str, Callable[[int], int]], turns: int) -> dict[str, float]:
    """Rows a second of the fastest turn."""
    best = dict.fromkeys(epochs, 0.0)
    for turn in range(turns):
        for name, epoch in epochs.items():
            begun = time.perf_counter()
            rows = epoch(turn)
            best[name] = max(best[name], rows / (time.perf_counter() - begun))
    return best


def peers(python: str, path: Path) -> dict[str, float]:
    script = Path(__file__).parent / "peers" / "loaders.py"
    told = subprocess.run(
        [python, str(script), str(path), str(BATCH), *NAMES], stdout=subprocess.PIPE, text=True, check=True
    )
    lines = [json.loads(line) for line in told.stdout.splitlines() if line.startswith("{")]
    return {line["label"]: line["rows_per_second"] for line in lines}


def shuffling(data: PreparedData) -> dict[str, float]:
    """How far rows are from where they stood, and how many of a batch are of one block, over an epoch."""
    loader = Loader(data, Inputs.of(data.schema), "train", batch_size=BATCH, shuffle=True)
    number, same = [], []
    for batch in loader.epoch(0):
        row_B = batch.requests.time_R[batch.candidates.request_of_row_B].numpy()  # the log's order is its row's number
        number.append(row_B)
        same.append(float(((np.bincount(row_B // BLOCK_ROWS) / len(row_B)) ** 2).sum()))
    row_N = np.concatenate(number)
    share = np.bincount(row_N // BLOCK_ROWS) / len(row_N)
    return {
        "displacement": float(np.abs(row_N - np.arange(len(row_N))).mean() / len(row_N)),
        "same_block": float(np.mean(same)),
        "same_block_of_all": float((share**2).sum()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--peers")
    given = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        path, flat, past = prepared(work, given.rows)
        epochs = {
            "ours, shuffled": ours(flat, BATCH, shuffle=True),
            "ours, in order": ours(flat, BATCH, shuffle=False),
            "pyarrow": plain_pyarrow(path),
            "histories": ours(past, BATCH_OF_HISTORIES, shuffle=True),
        }
        found = timed(epochs, given.turns)
        if given.peers:
            found |= peers(given.peers, path)
        mine = found["ours, shuffled"]
        for label, rate in found.items():
            line = {"label": label, "rows_per_second": round(rate), "ratio": round(mine / rate, 2)}
            print(json.dumps(line), flush=True)
        print(json.dumps({"label": "shuffling"} | {name: round(x, 4) for name, x in shuffling(flat).items()}))
    libraries = max((rate for label, rate in found.items() if label.startswith(LIBRARIES)), default=0)
    good = mine >= LEAST and mine >= OVER_PYARROW * found["pyarrow"] and mine >= OVER_LIBRARIES * libraries
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
