"""Which values of a batch the model knew: missing ones, keys that were never met in training, and the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fullrank.data.batch import Bag, FeatureBlock
from fullrank.data.id_map import FIRST_UNKNOWN_ID, MISSING_ID, IdMap
from fullrank.data.inputs import Field


@dataclass(frozen=True)
class FieldState:
    """Of n owners: where the field is missing, and where it holds a key the run has no row of its own for. A bag is
    missing where it is empty, and unknown where it holds nothing else; keys of a hashed space are never unknown."""

    missing_n: np.ndarray
    unknown_n: np.ndarray

    @property
    def known_n(self) -> np.ndarray:
        return ~(self.missing_n | self.unknown_n)


def field_states(
    block: FeatureBlock, fields: tuple[Field, ...], id_maps: Mapping[str, IdMap]
) -> dict[str, FieldState]:
    """The state of every field of a block that was packed with `fields`, by name."""
    places = {"categorical": 0, "numeric": 0, "multi": 0, "vector": 0}
    found = {}
    for field in fields:
        place = places[field.kind]
        places[field.kind] += 1
        none = np.zeros(block.num_owners, dtype=bool)
        if field.kind == "categorical":
            ids = block.ids_nF[:, place].numpy()
            found[field.name] = FieldState(ids <= MISSING_ID, _unknown(ids, id_maps[field.key_space]))
        elif field.kind == "numeric":
            found[field.name] = FieldState(block.numbers_nF[:, place].isnan().numpy(), none)
        elif field.kind == "vector":
            found[field.name] = FieldState(block.vectors_nD[place].isnan().any(1).numpy(), none)
        else:
            found[field.name] = _of_bag(block.bags[place], id_maps[field.key_space])
    return found


def _of_bag(bag: Bag, id_map: IdMap) -> FieldState:
    ids, offsets = bag.ids_N.numpy(), bag.offsets.numpy()
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    there = np.bincount(owner, ids > MISSING_ID, len(offsets) - 1)
    known = np.bincount(owner, (ids > MISSING_ID) & ~_unknown(ids, id_map), len(offsets) - 1)
    return FieldState(there == 0, (there > 0) & (known == 0))


def _unknown(ids: np.ndarray, id_map: IdMap) -> np.ndarray:
    if id_map.space.policy == "hashed":
        return np.zeros(len(ids), dtype=bool)
    return (ids >= FIRST_UNKNOWN_ID) & (ids < id_map.first_key_id)
