"""What backbones are compared on: MovieLens-1M with two tasks, a simulated log whose truth is known, and Frappe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.readers.frappe import Frappe
from fullrank.data.readers.movielens_1m import MovieLens1M
from fullrank.data.simulate import Effects, SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByTime, PerUserOrder
from fullrank.evaluation.metrics import auc
from fullrank.evaluation.oracle import oracle_metrics

EFFECTS = Effects(additive=0.8, fm=0.8, three_way=0.8, gated=0.8, sequence=1.6)
LOG = SimulatorConfig(
    rows=1_200_000,
    users=12_000,
    ads=480,
    campaigns=40,
    categories=8,
    new_keys_per_day=0.0,
    drift=0.0,
    explore=1.0,
    click_logit=-1.0,
    click=EFFECTS,
    conversion=Effects(),
)


@dataclass(frozen=True, kw_only=True)
class World:
    """`exclude`: what no model reads. `task`: the one that early stopping and figures go by."""

    name: str
    task: str
    exclude: tuple[str, ...]
    last_n: int | None
    epochs: int
    make: Callable[[Path, Path], None]  # of the folder of public data and the one to prepare into

    def data(self, public: Path, work: Path) -> PreparedData:
        folder = work / "data" / self.name
        if not (folder / "manifest.json").exists():
            self.make(public, folder)
        return PreparedData.open(folder)


def _movielens(public: Path, folder: Path) -> None:
    prepare(MovieLens1M(public / "movielens_1m"), folder, split=PerUserOrder())


def _frappe(public: Path, folder: Path) -> None:
    log = Frappe(public / "frappe")
    prepare(log, folder, split=log.split)


def _simulated(_: Path, folder: Path) -> None:
    prepare(SimulatedLog(LOG), folder, split=ByTime(valid=0.05, test=0.15))


def _small(_: Path, folder: Path) -> None:
    prepare(SimulatedLog(replace(LOG, rows=6_000, users=300)), folder, split=ByTime(valid=0.1, test=0.2))


MOVIELENS = World(
    name="movielens-1m", task="liked", exclude=("title",), last_n=100, epochs=2, make=_movielens
)
SIMULATED = World(
    name="simulated",
    task="click",
    exclude=("conversion", "shown", "match"),
    last_n=20,
    epochs=2,
    make=_simulated,
)
SMALL = replace(SIMULATED, name="small", epochs=1, make=_small)
FRAPPE = World(name="frappe", task="click", exclude=(), last_n=None, epochs=8, make=_frappe)
WORLDS = {world.name: world for world in (MOVIELENS, SIMULATED, FRAPPE, SMALL)}


def found_of_truth(world: World, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """Of a simulated log's test rows: the oracle's AUC, the share of the way from a half to it, and for each planted
    effect the slope of the model's logit on what the effect adds to the true one, all effects at once (1: found whole;
    0: not at all)."""
    config = LOG if world is SIMULATED else replace(LOG, rows=6_000, users=300)
    log, tests = SimulatedLog(config), len(labels)
    truth = np.concatenate([rows.p_click for rows in log.rows()])[-tests:]
    clicks = np.concatenate([rows.click for rows in log.rows()])[-tests:]
    if not np.array_equal(clicks.astype(np.float32), labels):
        raise RuntimeError("Expected the test rows to be the last of the log, got other labels.")
    parts = list(log.contributions("click"))
    names = list(parts[0])
    added = np.stack([np.concatenate([part[name] for part in parts])[-tests:] for name in names], axis=1)
    added = added * np.array([getattr(EFFECTS, name) for name in names])
    slopes, *_ = np.linalg.lstsq(added - added.mean(0), logits - logits.mean(), rcond=None)
    oracle = oracle_metrics(labels, truth).auc
    found = {"oracle_auc": oracle, "gap": (auc(labels, logits) - 0.5) / (oracle - 0.5)}
    return found | {f"slope {name}": float(slope) for name, slope in zip(names, slopes, strict=True)}
