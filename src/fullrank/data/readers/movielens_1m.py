"""MovieLens-1M: 1,000,209 ratings of 6,040 users with profiles and 3,883 films, dated or merely in order.

F. Maxwell Harper, Joseph A. Konstan: The MovieLens Datasets: History and Context. ACM TiiS 5(4), 2015. The order file
is the one of the SASRec experiments (Kang, McAuley: Self-Attentive Sequential Recommendation, ICDM 2018), which keeps
only films with five ratings or more.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.readers.movielens import (
    MovieLensSource,
    genre_lists,
    items_table,
    movielens_schema,
    read_table,
)
from fullrank.schema import Feature

OFFICIAL = ("ratings.dat", "movies.dat", "users.dat")
ORDERED = (
    "ratings.csv.gz",
    "movies.tsv",
    "users.tsv",
    "ml-1m.sasrec.txt.gz",
    "sas_to_original_users.txt",
    "sas_to_original_items.txt",
)
_INT, _TEXT = pa.int64(), pa.string()
_USERS = {"user": _INT, "gender": _TEXT, "age": _INT, "occupation": _INT, "zip": _TEXT}
_FILMS = {"item": _INT, "title": _TEXT, "genres": _TEXT}
_PROFILE = (  # age is one of seven groups, named by its youngest; occupation is a number
    Feature(name="age", kind="categorical", of="user"),
    Feature(name="gender", kind="categorical", of="user"),
    Feature(name="occupation", kind="categorical", of="user"),
)


class MovieLens1M(MovieLensSource):
    """The official folder or `ml-1m.zip` (ratings with times), or a folder with ratings without times, the order file
    and its id maps (`ORDERED`).

    From the latter the role is `order`, not `time`: the item's place among its user's, 0 first. It compares rows of
    one user, never of two, so a global cut in time means nothing there. Ratings that the order file leaves out are
    dropped and counted in `notes`.
    """

    NAME = "movielens-1m"

    def __init__(self, path: Path | str) -> None:
        bundle = Bundle(path)
        dated = bundle.has(OFFICIAL) or not bundle.has(ORDERED)
        end, mark, encoding = ("dat", "::", "latin-1") if dated else ("tsv", "\t", "utf-8")
        films = read_table(bundle, f"movies.{end}", _FILMS, delimiter=mark, encoding=encoding)
        items = items_table(films["item"], films["title"].to_pylist(), genre_lists(films["genres"], "|"))
        users = read_table(bundle, f"users.{end}", _USERS, delimiter=mark)
        schema = movielens_schema(self.NAME, _PROFILE, clock=dated)
        if dated:
            columns = {"user": _INT, "item": _INT, "rating": _INT, "time": _INT}
            ratings = read_table(bundle, "ratings.dat", columns, delimiter="::")
            super().__init__(schema, bundle, OFFICIAL, ratings, items, users)
        else:
            ratings, notes = _ordered_ratings(bundle)
            super().__init__(schema, bundle, ORDERED, ratings, items, users, notes)


def _ordered_ratings(bundle: Bundle) -> tuple[pa.Table, tuple[str, ...]]:
    """The rating of every (user, item) of the order file, by user and position, and what is left over."""
    order = read_table(bundle, "ml-1m.sasrec.txt.gz", {"user": _INT, "item": _INT}, delimiter=" ")
    user = _original(bundle, "sas_to_original_users.txt", order["user"].to_numpy())
    item = _original(bundle, "sas_to_original_items.txt", order["item"].to_numpy())
    columns = {"user": _INT, "item": _INT, "rating": _INT, "fold": _INT}
    rated = read_table(bundle, "ratings.csv.gz", columns, delimiter=",", skip=1)
    rated_user, rated_item = rated["user"].to_numpy(), rated["item"].to_numpy()
    width = 1 + max(int(item.max(initial=0)), int(rated_item.max(initial=0)))
    pair, rated_pair = user * width + item, rated_user * width + rated_item
    for name, pairs in (("ml-1m.sasrec.txt.gz", pair), ("ratings.csv.gz", rated_pair)):
        if (np.diff(np.sort(pairs)) == 0).any():
            raise DataError(f"{bundle.label(name)}: expected every user and item together once. Get the file again.")

    by_user = np.argsort(user, kind="stable")  # the file's order within a user is the order of time
    user, item, pair = user[by_user], item[by_user], pair[by_user]
    first = np.searchsorted(user, user)
    position = np.arange(len(user)) - first
    sorter = np.argsort(rated_pair)
    row = sorter[np.minimum(np.searchsorted(rated_pair, pair, sorter=sorter), len(sorter) - 1)]
    known = rated_pair[row] == pair
    rating = rated["rating"].to_numpy()[row[known]]
    ratings = {"user": user[known], "item": item[known], "rating": rating, "position": position[known]}
    notes = []
    if dropped := len(rated) - int(known.sum()):
        notes.append(f"{dropped:,} of {len(rated):,} ratings have no place in the order file and were dropped")
    if unrated := len(known) - int(known.sum()):
        notes.append(f"{unrated:,} of {len(known):,} places in the order file have no rating and were dropped")
    return pa.table(ratings), tuple(notes)


def _original(bundle: Bundle, name: str, ids: np.ndarray) -> np.ndarray:
    """The original id of each id of the order file."""
    pairs = read_table(bundle, name, {"id": _INT, "original": _INT}, delimiter=" ")
    known = pairs["id"].to_numpy()
    table = np.full(1 + max(int(known.max(initial=0)), int(ids.max(initial=0))), -1)
    table[known] = pairs["original"].to_numpy()
    original = table[ids]
    if (original < 0).any():
        missing = int(ids[np.argmax(original < 0)])
        raise DataError(f"{bundle.label(name)}: expected a line for id {missing} of the order file, found none.")
    return original
