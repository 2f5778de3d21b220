"""Normalised columns → encoded columns: codes to ids, numbers through their scalers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fullrank.data.columns import Columns, Ragged
from fullrank.data.id_map import IdMap
from fullrank.data.keys import MISSING
from fullrank.data.scalers import Scalers
from fullrank.schema import Feature, History


def encode_feature(
    feature: Feature, columns: Columns, index: np.ndarray | None, id_maps: Mapping[str, IdMap], scalers: Scalers
) -> Columns:
    """The encoded column of a feature, and `name@weights`, of the rows `index` (all if None).

    A key of a hashed space with k > 1 hashes becomes k ids side by side: a list for a categorical feature, k times as
    many values (each weight k times) for a multi one.
    """
    name = feature.name
    column = columns[name] if index is None else take_rows(columns[name], index)
    if feature.kind == "numeric":
        assert isinstance(column, np.ndarray)
        return {name: scalers.apply(name, column)}
    if feature.kind == "vector":
        return {name: column}
    id_map = id_maps[feature.key_space]
    k = id_map.space.hashes
    if isinstance(column, np.ndarray):
        if k == 1:
            return {name: id_map.ids(column)}
        return {name: Ragged(id_map.ids_k(column).ravel(), np.arange(len(column) + 1, dtype=np.int64) * k)}
    ids = id_map.ids(column.values) if k == 1 else id_map.ids_k(column.values).ravel()
    encoded: Columns = {name: Ragged(ids, column.offsets * k)}
    if feature.weights:
        weights = columns[f"{name}@weights"]
        weights = weights if index is None else take_rows(weights, index)
        assert isinstance(weights, Ragged)
        encoded[f"{name}@weights"] = Ragged(np.repeat(weights.values, k), column.offsets * k)
    return encoded


def encode_events(
    history: History, columns: Mapping[str, np.ndarray], id_maps: Mapping[str, IdMap], scalers: Scalers
) -> dict[str, np.ndarray]:
    """Event columns by their names in an event store, from normalised ones under the same names. Codes stay beside
    their ids: `@item`, `FEATURE@code` (the store keeps those of `event_writer.code_columns`)."""
    encoded = {**columns, "@item": columns["item"]}
    encoded["item"] = id_maps[history.key_space].ids(columns["item"])
    for feature in history.features:
        if feature.kind == "numeric":
            encoded[feature.name] = scalers.apply(f"@history.{history.name}.{feature.name}", columns[feature.name])
        else:
            encoded[f"{feature.name}@code"] = columns[feature.name]
            encoded[feature.name] = id_maps[feature.key_space].ids(columns[feature.name])
    return encoded


def encode_again(
    columns: Mapping[str, np.ndarray],
    code_columns: Mapping[str, tuple[str, str]],
    id_maps: Mapping[str, IdMap],
) -> None:
    """Ids of events written earlier, in place, as these maps give them; `code_columns`: see `event_writer`.

    Where there is no code the id stays: it is that of a missing key, or of a forgotten one.
    """
    for name, (code, space) in code_columns.items():
        known = columns[code] != MISSING
        columns[name][known] = id_maps[space].ids(columns[code][known])


def take_rows(column: np.ndarray | Ragged, index: np.ndarray) -> np.ndarray | Ragged:
    """The entries `index` of a column of either kind."""
    return column.take(index) if isinstance(column, Ragged) else column[index]
