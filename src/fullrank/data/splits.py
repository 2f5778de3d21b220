"""Which rows train, validate and test. A request belongs wholly to one split: that of its first row (our choice).

    GivenFiles      the files say so
    ByTime          one cut in time for everybody: nothing of the test period is in training
    PerUserOrder    the last rows of every user: for a closed log, where every test user is known
    ByHash          a share of the keys (users, requests, items): the same key is on the same side in every append
    AllTrain        everything trains: what a daily append usually is

A global cut leaves users in the test split that training never saw; per-user order leaves the future of one user in
the training rows of another. Say which you used beside every number.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fullrank.data.columns import DataError
from fullrank.data.flat import pieces
from fullrank.data.keys import splitmix64
from fullrank.schema import Schema, did_you_mean

SPLITS = ("train", "valid", "test")
KEY_ROLES = {"user": "@user", "request": "@request", "impression": "@impression", "scenario": "@scenario"}
_SALT = np.uint64(0x66756C6C72616E6B)  # a split must not follow the hash that buckets and shards are made of


def _shares(valid: float, test: float) -> None:
    if not (0.0 <= valid < 1.0 and 0.0 <= test < 1.0 and valid + test < 1.0):
        raise DataError(
            f"Expected shares 0 <= valid, test and valid + test < 1, got valid={valid}, test={test}."
        )


@dataclass(frozen=True, kw_only=True)
class GivenFiles:
    """The source names the split of each file ("train", "valid" or "test")."""


@dataclass(frozen=True, kw_only=True)
class AllTrain:
    """Every row trains."""


@dataclass(frozen=True, kw_only=True)
class ByTime:
    """Rows later than one moment validate, later than another test; equal times are never parted.

    Both floats: the shares of rows, cut at the exact quantile of request time (a request later than the
    `ceil(n (1 - test))`-th of n rows in time order tests; ties go to the earlier split). Both moments: where
    validation and test begin; an int is in the data's own unit (µs since 1970 UTC, or a position), a str is an ISO
    date or time (UTC if it has no zone).
    """

    valid: float | int | str = 0.1
    test: float | int | str = 0.1

    def __post_init__(self) -> None:
        if isinstance(self.valid, float) != isinstance(self.test, float):
            raise DataError(
                f"Expected two shares or two moments, got valid={self.valid!r}, test={self.test!r}."
            )
        if isinstance(self.valid, float) and isinstance(self.test, float):
            _shares(self.valid, self.test)
        elif _moment(self.valid) > _moment(self.test):
            raise DataError(
                f"Expected validation to begin before the test, got {self.valid!r} and {self.test!r}."
            )


@dataclass(frozen=True, kw_only=True)
class PerUserOrder:
    """Of each user's n rows in the order (request time, row) the last `floor(n test)` test, the `floor(n valid)`
    before them validate. Rows without a user train. The data cannot be appended to: an append would move the cuts."""

    valid: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        _shares(self.valid, self.test)


@dataclass(frozen=True, kw_only=True)
class ByHash:
    """A key is drawn uniformly from [0, 1) by its hash; below `test` it tests, below `test + valid` it validates.

    `key` is a role (user, request, impression, scenario) or a categorical feature. Rows where it is missing train.
    """

    key: str = "user"
    valid: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        _shares(self.valid, self.test)

    def column(self, schema: Schema) -> str:
        """The normalised column the key is in; an error names the nearest one."""
        roles = schema.roles.columns()
        features = [f.name for f in schema.all_features() if f.kind == "categorical"]
        choices = list(dict.fromkeys([role for role in KEY_ROLES if role in roles] + features))
        if self.key not in choices:
            near = did_you_mean(self.key, choices)
            raise DataError(f"Expected a hash split on one of {choices}, got {self.key!r}.{near}")
        return KEY_ROLES.get(self.key, self.key)


Split = GivenFiles | AllTrain | ByTime | PerUserOrder | ByHash
_KINDS = {kind.__name__: kind for kind in (GivenFiles, AllTrain, ByTime, PerUserOrder, ByHash)}


def to_json(split: Split) -> dict[str, Any]:
    return {"kind": type(split).__name__, **asdict(split)}


def from_json(value: dict[str, Any]) -> Split:
    return _KINDS[value["kind"]](**{name: v for name, v in value.items() if name != "kind"})


def per_user_order(split: PerUserOrder, user: np.ndarray, order: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Split of each row (uint8), given all rows of some users.

    `order`: indices that sort rows by (user, request time, row), requests together; `first[i]`: index of the first
    row of row i's request. The first row's rank among its user's rows decides.
    """
    sorted_user = user[order]
    start = np.flatnonzero(np.concatenate([[True], sorted_user[1:] != sorted_user[:-1]]))
    count = np.diff(np.append(start, len(user)))
    rank = np.arange(len(user)) - np.repeat(start, count)
    num_test = np.repeat(np.floor(count * split.test + 1e-9), count)
    num_valid = np.repeat(np.floor(count * split.valid + 1e-9), count)
    left = np.repeat(count, count) - rank  # rows from here to the user's last
    decided = np.where(left <= num_test, 2, np.where(left <= num_test + num_valid, 1, 0)).astype(np.uint8)
    decided[sorted_user == 0] = 0
    by_row = np.empty_like(decided)
    by_row[order] = decided
    return by_row[first]


def by_time(split: ByTime, scratch: Callable[[], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A function from request times to splits. `scratch()` gives a writable copy of all rows' (in a file)."""
    if isinstance(split.valid, float) and isinstance(split.test, float):
        times = scratch()
        n = len(times)
        rank_valid = max(int(np.ceil(n * (1.0 - split.valid - split.test) - 1e-6)), 1) - 1
        rank_test = max(int(np.ceil(n * (1.0 - split.test) - 1e-6)), 1) - 1
        times.partition((rank_valid, rank_test))  # in place, so in the file
        last_train, last_valid = int(times[rank_valid]), int(times[rank_test])
    else:
        last_train, last_valid = _moment(split.valid) - 1, _moment(split.test) - 1
    return lambda time: ((time > last_train).astype(np.uint8) + (time > last_valid)).astype(np.uint8)


def by_hash(split: ByHash, codes: np.ndarray) -> np.ndarray:
    """Split of each key code."""
    drawn = (splitmix64(codes ^ _SALT) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    decided = np.where(drawn < split.test, 2, np.where(drawn < split.test + split.valid, 1, 0)).astype(
        np.uint8
    )
    decided[codes == 0] = 0
    return decided


def counts(split: np.ndarray) -> dict[str, int]:
    """Rows of each split."""
    total = np.zeros(len(SPLITS), dtype=np.int64)
    for piece in pieces(len(split)):
        total += np.bincount(split[piece], minlength=len(SPLITS))
    return {name: int(total[place]) for place, name in enumerate(SPLITS)}


def _moment(value: float | int | str) -> int:
    if not isinstance(value, str):
        return int(value)
    try:
        moment = datetime.datetime.fromisoformat(value)
    except ValueError:
        raise DataError(f"Expected an ISO date or time such as '2024-05-31', got {value!r}.") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return (moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)) // datetime.timedelta(microseconds=1)
