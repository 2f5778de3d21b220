"""What prepared data are: rows, users, items, labels over time, what is missing, how much test differs from train.

Counts alone, of the blocks as they lie on disk, a block at a time; no key of any user, item or request is in a profile.
Suffix: n owners.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from fullrank.data.columns import Columns, EncodedBlock, Ragged, array
from fullrank.data.id_map import MISSING_ID, IdMap
from fullrank.data.pack import known_labels
from fullrank.data.partitions import PreparedData
from fullrank.schema import Feature

if TYPE_CHECKING:
    from fullrank.data.transform import Transform

DAY = 86_400_000_000  # µs
SAMPLE = 200_000  # values kept of a numeric feature and split
BINS = 10
TOP = 50
IDENTITIES = ("user", "request", "impression")  # key spaces that always change


@dataclass(frozen=True, kw_only=True)
class SplitProfile:
    """Rows, requests and distinct users and items of a split; `new_user_rows`, `new_item_rows`: of its rows that
    have a user or item, the share whose key no training row has (nan where the log has no such role)."""

    split: str
    rows: int
    requests: int
    users: int
    items: int
    new_user_rows: float
    new_item_rows: float


@dataclass(frozen=True, kw_only=True)
class LabelProfile:
    """A task on a split: rows whose label counts at the data's `as_of`, the others, and the mean label of the first."""

    split: str
    task: str
    known: int
    unknown: int
    mean: float


@dataclass(frozen=True, kw_only=True)
class FeatureProfile:
    """A feature. `values`: keys of its key space (0 where it has none). `missing`, `unknown`: the shares of training
    owners (rows or requests) without a value, and with a key that has no id of its own (multi: of the values). `drift`:
    the population stability index from train to test, nan where there is nothing to compare (see `stability_index`)."""

    name: str
    kind: str
    of: str
    values: int
    missing: float
    unknown: float
    drift: float


@dataclass(frozen=True)
class DataProfile:
    """`day_D` are days since 1970 (empty without a clock), with `rows_D`, and `known_D`, `mean_D` by task (nan on days
    without a known label)."""

    splits: tuple[SplitProfile, ...]
    labels: tuple[LabelProfile, ...]
    features: tuple[FeatureProfile, ...]
    day_D: np.ndarray
    rows_D: np.ndarray
    known_D: dict[str, np.ndarray]
    mean_D: dict[str, np.ndarray]


def stability_index(train: np.ndarray, test: np.ndarray) -> float:
    """``PSI = Σ_b (q_b - p_b) ln(q_b / p_b)`` of two histograms over the same bins; 0 for equal shares.

    Half a count is added to every bin of both, so that an empty one gives no infinity (our choice). Below 0.1 it is
    customarily read as stable and above 0.25 as changed; with few rows chance alone gives about
    (bins - 1) (1/n_train + 1/n_test). nan where one has no count.
    """
    if not train.sum() or not test.sum():
        return float("nan")
    p, q = (counts + 0.5 for counts in (train.astype(np.float64), test.astype(np.float64)))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def compute_profile(data: PreparedData, transform: Transform | None = None) -> DataProfile:
    """One pass over all blocks of all splits; keys are those that `transform` knows (a run's; the newest if None).

    Memory: a block, 16 bytes a row of the largest key space and feature, and
    8 bytes a distinct user and item."""
    id_maps = (transform or data.transform).id_maps
    features = [_Tally(feature, id_maps) for feature in data.schema.all_features() if feature.kind != "text"]
    tasks = tuple(task.name for task in data.schema.tasks)
    splits = sorted({name for p in data.manifest.partitions for name in p.splits}, key=_order)
    days: dict[int, np.ndarray] = {}
    split_profiles, labels = [], []
    seen: dict[str, dict[str, np.ndarray]] = {}
    for split in splits:
        keys = {"user": _Distinct(), "item": _Distinct()}
        requests = 0
        known_K, sum_K, rows = np.zeros(len(tasks), np.int64), np.zeros(len(tasks)), 0
        total = max(1, data.num_rows(split))
        for ref in data.blocks(split):
            block = data.read_all(ref)
            rows, requests = rows + block.num_rows, requests + block.num_requests
            for tally in features:
                tally.add(split, block, total)
            keys["user"].add(_codes(block, "@user"))
            keys["item"].add(_codes(block, "@item"))
            values_BK, known_BK = _labels(block, data, tasks)
            known_K += known_BK.sum(0)
            sum_K += values_BK.sum(0)
            if data.schema.roles.time:
                _add_days(days, array(block.rows, "@time") // DAY, values_BK, known_BK)
        seen[split] = {name: distinct.codes() for name, distinct in keys.items()}
        split_profiles.append(_split_profile(split, rows, requests, keys, seen))
        labels += [
            LabelProfile(split=split, task=task, known=known, unknown=rows - known, mean=_ratio(total, known))
            for task, known, total in zip(tasks, known_K.tolist(), sum_K.tolist(), strict=True)
        ]
    order = sorted(days)
    table = np.array([days[day] for day in order]).reshape(len(order), 1 + 2 * len(tasks))
    known_D = {task: table[:, 1 + 2 * k].astype(np.int64) for k, task in enumerate(tasks)}
    with np.errstate(invalid="ignore"):
        mean_D = {task: table[:, 2 + 2 * k] / table[:, 1 + 2 * k] for k, task in enumerate(tasks)}
    return DataProfile(
        splits=tuple(split_profiles),
        labels=tuple(labels),
        features=tuple(tally.profile() for tally in features),
        day_D=np.array(order, dtype=np.int64),
        rows_D=table[:, 0].astype(np.int64),
        known_D=known_D,
        mean_D=mean_D,
    )


def _order(split: str) -> tuple[int, str]:
    """Train first: the others are compared with it."""
    usual = ("train", "valid", "test")
    return (usual.index(split) if split in usual else len(usual), split)


def _codes(block: EncodedBlock, name: str) -> np.ndarray:
    """A code a row; empty where the log has no such role."""
    if name in block.requests:
        return array(block.requests, name)[array(block.rows, "@request")]
    return array(block.rows, name) if name in block.rows else np.empty(0, np.uint64)


def _labels(block: EncodedBlock, data: PreparedData, tasks: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    known_BK = known_labels(block.rows, block.num_rows, tasks, as_of=data.as_of, windows=data.windows)
    values_BK = np.stack([array(block.rows, f"@label.{task}") for task in tasks], axis=1) if tasks else known_BK
    return np.where(known_BK, values_BK, 0.0), known_BK


def _add_days(days: dict[int, np.ndarray], day_B: np.ndarray, values_BK: np.ndarray, known_BK: np.ndarray) -> None:
    unique, of_row = np.unique(day_B, return_inverse=True)
    columns = [np.bincount(of_row, minlength=len(unique))]
    for k in range(known_BK.shape[1]):
        columns.append(np.bincount(of_row, known_BK[:, k], minlength=len(unique)))
        columns.append(np.bincount(of_row, values_BK[:, k], minlength=len(unique)))
    for day, line in zip(unique.tolist(), np.stack(columns, axis=1), strict=True):
        days[day] = days.get(day, 0) + line


class _Distinct:
    """Distinct codes and the rows of each."""

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, codes: np.ndarray) -> None:
        self._parts.append(np.unique(codes[codes != 0], return_counts=True))
        if len(self._parts) > 16:
            self._merge()

    def _merge(self) -> None:
        codes = np.concatenate([np.empty(0, np.uint64), *(codes for codes, _ in self._parts)])
        counts = np.concatenate([np.empty(0, np.int64), *(counts for _, counts in self._parts)])
        unique, of = np.unique(codes, return_inverse=True)
        self._parts = [(unique, np.bincount(of, counts, minlength=len(unique)).astype(np.int64))]

    def codes(self) -> np.ndarray:
        self._merge()
        return self._parts[0][0]

    def share_outside(self, known: np.ndarray) -> float:
        """The share of rows whose code is not among `known`; nan without rows."""
        self._merge()
        codes, counts = self._parts[0]
        return _ratio(counts[~np.isin(codes, known, assume_unique=True)].sum(), counts.sum())


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _split_profile(
    split: str, rows: int, requests: int, keys: dict[str, _Distinct], seen: dict[str, dict[str, np.ndarray]]
) -> SplitProfile:
    train = seen.get("train", {"user": np.empty(0, np.uint64), "item": np.empty(0, np.uint64)})
    return SplitProfile(
        split=split,
        rows=rows,
        requests=requests,
        users=len(seen[split]["user"]),
        items=len(seen[split]["item"]),
        new_user_rows=keys["user"].share_outside(train["user"]),
        new_item_rows=keys["item"].share_outside(train["item"]),
    )


@dataclass
class _Counts:
    """What was counted of a feature in one split."""

    owners: int = 0
    missing: int = 0
    unknown: int = 0
    of_id: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    sample: list[np.ndarray] = field(default_factory=list)


class _Tally:
    """One feature over all splits."""

    def __init__(self, feature: Feature, id_maps: Mapping[str, IdMap]) -> None:
        self.feature = feature
        self.map = id_maps[feature.key_space] if feature.key_space else None
        self.splits: dict[str, _Counts] = {}

    def add(self, split: str, block: EncodedBlock, total_rows: int) -> None:
        columns: Columns = block.requests if self.feature.of in ("user", "context") else block.rows
        if self.feature.name not in columns:
            return
        counts = self.splits.setdefault(split, _Counts())
        column = columns[self.feature.name]
        counts.owners += len(column)
        if isinstance(column, Ragged):
            counts.missing += int((np.diff(column.offsets) == 0).sum())
            self._add_ids(counts, column.values)
        elif self.map is not None:
            counts.missing += int((column == MISSING_ID).sum())
            self._add_ids(counts, column)
        else:
            absent_n = np.isnan(column if column.ndim == 1 else column[:, 0])
            counts.missing += int(absent_n.sum())
            if column.ndim == 1:
                counts.sample.append(column[:: max(1, total_rows // SAMPLE)].astype(np.float32))

    def _add_ids(self, counts: _Counts, ids: np.ndarray) -> None:
        assert self.map is not None
        found = np.bincount(ids, minlength=max(len(counts.of_id), self.map.num_rows))
        found[: len(counts.of_id)] += counts.of_id
        counts.of_id = found
        if self.map.space.policy != "hashed":
            counts.unknown += int(((ids > MISSING_ID) & (ids < self.map.first_key_id)).sum())

    def profile(self) -> FeatureProfile:
        train = self.splits.get("train", _Counts())
        values = train.of_id.sum() or train.owners
        return FeatureProfile(
            name=self.feature.name,
            kind=self.feature.kind,
            of=self.feature.of,
            values=0 if self.map is None else self.map.num_rows - self.map.first_key_id,
            missing=_ratio(train.missing, train.owners),
            unknown=_ratio(train.unknown, values),
            drift=self._drift(train, self.splits.get("test", _Counts())),
        )

    def _drift(self, train: _Counts, test: _Counts) -> float:
        if not train.owners or not test.owners or self.feature.key_space in IDENTITIES:
            return float("nan")
        if self.map is not None:
            own = 0 if self.map.space.policy == "hashed" else self.map.first_key_id
            top = own + np.argsort(-train.of_id[own:], kind="stable")[:TOP]
            return stability_index(*(_shares(counts.of_id, own, top) for counts in (train, test)))
        if not train.sample:
            return float("nan")
        samples = [np.concatenate(counts.sample) for counts in (train, test)]
        present = samples[0][~np.isnan(samples[0])]
        edges = np.unique(np.quantile(present, np.linspace(0, 1, BINS + 1)[1:-1])) if len(present) else np.empty(0)
        bins = [np.where(np.isnan(s), len(edges) + 1, np.searchsorted(edges, s, side="right")) for s in samples]
        return stability_index(*(np.bincount(b, minlength=len(edges) + 2) for b in bins))


def _shares(of_id: np.ndarray, own: int, top: np.ndarray) -> np.ndarray:
    """Counts of the commonest training keys, of missing, of unknown keys, and of all others."""
    missing, unknown = of_id[: min(own, MISSING_ID + 1)].sum(), of_id[MISSING_ID + 1 : own].sum()
    return np.array([*of_id[top], missing, unknown, of_id.sum() - of_id[top].sum() - missing - unknown])
