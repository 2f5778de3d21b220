"""Preparing a log of 10 M rows in the shape of Criteo's (13 numbers, 26 categories as texts, a label, a time; Parquet).

    python benchmarks/performance/prepare.py [--peers FOLDER | --without-peers] [--rows 10000000] [--rounds 2] [--quick]

Everybody reads the same files, 80 % to train, 10 % to validate and 10 % to test, counts keys on the training rows
(at least 10 times), fits mean and standard deviation there, and writes ids and scaled numbers of every split. Every
round each prepares once, in turn, in a new process that has its imports made. That the keys are as many is checked.

* ours: `fullrank prepare --split files`. It alone also checks every value, hashes the input (so that the same input
  again changes nothing), fits exactly whatever the order, keeps keys and counts so that serving encodes alike, bounds
  its memory, and commits by a rename; its id spaces are frozen, so that it keeps nothing for later appends. It writes
  Arrow as it lies in memory (others: compressed Parquet), with each row's request and when its label is known.
* fuxictr: its `FeatureProcessor` and `build_dataset`. It alone writes its vocabularies as JSON and pickle too. A
  missing number is 0 to it, and is fitted; a missing category is unknown. It starts Ray, which counts, and gives half
  of the cores to transforming.
* polars: a script written for this one log (`peers/prepare_polars.py`), which checks nothing; it keeps the keys.

Memory: of a process and all it started, without pages of mapped files.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import prepare_log
import pyarrow.parquet as pq
from contenders import Contender, ours, peer, python_of
from measured import RESULTS, Figure, Run, keep, machine, rounded, run_of
from prepare_peak import peak_of_tree
from workload import Sizes

from fullrank.schema_toml import to_toml

TARGETS = {"fuxictr": 5.0, "polars": 0.8}  # times as fast as them
ROWS, MIN_COUNT = 10_000_000, 10


def write(folder: Path, rows: int, part_rows: int) -> dict[str, int]:
    """`log/`, and what is asked for: `schema.toml` of us, `prepare.json` of the others. Rows by split."""
    counts = prepare_log.write(folder / "log", rows, part_rows)
    (folder / "schema.toml").write_text(to_toml(prepare_log.schema(MIN_COUNT)), encoding="utf-8")
    asked = {
        "min_count": MIN_COUNT,
        "categories": prepare_log.CATEGORIES,
        "numbers": prepare_log.NUMBERS,
        "splits": list(counts),
        "block_rows": min(part_rows, *counts.values()),
    }
    (folder / "prepare.json").write_text(json.dumps(asked))
    return counts


def timed(folder: Path, peers: Path | None, rounds: int) -> tuple[dict[str, Run], dict[str, str]]:
    """Seconds and memory by name, and versions; `peers` None: ours alone."""
    start: dict[str, Callable[[], Contender]] = {"ours": lambda: ours("ours_prepare", folder, Sizes.threads)}
    if peers is not None:
        python = python_of("libraries", peers)
        for name in TARGETS:
            start[name] = partial(peer, f"prepare_{name}", folder, Sizes.threads, python=python)
    took: dict[str, list[Once]] = {name: [] for name in start}
    versions: dict[str, str] = {}
    for _ in range(rounds):
        for name, started in start.items():
            with started() as contender:  # anew: nobody's memory stands in another's way
                took[name].append(once(contender, name))
                versions = {**contender.versions, **versions}
            check_keys(folder, name)
    runs = {
        name: run_of(
            [each.seconds for each in found],
            round(max(each.mib for each in found)),
            # Ray's processes count as others: their share of the cores is not told.
            round(max(each.others for each in found), 2) if name != "fuxictr" else None,
        )
        for name, found in took.items()
    }
    return runs, versions


@dataclass(frozen=True)
class Once:
    """One preparation: its seconds, its peak of memory, and the share of all cores that others took."""

    seconds: float
    mib: float
    others: float


def once(contender: Contender, name: str) -> Once:
    with peak_of_tree(contender.pid) as peak:
        (took,) = contender.seconds(name, steps=1, warm=0)
    return Once(took, contender.peak_mib if peak.mib is None else peak.mib, contender.others[-1])


def keys(folder: Path, name: str) -> dict[str, int]:
    """How many keys each category got."""
    if name == "ours":
        return json.loads((folder / "ours.json").read_text())["new_keys"]
    if name == "polars":
        files = {category: folder / "polars" / f"keys-{category}.parquet" for category in prepare_log.CATEGORIES}
        return {category: pq.read_metadata(path).num_rows for category, path in files.items()}
    described = json.loads((folder / "fuxictr" / "feature_map.json").read_text())["features"]
    features = {name: feature for of_one in described for name, feature in of_one.items()}
    return {name: features[name]["vocab_size"] - 2 for name in prepare_log.CATEGORIES}  # less padding and unknown


def check_keys(folder: Path, name: str) -> None:
    """Whoever admits other keys than we do does other work."""
    mine, theirs = keys(folder, "ours"), keys(folder, name)
    if mine != theirs:
        apart = {category: (mine.get(category), theirs.get(category)) for category in prepare_log.CATEGORIES}
        apart = {category: pair for category, pair in apart.items() if pair[0] != pair[1]}
        raise SystemExit(f"Expected the same keys of us and {name}, got (ours, theirs) {apart}.")


def lines(runs: dict[str, Run], counts: dict[str, int]) -> list[dict[str, Any]]:
    rows = sum(counts.values())
    return [
        {"who": name, "rows": rows, "seconds": run.median, "rows/s": round(rows / run.median), "peak MiB": run.peak_mib}
        for name, run in runs.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="where the peers' environments are, or are made")
    parser.add_argument("--without-peers", action="store_true", help="ours alone")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--quick", action="store_true", help="seconds; the figures mean nothing")
    options = parser.parse_args()
    rows, part_rows, rounds = options.rows, prepare_log.PART_ROWS, options.rounds
    if options.quick:
        rows, part_rows, rounds = 5_000, 2_000, 1
    on = machine(Sizes.threads)
    with tempfile.TemporaryDirectory() as scratch:
        peers = None if options.without_peers else (options.peers or Path(scratch) / "peers").absolute()
        folder = Path(scratch) / "work"
        counts = write(folder, rows, part_rows)
        runs, versions = timed(folder, peers, rounds)
    found = [
        Figure(
            label=f"prepare {rounded(rows / 1e6):g} M rows: {name}",
            unit="s",
            ours=runs["ours"],
            theirs=runs[name],
            target=target,
            versions=versions,
        )
        for name, target in TARGETS.items()
        if name in runs
    ]
    keep("prepare", found, on, options.out, tables={"Each": lines(runs, counts)})
    sys.exit(int(not options.quick and not all(figure.ok for figure in found)))


if __name__ == "__main__":
    main()
