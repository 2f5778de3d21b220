"""Occlusion on the simulator: what was planted changes the answer, what was not hardly does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.simulate_config import Effects
from fullrank.data.splits import ByHash
from fullrank.features.tables import TableOptimizer
from fullrank.rankers import FM
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.explain import explain
from fullrank.recipes.train import train_ranker
from fullrank.training.config import TrainConfig

PLANTED = ("segment", "category")  # fm: segment × category, and device × format
IDLE = ("age", "hour", "price")


def test_a_planted_pair_decides_and_idle_fields_do_not(tmp_path: Path) -> None:
    world = SimulatorConfig(rows=30_000, users=500, ads=80, campaigns=20, days=2, seed=7, drift=0.0)
    log = SimulatedLog(replace(world, click=Effects(fm=2.0), click_logit=-1.0))
    prepare(log, tmp_path / "data", split=ByHash(key="user", valid=0.0, test=0.0))
    data = PreparedData.open(tmp_path / "data")
    config = FM.Config(embedding=EmbeddingConfig(width=8, init_std=0.1, optimizer=TableOptimizer(lr=0.05)))
    # a campaign is of one category, so it could tell it; identities could learn anything
    exclude = ("conversion", "clicked", "shown", "user", "item", "interests", "match", "campaign", "advertiser")
    training = TrainConfig(epochs=3, batch_size=512, checkpoint_every_steps=None)
    trained = train_ranker(config, data, tmp_path / "run", training, exclude=exclude)
    records = pa.Table.from_batches([chunk.records for chunk in log.chunks()]).slice(0, 40).to_pylist()
    changes: dict[str, list[float]] = {name: [] for name in (*PLANTED, *IDLE)}
    for row in records[::8]:
        found = explain(trained.run, trained.ranker, data, row["user"], row["ad"], task="click")
        for effect in found.effects:
            if effect.what == "field" and effect.hidden in changes:
                changes[effect.hidden].append(abs(effect.logit_change))
    mean = {name: float(np.mean(values)) for name, values in changes.items()}
    assert min(mean[name] for name in PLANTED) > 2.5 * max(mean[name] for name in IDLE), mean
    assert min(mean[name] for name in PLANTED) > 0.3, mean
