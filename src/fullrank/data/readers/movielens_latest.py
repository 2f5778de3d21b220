"""MovieLens latest-small: 100,836 dated ratings in half stars, 610 users without profiles, 9,742 films.

A development set: its makers say that it may change and is not for published results.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from fullrank.data.bundle import Bundle
from fullrank.data.readers.movielens import (
    MovieLensSource,
    genre_lists,
    items_table,
    movielens_schema,
    read_table,
)

FILES = ("ratings.csv", "movies.csv")
_INT, _TEXT = pa.int64(), pa.string()


class MovieLensLatestSmall(MovieLensSource):
    """The folder or `ml-latest-small.zip`. The history's rating is the key `half_stars` (1 to 10): a float with a
    half in it is no key. There are no user features but the user."""

    NAME = "movielens-latest-small"

    def __init__(self, path: Path | str) -> None:
        bundle = Bundle(path)
        columns = {"user": _INT, "item": _INT, "rating": pa.float64(), "time": _INT}
        ratings = read_table(bundle, "ratings.csv", columns, delimiter=",", skip=1)
        half_stars = pa.array(ratings["rating"].to_numpy() * 2).cast(pa.int8())
        films = {"item": _INT, "title": _TEXT, "genres": _TEXT}
        table = read_table(bundle, "movies.csv", films, delimiter=",", skip=1)
        items = items_table(table["item"], table["title"].to_pylist(), genre_lists(table["genres"], "|"))
        schema = movielens_schema(self.NAME, (), rating_column="half_stars")
        super().__init__(schema, bundle, FILES, ratings.append_column("half_stars", half_stars), items)
