"""Hand-made batches, a loader over them and rankers small enough to train in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullrank.data.batch import Batch, Candidates, FeatureBlock, Labels, Requests
from fullrank.data.inputs import Inputs
from fullrank.data.lineage import Pin
from fullrank.features.tables import DiskTables, EmbeddingTables, TableOptimizer, TablePlan, TableSpec
from fullrank.schema import Roles, Schema, Task
from fullrank.training.config import TrainConfig
from fullrank.training.objectives import ObjectiveConfig
from fullrank.training.run import Run
from fullrank.training.watch import Better

TASKS = ("click", "buy")


@dataclass(frozen=True)
class Output:
    logits: dict[str, Tensor]
    aux: dict[str, Tensor] = field(default_factory=dict)
    taps: dict[str, Tensor] = field(default_factory=dict)


def block(ids_nF: Tensor) -> FeatureBlock:
    return FeatureBlock(ids_nF, torch.zeros(len(ids_nF), 0))


def make_batch(ids_B2: Tensor, values_BK: Tensor, known_BK: Tensor | None = None, **columns: Tensor) -> Batch:
    """One request a row: field 0 is the request's (user), field 1 the candidate's."""
    rows = len(ids_B2)
    ones = torch.ones(rows)
    user_R = columns.get("user_R", ids_B2[:, 0])
    return Batch(
        Requests(block(ids_B2[:, :1]), (), user_R, torch.arange(rows)),
        Candidates(block(ids_B2[:, 1:]), torch.arange(rows)),
        Labels(
            values_BK,
            torch.ones_like(values_BK, dtype=torch.bool) if known_BK is None else known_BK,
            columns.get("weight_B", ones),
            columns.get("sample_rate_B", ones),
            ones,
        ),
    )


class TinyLoader:
    """`num_rows` simulated rows in a new order every epoch; the interface of `data.loader.Loader`."""

    def __init__(self, num_rows: int, *, batch_size: int, seed: int = 0, shuffle: bool = True) -> None:
        self.num_rows, self.batch_size, self.seed, self.shuffle = num_rows, batch_size, seed, shuffle
        random = np.random.default_rng(num_rows)
        self.ids = torch.from_numpy(random.integers(2, 20, (num_rows, 2)))
        odd = (self.ids.sum(1) % 2).float()
        self.values = torch.stack([odd, (odd * (self.ids[:, 0] > 10)).float()], dim=1)
        self.known = torch.from_numpy(random.random((num_rows, 2)) < 0.9)
        self.values[~self.known] = 0

    def __len__(self) -> int:
        return -(-self.num_rows // self.batch_size)

    def epoch(self, epoch: int, start_row: int = 0) -> Iterator[Batch]:
        assert start_row % self.batch_size == 0
        order = np.arange(self.num_rows)
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        for start in range(start_row, self.num_rows, self.batch_size):
            rows = torch.from_numpy(order[start : start + self.batch_size])
            yield make_batch(self.ids[rows], self.values[rows], self.known[rows])


OPTIMIZERS = {
    "lazy": TableOptimizer(semantics="lazy", lr=0.01, weight_decay=0.1),
    "dense": TableOptimizer(semantics="dense", lr=0.01),
    "rowwise_adagrad": TableOptimizer(semantics="rowwise_adagrad", lr=0.1),
}
DISK = DiskTables(chunk_rows=8)


class TinyRanker(nn.Module):
    """Tables of 20 rows, one a semantics and one on disk (`plain`: one table, rowwise), then BatchNorm, dropout and a
    Linear."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: int = 4
        dropout: float = 0.3
        plain: bool = False

    def __init__(self, config: Config | None = None, seed: int = 0) -> None:
        super().__init__()
        self.config = config = config or self.Config()
        names = ("rowwise_adagrad",) if config.plain else (*OPTIMIZERS, "on_disk")
        self.tables = EmbeddingTables(
            TablePlan(
                tuple(
                    TableSpec(
                        key_space=name,
                        num_rows=20,
                        width=config.width,
                        init_std=0.5,
                        optimizer=OPTIMIZERS.get(name, OPTIMIZERS["rowwise_adagrad"]),
                        disk=DISK if name == "on_disk" else None,
                    )
                    for name in names
                )
            ),
            seed,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            width = 2 * len(names) * config.width
            self.norm = nn.Identity() if config.plain else nn.BatchNorm1d(width)
            self.dropout = nn.Dropout(config.dropout)
            self.head = nn.Linear(width, 2)

    def forward(self, batch: Batch) -> Output:
        ids_B2 = torch.cat([batch.requests.features.ids_nF, batch.candidates.features.ids_nF], dim=1)
        names = self.tables.plan.places
        x_BD = torch.cat([self.tables.gather_table(name, ids_B2).flatten(1) for name in names], dim=1)
        logits_BK = self.head(self.dropout(self.norm(x_BD)))
        return Output(dict(zip(TASKS, logits_BK.unbind(1), strict=True)))


class TinyTransform:
    """What a run asks of a transform that it stores."""

    def save(self, path: Path) -> None:
        path.mkdir()
        (path / "ids").write_text("2 3 5")


SCHEMA = Schema(
    roles=Roles(user="user", item="item"), tasks=tuple(Task(name=name, column=f"{name}ed") for name in TASKS)
)
OBJECTIVE = ObjectiveConfig().build(Inputs.of(SCHEMA).tasks)

SCORES: dict[str, Better] = {"click.auc": "higher", "buy.auc": "higher", "click.log_loss": "lower"}


def create_run(path: Path, train: TrainConfig, **changed: Any) -> Run:
    made = {
        "type_tag": "tiny",
        "config": TinyRanker.Config(),
        "inputs": Inputs.of(SCHEMA),
        "num_rows": {"user": 20, "item": 20},
        "seed": 0,
        "schema": SCHEMA,
        "transform": TinyTransform(),
        "lineage": Pin(0, "ab12"),
        "train": train,
        "objective": OBJECTIVE,
    }
    return Run.create(path, **(made | changed))


def lines_of(run: Run) -> list[dict[str, Any]]:
    """metrics.jsonl without the times."""
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line.pop("seconds") >= 0
    return lines


def all_tensors(run: Run) -> dict[str, Tensor]:
    """Every tensor of the newest checkpoint: weights, optimizer and random state, and what is on disk."""
    checkpoint = run.latest_checkpoint()
    assert checkpoint is not None
    tensors = {
        f"{part}:{name}": tensor
        for part in ("dense", "tables", "optimizer")
        for name, tensor in checkpoint.tensors(part).items()
    }
    rows = sorted((checkpoint.path / "rows").rglob("*.f32"))
    return tensors | {path.name: torch.from_file(str(path), size=path.stat().st_size // 4) for path in rows}


def assert_same_bits(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert list(a) == list(b)
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different, different
