"""Rows of a simulated log as plain ids, for learners that know nothing of our data formats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data.simulate import Effects, SimulatedLog, SimulatorConfig
from fullrank.evaluation.oracle import OracleMetrics, oracle_metrics

KEYS = ("user", "segment", "hour", "device", "ad", "campaign", "advertiser", "category", "format", "position")
NUMBERS = ("age", "price", "match")
QUANTILES = 50  # of a number; missing is one more value
_OFTEN = ("segment", "hour", "device", "campaign", "category", "format", "position")
_WITH_KEYS = (("user", "category"), ("user", "format"), ("user", "device"), ("ad", "segment"), ("ad", "device"))
CROSSES = (*combinations(_OFTEN, 2), *_WITH_KEYS)
FEATURES = len(KEYS) + len(NUMBERS) + len(CROSSES)  # 39
# What a model without histories can learn; days are alike, so that any order of rows is as good as that of time.
CLICK = Effects(additive=0.6, match=0.8, fm=0.9, item_taste=0.3, time_of_day=0.2, position=0.35)


@dataclass(frozen=True, kw_only=True)
class SimulatedRows:
    """10 keys, 3 numbers cut into quantiles, and 26 crosses of two keys: 39 features, `rows_of_a_feature` rows each.

    Values are numbered from 1 by how often they come; where there are more than rows, the rarer ones share rows.
    """

    train: int
    valid: int
    rows_of_a_feature: int
    users: int = 40_000
    seed: int = 0

    def write(self, folder: Path) -> OracleMetrics:
        """`ids.npy` (int32 [N, F]), `labels.npy` (float32 [N]), `valid_ids.npy` and `valid_labels.npy`; what the true
        probabilities score on the validation rows, which are drawn from all."""
        folder.mkdir(parents=True)
        table = self._log()
        place = np.random.default_rng(self.seed).permutation(table.num_rows)
        valid, train = place[: self.valid], place[self.valid :]
        label = table["click"].to_numpy().astype(np.float32)
        ids_NF = np.stack([self._ids(codes) for codes in _values(table)], axis=1)
        for name, rows in (("", train), ("valid_", valid)):
            np.save(folder / f"{name}ids.npy", ids_NF[rows])
            np.save(folder / f"{name}labels.npy", label[rows])
        return oracle_metrics(label[valid], table["p_click"].to_numpy()[valid])

    def _log(self) -> pa.Table:
        config = SimulatorConfig(
            rows=self.train + self.valid,
            users=self.users,
            seed=self.seed,
            new_keys_per_day=0.0,
            drift=0.0,
            click=CLICK,
        )
        wanted = [*KEYS, *NUMBERS, "click", "p_click"]
        return pa.Table.from_batches([chunk.records.select(wanted) for chunk in SimulatedLog(config).chunks()])

    def _ids(self, codes_N: np.ndarray) -> np.ndarray:
        _, code_N, count = np.unique(codes_N, return_inverse=True, return_counts=True)
        rank = np.empty(len(count), dtype=np.int64)
        rank[np.argsort(-count, kind="stable")] = np.arange(len(count))
        return (1 + rank[code_N] % (self.rows_of_a_feature - 1)).astype(np.int32)


def _values(table: pa.Table) -> Iterator[np.ndarray]:
    """A code a row, int64, of every feature."""
    codes = {}
    for name in KEYS:
        column = table[name].combine_chunks().dictionary_encode()
        codes[name] = column.indices.to_numpy().astype(np.int64)
        yield codes[name]
    for name in NUMBERS:
        number_N = table[name].to_numpy().astype(np.float64)
        cuts = np.nanquantile(number_N, np.linspace(0, 1, QUANTILES + 1)[1:-1])
        yield np.where(np.isnan(number_N), QUANTILES, np.searchsorted(cuts, number_N))
    for one, other in CROSSES:
        yield codes[one] * (codes[other].max() + 1) + codes[other]
