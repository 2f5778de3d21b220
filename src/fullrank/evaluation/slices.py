"""Which rows belong together: a split cut by day, by what the run knows of the user, by any column.

What can be asked for: `day` (UTC date of the row's time), `cold_user` and `cold_item` (whether the run could have
learned the key), `history.NAME` (how many past events the request has), a role (`scenario`, `position`, `campaign`, …),
or any categorical or numeric feature. A feature hides what else has its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from fullrank.data.columns import DataError, array
from fullrank.data.keys import MISSING, codes_of_array, inverse_splitmix64
from fullrank.data.profile import DAY, IDENTITIES
from fullrank.evaluation.row_columns import row_columns
from fullrank.schema import did_you_mean

if TYPE_CHECKING:
    from fullrank.data.partitions import PreparedData
    from fullrank.data.scalers import Scaler
    from fullrank.data.transform import Transform
    from fullrank.schema import Feature

CODE_ROLES = ("scenario", "campaign", "advertiser")
NUMBER_ROLES = ("position", "price", "bid", "propensity", "exploration", "weight", "sample_rate")
_COLD = ("known", "cold: no id of its own", "cold: never in train", "missing")
_LENGTHS = (1, 4, 16, 64, 256, 1024)  # a slice of histories begins at each; powers of four are our choice
_FEW_NUMBERS = 10
_SMALL = 2**32  # a text's code is below this by a chance of 2^-31: such a code is that of an integer key


@dataclass(frozen=True)
class SliceSource:
    """A split as a run sees it: `data` pinned to the run's version, the run's `transform`, and the data it was
    `trained` on."""

    data: PreparedData
    split: str
    transform: Transform
    trained: PreparedData


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How values of a column become slices; it holds for other rows of the column too, and can be stored.

    Slice i has the rows whose column equals `values[i]`, or, where there are `edges`, those with
    ``edges[i - 1] <= x < edges[i]`` (one more name than edges). Rows of no slice are called `rest`.
    """

    by: str
    names: tuple[str, ...]
    values: tuple[int | float, ...] = ()
    edges: tuple[float, ...] = ()
    rest: str = "other"

    def slice_of(self, column_N: np.ndarray) -> np.ndarray:
        """The number of each row's slice, int32; -1 where it is in none."""
        if self.edges:
            slice_N = np.searchsorted(self.edges, column_N, side="right").astype(np.int32)
            slice_N[np.isnan(column_N)] = -1
            return slice_N
        if not self.values:
            return np.full(len(column_N), -1, dtype=np.int32)
        values = np.array(self.values, dtype=column_N.dtype)
        order = np.argsort(values)
        place = np.minimum(np.searchsorted(values[order], column_N), len(values) - 1)
        return np.where(values[order][place] == column_N, order[place], -1).astype(np.int32)


def cut_rows(source: SliceSource, by: str, *, top: int = 10, bins: int = 5) -> tuple[Cut, np.ndarray]:
    """The slices of a split by `by`, and each row's slice number.

    Keys: the `top` values with most rows, named by the key's text where the id map has it and the key space is not one
    of identity (user, request, impression); the other rows are in none. Numbers: each value is a slice if there are
    at most ten, else `bins` of equal row count, named in the unit of the log. Days and lengths: all of them.

    A value the run has no id for is named as the run sees it, an unknown key.
    """
    column_N = slice_column(source, by)
    if by.startswith("history.") and by not in _features(source):
        longest = source.data.schema.history(by.removeprefix("history.")).max_length
        edges = [edge for edge in _LENGTHS if edge <= longest]
        between = [f"{low}–{high - 1}" for low, high in pairwise(edges)]
        cut = Cut(by=by, names=("0", *between, f"{edges[-1]}+"), edges=tuple(map(float, edges)))
    elif column_N.dtype.kind == "f":
        cut = _cut_numbers(source, by, column_N, bins)
    else:
        values, counts = np.unique(column_N, return_counts=True)
        if by not in _DERIVED or by in _features(source):
            values = values[np.argsort(-counts, kind="stable")[:top]]
        cut = Cut(by=by, names=tuple(_names(source, by, values)), values=tuple(values.tolist()))
    return cut, cut.slice_of(column_N)


def slice_column(source: SliceSource, by: str) -> np.ndarray:
    """The column that `by` cuts, one entry a row: ids, codes or counted things as integers, numbers as floats."""
    data, split, schema = source.data, source.split, source.data.schema
    features, roles = _features(source), schema.roles.columns()
    if by in features:
        if features[by].kind not in ("categorical", "numeric"):
            raise DataError(
                f"Feature {by!r} is {features[by].kind}: slices are cut by categorical and numeric features."
            )
        return row_columns(data, split, [by])[by]
    if by in _DERIVED:
        role, column, _ = _DERIVED[by]
        if role not in roles:
            raise DataError(f"Slices by {by!r} need the role {role!r}, which this log has not.")
        column_N = row_columns(data, split, [column])[column]
        return column_N // DAY if by == "day" else _coldness(source, role, column, column_N)
    if by.startswith("history."):
        name = f"@history.{schema.history(by.removeprefix('history.')).name}.length"
        return row_columns(data, split, [name])[name].astype(np.float64)
    if by in roles and by in (*CODE_ROLES, *NUMBER_ROLES):
        return row_columns(data, split, [f"@{by}"])[f"@{by}"]
    known = [name for name, feature in features.items() if feature.kind in ("categorical", "numeric")]
    known += [name for name, (role, _, _) in _DERIVED.items() if role in roles]
    known += [f"history.{history.name}" for history in schema.histories]
    known += [role for role in roles if role in (*CODE_ROLES, *NUMBER_ROLES)]
    known = list(dict.fromkeys(known))  # a role's column may be a feature of the same name too
    raise DataError(f"Expected slices by one of {known}, got {by!r}.{did_you_mean(by, known)}")


_DERIVED = {  # name -> role it needs, column it reads, what it is
    "day": ("time", "@time", "UTC date of the row"),
    "cold_user": ("user", "@user", "what the run knows of the user"),
    "cold_item": ("item", "@item", "what the run knows of the item"),
}


def _features(source: SliceSource) -> dict[str, Feature]:
    return {feature.name: feature for feature in source.data.schema.all_features()}


def _coldness(source: SliceSource, role: str, column: str, code_N: np.ndarray) -> np.ndarray:
    """The number of `_COLD` that holds for each row: a key without a training row of the run is cold, and so is one
    that has some but no id of its own (rarer than `min_count`, or evicted), which the model cannot tell from others."""
    id_map = source.transform.id_maps[role]
    hashed = id_map.space.policy == "hashed"
    codes, inverse = np.unique(code_N, return_inverse=True)
    own = np.full(len(codes), True) if hashed else id_map.ids(codes) >= id_map.first_key_id
    trained = np.zeros(len(codes), dtype=bool)
    for block in source.trained.blocks("train"):
        partition = source.trained.partitions[block.partition]
        part = "rows" if column == "@item" else "requests"
        there = array(partition.columns(block, part, [column]), column)
        trained |= np.isin(codes, np.unique(there), assume_unique=True)
    cold = np.where(trained, np.where(own, 0, 1), 2)
    cold[codes == MISSING] = 3
    return cold[inverse]


def _cut_numbers(source: SliceSource, by: str, column_N: np.ndarray, bins: int) -> Cut:
    there = column_N[~np.isnan(column_N)]
    values = np.unique(there)
    scaler = source.transform.scalers.by_name[by] if by in _features(source) else None
    if len(values) <= _FEW_NUMBERS:
        names = tuple(_texts(_unscaled(scaler, values)))
        return Cut(by=by, names=names, values=tuple(values.astype(float).tolist()), rest="missing")
    # the least value is no edge: nothing is below it
    edges = np.unique(np.quantile(there, np.linspace(0.0, 1.0, bins + 1)[1:-1], method="higher"))
    edges = edges[edges > values[0]]
    if not len(edges):  # one value has nearly all rows
        edges = values[1:2]
    texts = _texts(_unscaled(scaler, edges))
    between = [f"{low} – {high}" for low, high in pairwise(texts)]
    names = (f"< {texts[0]}", *between, f"≥ {texts[-1]}")
    return Cut(by=by, names=names, edges=tuple(edges.astype(float).tolist()), rest="missing")


def _texts(values: np.ndarray) -> list[str]:
    """Numbers with four digits, or as many as tell them apart."""
    texts: list[str] = []
    for digits in (4, 6, 9, 17):
        texts = [f"{value:.{digits}g}" for value in values]
        if len(set(texts)) == len(texts):
            break
    return texts


def _unscaled(scaler: Scaler | None, values: np.ndarray) -> np.ndarray:
    """What the log had where a scaled column has `values`: the inverse of `Scaler.apply`."""
    values = values.astype(np.float64)
    if scaler is None or scaler.scale == "none":
        return values
    if scaler.scale == "quantile":
        return np.interp(values, scaler.levels, scaler.values) if scaler.values else values
    values = values * scaler.sd + scaler.mean
    return np.sign(values) * np.expm1(np.abs(values)) if scaler.scale == "log" else values


def _names(source: SliceSource, by: str, values: np.ndarray) -> list[str]:
    """A slice's name for each value of a column of ids, codes, days or coldness."""
    features, roles = _features(source), source.data.schema.roles
    if by in features:
        feature = features[by]
        id_map = source.transform.id_maps[feature.key_space]
        names = [id_map.key_of_id(int(value)) for value in values]
        if feature.key_space in _spaces_of_identity(source):
            own = values >= id_map.first_key_id  # whose it is, is not printed; [missing] and [unknown] are nobody's
            return [f"key {n + 1}" if own[n] else name for n, name in enumerate(names)]
        return names
    if by == "day":
        return [str(day) for day in values.astype("datetime64[D]")]
    if by in _DERIVED:
        return [_COLD[value] for value in values]
    return _names_of_codes(source, roles.columns()[by], values)


def _spaces_of_identity(source: SliceSource) -> set[str]:
    """The key spaces that hold keys of users, requests or impressions: those of these names, and of their columns."""
    roles = source.data.schema.roles
    columns = {roles.user, roles.request, roles.impression}
    return {*IDENTITIES, *(f.key_space for f in source.data.schema.all_features() if f.column in columns)}


def _names_of_codes(source: SliceSource, column: str, codes: np.ndarray) -> list[str]:
    """The keys of a role that has codes and no ids: told by a feature that reads the same column or by the tasks'
    scenarios; an integer key follows from its code; else the code itself."""
    known: dict[int, str] = {int(MISSING): "missing"}
    import pyarrow as pa

    texts = [scenario for task in source.data.schema.tasks for scenario in task.scenarios]
    known |= dict(zip(codes_of_array(pa.array(texts, pa.string())).codes.tolist(), texts, strict=True))
    private = _spaces_of_identity(source)
    for feature in source.data.schema.all_features():
        if feature.column == column and feature.kind == "categorical" and feature.key_space not in private:
            id_map = source.transform.id_maps[feature.key_space]
            if id_map.space.policy != "hashed":
                ids = id_map.ids(codes)
                own = ids >= id_map.first_key_id
                keys = [id_map.key_of_id(int(id)) for id in ids[own]]
                known |= dict(zip(codes[own].tolist(), keys, strict=True))
    numbers = inverse_splitmix64(codes).view(np.int64)
    whole = {int(code): str(number) for code, number in zip(codes, numbers, strict=True) if abs(int(number)) < _SMALL}
    return [(whole | known).get(int(code), f"key {int(code):016x}") for code in codes]
