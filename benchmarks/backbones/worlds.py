"""What backbones are compared on: MovieLens-1M with two tasks, a quarter of its users, a simulated log whose truth is
known, and Frappe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

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
_SMALL_LOG = replace(LOG, rows=6_000, users=300)


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
        folder = work / "data" / self.name.replace("/", "-")
        if not (folder / "manifest.json").exists():
            self.make(public, folder)
        return PreparedData.open(folder)


class EveryFourthUser(MovieLens1M):
    """The ratings of the users whose number is a multiple of four."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._ratings = self._ratings.filter(pc.equal(pc.bit_wise_and(self._ratings["user"], 3), 0))

    def fingerprint(self) -> str:
        return f"{super().fingerprint()}, every fourth user"


def _quarter(public: Path, folder: Path) -> None:
    prepare(EveryFourthUser(public / "movielens_1m"), folder, split=PerUserOrder())


def _movielens(public: Path, folder: Path) -> None:
    prepare(MovieLens1M(public / "movielens_1m"), folder, split=PerUserOrder())


def _frappe(public: Path, folder: Path) -> None:
    log = Frappe(public / "frappe")
    prepare(log, folder, split=log.split)


def _simulated(_: Path, folder: Path) -> None:
    prepare(SimulatedLog(LOG), folder, split=ByTime(valid=0.05, test=0.15))


def _small(_: Path, folder: Path) -> None:
    prepare(SimulatedLog(_SMALL_LOG), folder, split=ByTime(valid=0.1, test=0.2))


MOVIELENS = World(
    name="movielens-1m", task="liked", exclude=("title",), last_n=100, epochs=1, make=_movielens
)
# For comparisons with streams, where a run on all of it takes half an hour of a processor.
QUARTER = replace(MOVIELENS, name="movielens-1m/4", make=_quarter)
SIMULATED = World(
    name="simulated",
    task="click",
    exclude=("conversion", "shown", "match"),
    last_n=20,
    epochs=1,
    make=_simulated,
)
SMALL = replace(SIMULATED, name="small", epochs=1, make=_small)
FRAPPE = World(name="frappe", task="used", exclude=(), last_n=None, epochs=4, make=_frappe)
WORLDS = {world.name: world for world in (MOVIELENS, QUARTER, SIMULATED, FRAPPE, SMALL)}


@dataclass(frozen=True)
class Truth:
    """Of the test rows: true probabilities, labels, and what each planted effect adds to the true logit `[N, "
    "effects]`."""

    p_N: np.ndarray
    label_N: np.ndarray
    effects: tuple[str, ...]
    added_NE: np.ndarray


@cache
def truth_of(world: World, tests: int) -> Truth:
    """The simulated log once more, its last `tests` rows."""
    log = SimulatedLog(LOG if world is SIMULATED else _SMALL_LOG)
    p_N, label_N = (
        np.concatenate([getattr(rows, name) for rows in log.rows()])[-tests:] for name in ("p_click", "click")
    )
    parts = list(log.contributions("click"))
    names = tuple(parts[0])
    added_NE = np.stack([np.concatenate([part[name] for part in parts])[-tests:] for name in names], axis=1)
    return Truth(p_N, label_N, names, added_NE * np.array([getattr(EFFECTS, name) for name in names]))


def found_of_truth(truth: Truth, labels: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """The oracle's AUC, the share of the way from a half to it, and of each planted effect

    * `slope`: of the model's logit on what the effect adds to the true one, all effects at once. 1 is the true
      strength; a sure model has larger slopes, one that misses other effects smaller ones.
    * `lost`: how much of the AUC that is missing to the oracle comes back when the effect is given its true strength,
      `(auc(z + (1 - slope) c) - auc(z)) / (oracle - auc(z))`.
    """
    if not np.array_equal(truth.label_N.astype(np.float32), labels):
        raise RuntimeError("Expected the test rows to be the last of the log, got other labels.")
    centred_NE = truth.added_NE - truth.added_NE.mean(0)
    slopes, *_ = np.linalg.lstsq(centred_NE, logits - logits.mean(), rcond=None)
    oracle, own = oracle_metrics(labels, truth.p_N).auc, auc(labels, logits)
    found = {"oracle_auc": oracle, "gap": (own - 0.5) / (oracle - 0.5)}
    for at, (name, slope) in enumerate(zip(truth.effects, slopes, strict=True)):
        given = auc(labels, logits + (1 - slope) * truth.added_NE[:, at])
        found |= {f"slope {name}": float(slope), f"lost {name}": (given - own) / (oracle - own)}
    return found
