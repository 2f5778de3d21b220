"""MovieLens-100K: 100,000 dated ratings of 943 users with profiles and 1,682 films.

F. Maxwell Harper, Joseph A. Konstan: The MovieLens Datasets: History and Context. ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data.bundle import Bundle
from fullrank.data.readers.movielens import (
    MovieLensSource,
    genre_lists,
    items_table,
    movielens_schema,
    read_table,
)
from fullrank.schema import Feature

OFFICIAL = ("u.data", "u.item", "u.user", "u.genre")
ATOMIC = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")
_INT, _TEXT = pa.int64(), pa.string()
_RATINGS = {"user": _INT, "item": _INT, "rating": _INT, "time": _INT}
_USERS = {"user": _INT, "age": _INT, "gender": _TEXT, "occupation": _TEXT, "zip": _TEXT}
_PROFILE = (
    Feature(name="age", kind="numeric", of="user"),
    Feature(name="gender", kind="categorical", of="user"),
    Feature(name="occupation", kind="categorical", of="user"),
)


class MovieLens100K(MovieLensSource):
    """The official folder or `ml-100k.zip`, or a folder, zip or wheel with RecBole's copy (`ml-100k.inter`, `.item`,
    `.user`). Both give the same rows in the same order."""

    NAME = "movielens-100k"

    def __init__(self, path: Path | str) -> None:
        bundle = Bundle(path)
        schema = movielens_schema(self.NAME, _PROFILE)
        if bundle.has(ATOMIC) and not bundle.has(OFFICIAL):
            ratings = read_table(bundle, ATOMIC[0], _RATINGS, delimiter="\t", skip=1)
            users = read_table(bundle, ATOMIC[2], _USERS, delimiter="\t", skip=1)
            super().__init__(schema, bundle, ATOMIC, ratings, _atomic_items(bundle), users)
        else:
            ratings = read_table(bundle, "u.data", _RATINGS, delimiter="\t")
            users = read_table(bundle, "u.user", _USERS, delimiter="|")
            super().__init__(schema, bundle, OFFICIAL, ratings, _official_items(bundle), users)


def _official_items(bundle: Bundle) -> pa.Table:
    names = read_table(bundle, "u.genre", {"genre": _TEXT, "number": _INT}, delimiter="|")["genre"].to_numpy()
    columns = {"item": _INT, "title": _TEXT, "released": _TEXT, "video": _TEXT, "address": _TEXT}
    flags = {f"genre {number}": pa.int8() for number in range(len(names))}
    table = read_table(bundle, "u.item", columns | flags, delimiter="|", encoding="latin-1")
    is_genre = np.stack([table[name].to_numpy() for name in flags], axis=1) == 1
    offsets = np.concatenate([[0], is_genre.sum(axis=1).cumsum()]).astype(np.int32)
    genres = pa.ListArray.from_arrays(pa.array(offsets), pa.array(names[np.nonzero(is_genre)[1]], _TEXT))
    return items_table(table["item"], table["title"].to_pylist(), genres)


def _atomic_items(bundle: Bundle) -> pa.Table:
    """The copy has title and year apart; where a title has a mark after its year, the mark is in the year's place and
    the year still in the title. The title-less item 267 is `unkonwn` there and `unknown` in the official file."""
    columns = {"item": _INT, "title": _TEXT, "year": _TEXT, "genres": _TEXT}
    table = read_table(bundle, "ml-100k.item", columns, delimiter="\t", skip=1)
    titles = [
        "unknown" if year == "unkonwn" else f"{title} ({year})"
        for title, year in zip(table["title"].to_pylist(), table["year"].to_pylist(), strict=True)
    ]
    return items_table(table["item"], titles, genre_lists(table["genres"], " "))
