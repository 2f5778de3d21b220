"""R10, U8, E8, T10, T11: do the effects that the papers claim appear in our runs? A line of JSON for each.

    python benchmarks/record.py backbone_claims --threshold "each line has its own" -- \
        python benchmarks/backbones/claims.py

Reads benchmarks/results/backbones.jsonl (`grid.py`). A difference is of test AUC (T11: of ranks), paired by seed, with
Student's 90 % interval. `shown`: the interval lies where the claim says; `not shown`: it holds 0; `against`: it lies on
the other side. It ends with 0 whatever was found, and with 1 where runs are missing.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from statistics import fmean, stdev
from typing import Any

from cells import SEEDS
from stored import Lines, paired

from fullrank.evaluation.paired import PairedDifference

WHOLE = ("movielens-1m", "simulated")  # for models of fields
STREAMS = ("movielens-1m/4", "simulated")
BFTS, ALL, WITHOUT = "2 full, 2 windows", "4 full", "4 full, no fields"
VERDICTS = {"better": "shown", "inside the noise": "not shown", "worse": "against"}


def told(label: str, data: str, says: str, found: PairedDifference) -> dict[str, Any]:
    """A line of a claim that one is more than another."""
    line: dict[str, Any] = {"label": label, "data": data, "claim": says, "n": found.n}
    line["verdict"] = VERDICTS.get(found.verdict, "not run")
    if found.n >= 2:
        line |= {"difference": round(found.mean, 5), "low": round(found.low, 5), "high": round(found.high, 5)}
    return line | {"threshold": "interval above 0"}


def of_auc(lines: Lines) -> Iterator[dict[str, Any]]:
    """Claims that are a difference of AUC between two recipes."""
    for data in WHOLE:
        for ffn in ("glu", "gelu"):
            found = lines.difference(data, (f"permute, {ffn}", "ffn"), (f"none, {ffn}", "mixing"))
            yield told("R10", data, f"RankMixer's mixing above none, {ffn} networks (RankElastor's blocks)", found)
        for mixer in ("full", "permute"):
            for one, other in (("glu", "gelu"), ("gelu", "relu")):
                found = lines.difference(data, (f"{mixer}, {one}", "ffn"), (f"{mixer}, {other}", "ffn"))
                yield told("E8", data, f"{one} above {other}, {mixer} mixing", found)
    for data in STREAMS:
        found = lines.difference(data, (ALL, "streams"), ("4 windows", "streams"))
        yield told("T10", data, "full layers above windows alone, which no field reaches", found)
        found = lines.difference(data, (BFTS, "streams"), (ALL, "streams"))
        yield told("T10", data, "2 full layers and 2 windows not below 4 full", found) | as_good(lines, data, found)
        found = lines.difference(data, (BFTS, "streams"), (f"{BFTS}, no gate", "streams"))
        yield told("NLIR", data, "the gate above none", found)


def as_good(lines: Lines, data: str, found: PairedDifference) -> dict[str, Any]:
    """The verdict of a claim that one is no worse than another, and what it costs beside it."""
    verdict = {"better": "shown", "inside the noise": "no worse within the noise", "worse": "against"}
    cost = [lines.values(data, recipe, "streams", "mflop_a_row").values() for recipe in (BFTS, ALL)]
    flops = {"flops_of_it": round(fmean(cost[0]) / fmean(cost[1]), 3)} if all(cost) else {}
    return {"verdict": verdict.get(found.verdict, "not run"), "threshold": "interval not below 0", **flops}


def by_lot(lines: Lines, data: str, figure: str, baseline: str) -> tuple[PairedDifference, int, float]:
    """The mean over permutations less the baseline, how many there are, and the spread of their means over seeds."""
    names = [name for name in lines.recipes(data, figure) if name.startswith("permuted") or name == "bare"]
    of_each = [lines.values(data, name, figure, "auc") for name in names]
    base = lines.values(data, baseline, figure, "auc")
    seeds = sorted(set(base).intersection(*of_each))
    found = paired({seed: fmean(values[seed] for values in of_each) for seed in seeds}, base)
    spread = stdev(fmean(values[seed] for seed in seeds) for values in of_each) if seeds else math.nan
    return found, len(names), spread


def of_permutations(lines: Lines) -> Iterator[dict[str, Any]]:
    """U8: the gain of fields by lot beside the spread of its permutations."""
    data = "movielens-1m"
    for system, figure, baseline in (("RankMixer", "tokens", "chunk"), ("RankUp", "parts", "in order")):
        found, permutations, spread = by_lot(lines, data, figure, baseline)
        line = told("U8", data, f"{system}: fields by lot above {baseline}, by more than permutations differ", found)
        if found.n >= 2:
            line |= {"permutations": permutations, "sd_of_permutations": round(spread, 5)}
            if line["verdict"] == "shown" and found.mean <= spread:
                line["verdict"] = "not shown"
        yield line | {"threshold": "interval above 0, mean above the spread of permutations"}


def of_histories(lines: Lines) -> Iterator[dict[str, Any]]:
    """T11: the logarithm of the mean rank of a row's event tokens behind a layer."""
    for data in STREAMS:
        for where, point in (("first", "events.0"), ("second", "events.1"), ("third", "events.2")):
            for pair in ((WITHOUT, BFTS), (BFTS, ALL)):
                found = paired(*(event_ranks(lines, data, name, point) for name in pair))
                says = f"log rank of events behind the {where} layer: {pair[0]!r} above {pair[1]!r}"
                yield told("T11", data, says, found)


def event_ranks(lines: Lines, data: str, recipe: str, point: str) -> dict[int, float]:
    own = lines.of(data, recipe, "streams")
    return {one["seed"]: math.log(one["ranks"][point]["sample"][0]) for one in own if point in one["ranks"]}


def main() -> None:
    lines = Lines()
    every = [*of_auc(lines), *of_permutations(lines), *of_histories(lines)]
    for line in every:
        print(json.dumps(line, ensure_ascii=False))
    sys.exit(int(any(line["n"] < SEEDS for line in every)))


if __name__ == "__main__":
    main()
