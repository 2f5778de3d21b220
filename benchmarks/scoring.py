"""One user × 1,000 candidates: how long a scorer takes, beside the ranker called plainly and its products alone.

    python benchmarks/scoring.py

RankMixer, 16 tokens of 128, 2 layers, expansion 2 (4.2 GFLOP a request), 30 fields of width 16 and a history of 50
events; the request's side is encoded in every call. In one process, in turn: the scorer and the products of its stack
alone in each precision, and `ranker(batch)` in float32. Prints a JSON line each: p50, p99 and the least of
milliseconds, how much of the products' p50 it is, and (scorers) the largest change of a logit against `ranker(batch)`.
Ends with 1 if a scorer's p50 is above 20 ms (float32) or 5 ms (bfloat16), or its p99 above twice its p50.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from fullrank.data.batch import Batch, Candidates, FeatureBlock, HistoryBatch, Requests
from fullrank.data.inputs import Field, HistoryInputs, Inputs, TaskInput
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import RankMixer
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.serving.scorer import Precision, Scorer

TOKENS, WIDTH, LAYERS, EXPANSION = 16, 128, 2, 2
EVENTS = 50
ROWS = {"user": 1_000_000, "item": 200_000} | {f"r{i}": 5_000 for i in range(10)} | {f"c{i}": 5_000 for i in range(11)}
LIMITS: dict[Precision, float] = {"float32": 20.0, "bfloat16": 5.0}  # p50, milliseconds
TYPES: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def categorical(*names: str) -> tuple[Field, ...]:
    return tuple(Field(name=name, kind="categorical", key_space=name.removeprefix("item.")) for name in names)


INPUTS = Inputs(
    request=(*categorical("user", *(f"r{i}" for i in range(10))), Field(name="hour", kind="numeric")),
    candidate=(*categorical("item", *(f"c{i}" for i in range(11))), Field(name="price", kind="numeric")),
    histories=(
        HistoryInputs(
            name="clicks",
            last_n=EVENTS,
            fields=(*categorical("item", "item.c0", "item.c1", "item.c2"), Field(name="age", kind="numeric")),
        ),
    ),
    tasks=(TaskInput(name="click"), TaskInput(name="conversion")),
)


def block(fields: tuple[Field, ...], n: int, draw: torch.Generator) -> FeatureBlock:
    ids = [torch.randint(3, ROWS[f.key_space], (n,), generator=draw) for f in fields if f.key_space]
    return FeatureBlock(torch.stack(ids, 1), torch.randn(n, len(fields) - len(ids), generator=draw))


def make_batch(candidates: int) -> Batch:
    draw = torch.Generator().manual_seed(0)
    (history,) = INPUTS.histories
    events = HistoryBatch(block(history.fields, EVENTS, draw), torch.tensor([0, EVENTS]))
    one = torch.zeros(1, dtype=torch.int64)
    requests = Requests(block(INPUTS.request, 1, draw), (events,), one, one)
    request_of_row_B = torch.zeros(candidates, dtype=torch.int64)
    return Batch(requests, Candidates(block(INPUTS.candidate, candidates, draw), request_of_row_B))


def make_ranker() -> RankMixer:
    """First weights, with table rows of unit scale: logits then differ as those of a trained ranker do."""
    config = RankMixer.Config(
        embedding=EmbeddingConfig(width=16, init_std=1.0),
        tokenizer=TokenizerConfig(num_tokens=TOKENS, token_width=WIDTH),
        num_layers=LAYERS,
        expansion=EXPANSION,
    )
    return config.build(INPUTS, ROWS, 0).eval()


def products(candidates: int, rows: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    """The two products of every layer, `rows` candidates at a time, into memory that is there."""
    draw = torch.Generator().manual_seed(0)
    hidden = EXPANSION * WIDTH

    def tensor(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(dtype)

    x_TBD, weight1_TDH, weight2_THD = (
        tensor(TOKENS, rows, WIDTH),
        tensor(TOKENS, WIDTH, hidden),
        tensor(TOKENS, hidden, WIDTH),
    )
    hidden_TBH, y_TBD = tensor(TOKENS, rows, hidden), tensor(TOKENS, rows, WIDTH)

    def run() -> Tensor:
        for _ in range(LAYERS * candidates // rows):
            torch.bmm(x_TBD, weight1_TDH, out=hidden_TBH)
            torch.bmm(hidden_TBH, weight2_THD, out=y_TBD)
        return y_TBD

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=1000, help="a multiple of 1000")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to measure, all together")
    parser.add_argument("--piece-rows", type=int, nargs="+", default=[0], help="sizes to try (0: the scorer's own)")
    options = parser.parse_args()
    ranker, batch = make_ranker(), make_batch(options.candidates)
    with torch.inference_mode():
        expected = ranker(batch).logits
        timed: dict[tuple[str, Precision, int], Callable[[], object]] = {
            ("eager", "float32", options.candidates): lambda: ranker(batch)
        }
        changes = {}
        for precision, dtype in TYPES.items():
            for rows in (250, 500, options.candidates):
                timed["products", precision, rows] = products(options.candidates, rows, dtype)
            for rows in options.piece_rows:
                scorer = (
                    Scorer(ranker, precision=precision, piece_rows=rows)
                    if rows
                    else Scorer(ranker, precision=precision)
                )
                timed["scorer", precision, scorer.piece_rows] = lambda scorer=scorer: scorer(batch)
                found = scorer(batch)
                changes[precision, scorer.piece_rows] = max(float((found[t] - expected[t]).abs().max()) for t in found)
        taken: dict[tuple[str, Precision, int], list[float]] = {what: [] for what in timed}
        for call in timed.values():
            for _ in range(5):
                call()
        end = time.perf_counter() + options.seconds
        while time.perf_counter() < end:
            for what, call in timed.items():
                start = time.perf_counter()
                call()
                taken[what].append((time.perf_counter() - start) * 1e3)
    p50 = {what: float(np.median(times)) for what, times in taken.items()}
    failed = False
    for (what, precision, rows), times in taken.items():
        alone = min(p50[other] for other in p50 if other[:2] == ("products", precision))
        line = {"what": what, "precision": precision, "piece_rows": rows, "threads": torch.get_num_threads()}
        line |= {"calls": len(times), "p50_ms": round(float(np.median(times)), 2)}
        line |= {"p99_ms": round(float(np.quantile(times, 0.99)), 2), "least_ms": round(min(times), 2)}
        line |= {"of_products": round(p50[what, precision, rows] / alone, 2)}
        if what == "scorer":
            line["largest_change"] = float(f"{changes[precision, rows]:.1e}")
            failed |= line["p50_ms"] > LIMITS[precision] or line["p99_ms"] > 2 * line["p50_ms"]
        print(json.dumps(line), flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
