"""Tables served as bfloat16 and int8: what they change on Frappe, and what a look-up costs.

    python benchmarks/serving_tables.py --data FOLDER [--seeds 3] [--rows 20000000]

DCNv2 learns Frappe for ten epochs by the recipe of `frappe.py` (at a constant rate, without choosing the best epoch),
with seeds 0, 1, …; its test rows are scored with tables in float32, bfloat16 and int8, and (not offered: to show what
it would give) in int8 with an offset a row, w = min + q (max - min) / 255. Then rows of one table of `--rows` ×
`--width` are looked up at random, 26 columns of 4,096 ids at a time, in turn in each storage.

Prints a line of JSON a seed and storage: `ours` is its AUC, `theirs` that in float32; and a line a storage: `ours` and
`theirs` are nanoseconds a row, medians with least and most. Ends with 1 if an AUC moves by more than 1e-4 (bfloat16) or
1e-3 (int8), or a look-up takes more than 1.1 times float32's. FOLDER holds the files `fullrank data list` names for
frappe. `--quick`: a small simulated log and table instead, whose figures mean nothing.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from frappe import recipes
from torch import Tensor

from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.readers.frappe import Frappe
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByTime, GivenFiles
from fullrank.evaluation.evaluate import Metrics
from fullrank.features.tables import EmbeddingTables, TablePlan, TableSpec
from fullrank.rankers import Ranker
from fullrank.recipes.tables_change import tables_change
from fullrank.recipes.train import predict, train_ranker
from fullrank.serving.tables import ServingTables, Storage
from fullrank.training.config import TrainConfig
from fullrank.training.run import Run

MOST_CHANGE: dict[str, float] = {"bfloat16": 1e-4, "int8": 1e-3}  # of the AUC
MOST_TIME = 1.1  # of float32's
COLUMNS, OWNERS = 26, 4096


def with_offset(table_RD: Tensor) -> Tensor:
    """A table as int8 with a scale and an offset a row would read; padding stays zeros."""
    low_R1, high_R1 = (bound.unsqueeze(-1) for bound in torch.aminmax(table_RD, dim=1))
    step_R1 = (high_R1 - low_R1) / 255
    return torch.where(step_R1 > 0, low_R1 + ((table_RD - low_R1) / step_R1).round() * step_R1, table_RD)


def change_with_offset(run: Run, ranker: Ranker, data: PreparedData) -> dict[str, float]:
    whole = predict(run, ranker, data, "test")
    other = copy.deepcopy(ranker)
    other.tables.load_logical_tables(
        {name: with_offset(table_RD) for name, table_RD in ranker.tables.logical_tables().items()}
    )
    found = predict(run, other, data, "test")
    before, after = (each.metrics(each.tasks[0]).auc for each in (whole, found))
    return {
        "ours": round(after, 6),
        "theirs": round(before, 6),
        "change": float(f"{after - before:.2e}"),
        "largest_logit_change": float(f"{np.abs(found.logits_NK - whole.logits_NK)[:, 0].max():.2e}"),
    }


def quality(data: PreparedData, work: Path, name: str, seeds: int, epochs: int) -> bool:
    """A line a seed and storage; whether all changes are small enough."""
    config = recipes()["dcnv2"].ranker
    good = True
    for seed in range(seeds):
        training = TrainConfig(
            epochs=epochs, batch_size=4096, lr=1e-3, clip_norm=10.0, checkpoint_every_steps=None, seed=seed
        )
        trained = train_ranker(config, data, work / f"{seed}", training, seed=seed)
        ranker = trained.ranker.eval()
        whole = predict(trained.run, ranker, data, "test")
        rows = [row for row in tables_change(trained.run, data, "test", whole) if row.task == whole.tasks[0]]
        for row in rows:
            assert isinstance(row.metrics, Metrics) and isinstance(rows[0].metrics, Metrics)
            ok = abs(row.change) <= MOST_CHANGE.get(row.tables, 0.0)
            good &= ok
            line: dict[str, Any] = {"label": f"{name}, DCNv2, {row.tables}", "seed": seed}
            line |= {"ours": round(row.metrics.auc, 6), "theirs": round(rows[0].metrics.auc, 6)}
            line |= {"change": float(f"{row.change:.2e}"), "threshold": MOST_CHANGE.get(row.tables, 0.0), "ok": ok}
            line |= {"log_loss": round(row.metrics.log_loss, 6), "table_bytes": row.table_bytes}
            print(json.dumps(line | {"largest_logit_change": float(f"{row.largest_logit_change:.2e}")}), flush=True)
        line = {"label": f"{name}, DCNv2, int8 with an offset (not offered)", "seed": seed}
        print(json.dumps(line | change_with_offset(trained.run, ranker, data)), flush=True)
    return good


def look_ups(rows: int, width: int, seconds: float) -> bool:
    """A line a storage; whether none is slow."""
    plan = TablePlan((TableSpec(key_space="item", num_rows=rows, width=width),))
    whole = EmbeddingTables(plan, seed=0)
    tables: dict[Storage, EmbeddingTables] = {"float32": whole}
    compact: tuple[Storage, ...] = ("bfloat16", "int8")
    for storage in compact:
        tables[storage] = ServingTables(plan, storage)
        tables[storage].load_logical_tables(whole.logical_tables())
    sizes = {"float32": 4 * width * rows}
    sizes |= {storage: each.nbytes for storage, each in tables.items() if isinstance(each, ServingTables)}
    columns, draw = whole.columns(("item.main",) * COLUMNS), torch.Generator().manual_seed(0)
    taken: dict[Storage, list[float]] = {storage: [] for storage in tables}
    with torch.inference_mode():
        for each in tables.values():  # compiled before it is timed
            each.gather(columns, _ids(rows, draw))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            ids_nF = _ids(rows, draw)
            for storage, each in tables.items():
                taken[storage].append(_seconds(lambda each=each, ids_nF=ids_nF: each.gather(columns, ids_nF)))
    good = True
    of_float32 = float(np.median(taken["float32"]))
    for storage, times in taken.items():
        a_row = [1e9 * each / (COLUMNS * OWNERS) for each in (np.median(times), min(times), max(times))]
        ratio = float(np.median(times)) / of_float32
        good &= ratio <= MOST_TIME
        line: dict[str, Any] = {"label": f"look-up, {rows:,} rows of {width}, {storage}, ns a row"}
        line |= dict(zip(("ours", "least", "most"), (round(number, 2) for number in a_row), strict=True))
        line |= {"theirs": round(1e9 * of_float32 / (COLUMNS * OWNERS), 2), "ratio": round(ratio, 3)}
        line |= {"threshold": MOST_TIME, "ok": ratio <= MOST_TIME, "n": len(times), "table_bytes": sizes[storage]}
        print(json.dumps(line | {"threads": torch.get_num_threads()}), flush=True)
    return good


def _ids(rows: int, draw: torch.Generator) -> Tensor:
    return torch.randint(1, rows, (OWNERS, COLUMNS), generator=draw)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="needed unless --quick")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--width", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to look up, each width")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.data is None and not options.quick:
        parser.error("expected --data FOLDER, or --quick")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        if options.quick:
            log = SimulatedLog(SimulatorConfig(rows=3_000, users=150, ads=80, campaigns=20, days=1, seed=0))
            prepare(log, work / "data", split=ByTime(valid=0.2, test=0.3))
            options.seeds, options.epochs, options.rows, options.seconds = 1, 1, 50_000, 0.5
        else:
            prepare(Frappe(options.data or Path()), work / "data", split=GivenFiles())
        name = "simulated" if options.quick else "Frappe"
        good = quality(PreparedData.open(work / "data"), work, name, options.seeds, options.epochs)
    for width in options.width:
        good &= look_ups(options.rows, width, options.seconds)
    sys.exit(0 if good or options.quick else 1)


if __name__ == "__main__":
    main()
