"""Key columns of a log as codes, and which of them `--hash-ids` hides."""

from __future__ import annotations

import numpy as np

from fullrank.data.columns import Columns, Ragged
from fullrank.data.keys import BadKey, Keys, codes_of_array
from fullrank.data.normalise_cells import Cells, Reader
from fullrank.data.normalise_values import multi_weights
from fullrank.data.normalised import codes_of
from fullrank.schema import Feature, Schema


def secret_of(schema: Schema, column: str, key_space: str, hash_key: bytes | None) -> bytes | None:
    """The hash key for a column, or None: only what identifies a person or an impression is hashed, that is the roles
    user, request and impression, whatever other feature reads their columns, and all of key space `user`."""
    identity = (schema.roles.user, schema.roles.request, schema.roles.impression)
    return hash_key if key_space == "user" or column in identity else None


def keys_of(cells: Cells, hash_key: bytes | None) -> Keys:
    """The keys of a column (of a list column: of all its values)."""
    try:
        return codes_of_array(cells.array, hash_key)
    except BadKey as error:
        if error.row < 0:
            raise cells.wrong_type(error.expected) from None
        raise cells.error(error.row, error.expected) from None


def multi(reader: Reader, feature: Feature, hash_key: bytes | None) -> tuple[Columns, Keys]:
    """The codes of a multi feature, their weights if it has any, and its keys.

    A null list is an empty one, and a null inside a list is no value: it is dropped, with its weight (our choice).
    """
    todo = "Of texts, JSON arrays are lists, and values with '|' between them: split others first."
    cells, offsets = reader.lists(feature.column, f"feature {feature.name!r}", todo)
    keys = keys_of(cells, hash_key)
    kept = keys.codes != 0
    columns: Columns = {feature.name: Ragged(keys.codes, offsets)}
    if feature.weights:
        columns[f"{feature.name}@weights"] = multi_weights(reader, feature, offsets, kept)
    if kept.all():
        return columns, keys
    before = np.concatenate([[0], np.cumsum(kept)])
    offsets = before[offsets]
    columns = {name: Ragged(codes_of(column)[kept], offsets) for name, column in columns.items()}
    return columns, Keys(codes_of(columns[feature.name]), keys.entries)
