"""Files of one user a line, `user item item …` in the order of time, and negatives that are drawn for them."""

# pyarrow.compute makes its functions when it is imported, where pyright does not see them:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.keys import splitmix64


@dataclass(frozen=True)
class Sequences:
    """U users with N events: user u owns `item_N[offsets[u]:offsets[u + 1]]`, oldest first. int64, 8 bytes an event."""

    user_U: np.ndarray
    offsets: np.ndarray
    item_N: np.ndarray

    def owners(self) -> np.ndarray:
        """The place of each event's user, [N]."""
        return np.repeat(np.arange(len(self.user_U)), np.diff(self.offsets))

    def positions(self) -> np.ndarray:
        """Each event's place among its user's, 0 first, [N]."""
        return np.arange(len(self.item_N)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))


def read_sequences(bundle: Bundle, name: str) -> Sequences:
    """The whole file: integers with one space between. Raises `DataError` with the line."""
    lines = pa.array(bundle.read(name).decode("utf-8", "replace").splitlines(), pa.large_string())
    words = pc.split_pattern(lines, " ")
    offsets = words.offsets.to_numpy()
    flat = words.flatten()
    whole = pc.match_substring_regex(flat, "^[0-9]{1,18}$").to_numpy(zero_copy_only=False)
    short = np.diff(offsets) < 2
    if not whole.all() or short.any():
        bad = [np.searchsorted(offsets, np.argmax(~whole), side="right") - 1] if not whole.all() else []
        line = int(min([*bad, *np.flatnonzero(short)[:1]]))
        raise DataError(
            f"{bundle.label(name)}, line {line + 1}: expected a user and items, numbers with one space between, got "
            f"{lines[line].as_py()[:120]!r}. Mend the line, or get the file again."
        )
    numbers = flat.cast(pa.int64()).to_numpy()
    is_item = np.ones(len(numbers), dtype=bool)
    is_item[offsets[:-1]] = False
    users = numbers[offsets[:-1]]
    if len(np.unique(users)) < len(users):
        _, first = np.unique(users, return_index=True)
        again = int(np.setdiff1d(np.arange(len(users)), first)[0])
        raise DataError(
            f"{bundle.label(name)}, line {again + 1}: expected every user on one line, got {users[again]} again. "
            "Put its items on one line."
        )
    return Sequences(users, offsets - np.arange(len(offsets)), numbers[is_item])


class NegativeSampler:
    """`k` different items for an event, each uniform over the items that its user never used, now or later.

    A draw is a function of (seed, user, position) alone: the same whatever is read before, and at every reading. Draws
    that repeat one of the same event are drawn again. Not a model of what was shown and passed over: nobody showed it.
    """

    def __init__(self, sequences: Sequences, k: int, seed: int) -> None:
        owner_N = sequences.owners()
        self._items = np.unique(sequences.item_N)
        place_N = np.searchsorted(self._items, sequences.item_N)
        pair = np.unique(owner_N * len(self._items) + place_N)  # the items of each user, in order, each once
        owner, place = np.divmod(pair, len(self._items))
        self._start = np.searchsorted(owner, np.arange(len(sequences.user_U) + 1))
        self._num_free = len(self._items) - np.diff(self._start)
        if len(self._num_free) and self._num_free.min() < k:
            poor = int(np.argmin(self._num_free))
            raise DataError(
                f"Expected at least {k} items that user {sequences.user_U[poor]} never used, got "
                f"{self._num_free[poor]}. Draw fewer negatives."
            )
        # how many free items come before a user's j-th used one; one ascending array for all users
        self._span = len(self._items) + 1
        self._free_before = owner * self._span + place - (np.arange(len(pair)) - self._start[owner])
        self._k, self._seed = k, splitmix64(np.array([seed], dtype=np.uint64))[0]

    def draw(self, owner_P: np.ndarray, position_P: np.ndarray) -> np.ndarray:
        """Items [P, k] for events of users at the places `owner_P`."""
        event_P = splitmix64(splitmix64(self._seed ^ owner_P.astype(np.uint64)) ^ position_P.astype(np.uint64))
        draw_Pk = np.arange(self._k, dtype=np.uint64)[None, :] + np.zeros((len(event_P), 1), dtype=np.uint64)
        free_Pk = self._rank(event_P, draw_Pk, owner_P)
        rows = np.flatnonzero(_repeats(free_Pk).any(axis=1))
        while len(rows):
            again = _repeats(free_Pk[rows])
            draw_Pk[rows] += np.where(again, np.uint64(self._k), np.uint64(0))
            free_Pk[rows] = self._rank(event_P[rows], draw_Pk[rows], owner_P[rows])
            rows = rows[_repeats(free_Pk[rows]).any(axis=1)]
        key = owner_P[:, None] * self._span + free_Pk
        used_before = np.searchsorted(self._free_before, key.ravel(), side="right").reshape(key.shape)
        return self._items[free_Pk + used_before - self._start[owner_P][:, None]]

    def _rank(self, event_P: np.ndarray, draw_Pk: np.ndarray, owner_P: np.ndarray) -> np.ndarray:
        """Which of the user's free items, counted from 0."""
        drawn = splitmix64(event_P[:, None] ^ splitmix64(draw_Pk))
        return (drawn % self._num_free[owner_P].astype(np.uint64)[:, None]).astype(np.int64)


def _repeats(values_Pk: np.ndarray) -> np.ndarray:
    """Which values are in their row further left already."""
    order = np.argsort(values_Pk, axis=1, kind="stable")
    sorted_Pk = np.take_along_axis(values_Pk, order, axis=1)
    again = np.zeros(values_Pk.shape, dtype=bool)
    again[:, 1:] = sorted_Pk[:, 1:] == sorted_Pk[:, :-1]
    result = np.empty_like(again)
    np.put_along_axis(result, order, again, axis=1)
    return result
