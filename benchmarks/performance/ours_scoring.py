"""A scorer on one user × 1,000 candidates, the ranker called plainly, and the products of its stack alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from worker import Mode, serve

import fullrank
from fullrank.data.batch import Batch, Candidates, FeatureBlock, HistoryBatch, Requests
from fullrank.data.inputs import Field, HistoryInputs, Inputs, TaskInput
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import RankMixer
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.serving.scorer import Precision, Scorer

EVENTS = 50
ROWS = {"user": 1_000_000, "item": 200_000} | {f"r{i}": 5_000 for i in range(10)} | {f"c{i}": 5_000 for i in range(11)}
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


def ranker_config(sizes: dict[str, Any], init_std: float) -> RankMixer.Config:
    return RankMixer.Config(
        embedding=EmbeddingConfig(width=16, init_std=init_std),
        tokenizer=TokenizerConfig(num_tokens=sizes["tokens"], token_width=sizes["width"]),
        num_layers=sizes["layers"],
        expansion=sizes["expansion"],
    )


def make_ranker(sizes: dict[str, Any]) -> RankMixer:
    """First weights, with table rows of unit scale: logits then differ as those of a trained ranker do."""
    return ranker_config(sizes, 1.0).build(INPUTS, ROWS, 0).eval()


def products(sizes: dict[str, Any], rows: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    """The two products of every layer, `rows` candidates at a time, into memory that is there."""
    draw = torch.Generator().manual_seed(0)
    T, D, H = sizes["tokens"], sizes["width"], sizes["expansion"] * sizes["width"]

    def tensor(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).to(dtype)

    x_TBD, weight1_TDH, weight2_THD = tensor(T, rows, D), tensor(T, D, H), tensor(T, H, D)
    hidden_TBH, y_TBD = tensor(T, rows, H), tensor(T, rows, D)

    def run() -> Tensor:
        for _ in range(sizes["layers"] * sizes["candidates"] // rows):
            torch.bmm(x_TBD, weight1_TDH, out=hidden_TBH)
            torch.bmm(hidden_TBH, weight2_THD, out=y_TBD)
        return y_TBD

    return run


def main() -> None:
    sizes = json.loads((Path(sys.argv[1]) / "sizes.json").read_text())
    torch.set_num_threads(sizes["threads"])
    ranker, batch = make_ranker(sizes), make_batch(sizes["candidates"])

    def eager(dtype: torch.dtype) -> Callable[[], object]:
        def run() -> object:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                return ranker(batch)

        return run

    modes = {}
    for precision, dtype in TYPES.items():
        scorer = Scorer(ranker, precision=precision)
        modes[f"scorer {precision}"] = Mode(lambda scorer=scorer: scorer(batch))
        modes[f"eager {precision}"] = Mode(eager(dtype))
        for rows in sizes["product_rows"]:
            modes[f"products {precision}, {rows} rows"] = Mode(products(sizes, rows, dtype))
    serve(modes, fullrank=fullrank.__version__)


if __name__ == "__main__":
    main()
