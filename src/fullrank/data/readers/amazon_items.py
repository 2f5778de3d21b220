"""Which ASIN an item number of the S3-Rec files is, and so its words: neither the files nor their makers say.

Another copy of the same reviews, that of IDGenRec (Juntao Tan et al., SIGIR 2024; its repository's `rec_datasets`),
names users and items by their own keys and has a few words for each item. Both copies are one graph of users and items,
so equal nodes are found by colour refinement (the Weisfeiler–Leman test): a node's colour is made of its own and of the
colours of its neighbours, again and again, until only truly interchangeable nodes share one.
"""


from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fullrank.data.columns import DataError
from fullrank.data.keys import splitmix64

_ROUNDS = 6  # of refinement; the sets need three


@dataclass(frozen=True)
class Matched:
    """The table written, how many items there are, and how many of them were told from all others."""

    path: Path
    items: int
    matched: int


def write_items(sequences: Path | str, reviews: Path | str, words: Path | str, out: Path | str) -> Matched:
    """Write the table `id ASIN words` (tabs between) that the sequence readers take as `items`.

    `sequences`: a file of S3-Rec (`Beauty.txt`); `reviews`, `words`: `user_sequence.txt` (`reviewer ASIN ASIN …`) and
    `item_generative_indexing_phase_0.txt` (`ASIN words`) of the same set. Items that the same users used and that
    stand at the same places, or at places that the copies give in another order, cannot be told apart and are left out.
    Raises `DataError` where the two are not the same reviews.
    """
    ours, theirs = _graph(Path(sequences)), _graph(Path(reviews))
    colour, other_colour = _colours(ours, placed=False), _colours(theirs, placed=False)
    if not np.array_equal(np.sort(colour), np.sort(other_colour)):
        raise DataError(
            f"{reviews}: expected the reviews of {sequences} under other names, got others ({len(theirs.item_N)} and "
            f"{len(ours.item_N)} reviews). Are they of one set?"
        )
    match = _paired(colour, other_colour)
    twins = np.flatnonzero(match < 0)
    if len(twins):  # the order of a user's events tells some of them apart
        match[twins] = _paired(_colours(ours, placed=True), _colours(theirs, placed=True))[twins]
    text = dict(line.split(" ", 1) for line in _lines(Path(words)) if " " in line)
    lines = [
        f"{item}\t{theirs.names[other]}\t{text.get(theirs.names[other], '')}"
        for item, other in zip(ours.names, match.tolist(), strict=True)
        if other >= 0
    ]
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Matched(path, len(ours.names), len(lines))


@dataclass(frozen=True)
class _Graph:
    """N events: user and item of each by number, and its place among the user's; the names of the items."""

    user_N: np.ndarray
    item_N: np.ndarray
    place_N: np.ndarray
    names: list[str]


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                yield line.rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read ({error}). Get the file again.") from error


def _graph(file: Path) -> _Graph:
    """Lines `user item item …`."""
    events = [line.split()[1:] for line in _lines(file)]
    number: dict[str, int] = {}
    items = [number.setdefault(item, len(number)) for line in events for item in line]
    lengths = np.array([len(line) for line in events], dtype=np.int64)
    user_N = np.repeat(np.arange(len(events)), lengths)
    start_N = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return _Graph(user_N, np.array(items, dtype=np.int64), np.arange(len(items)) - start_N, list(number))


def _colours(graph: _Graph, *, placed: bool) -> np.ndarray:
    """The colour of every item, uint64; `placed`: the places of events count too."""
    user = np.ones(int(graph.user_N.max(initial=-1)) + 1, dtype=np.uint64)
    item = np.ones(len(graph.names), dtype=np.uint64)
    edge_N = splitmix64(graph.place_N.astype(np.uint64)) if placed else np.zeros(len(graph.item_N), dtype=np.uint64)
    for _ in range(_ROUNDS):
        next_user, next_item = splitmix64(user), splitmix64(item)
        np.add.at(next_user, graph.user_N, splitmix64(item[graph.item_N] ^ edge_N))
        np.add.at(next_item, graph.item_N, splitmix64(next_user[graph.user_N] ^ edge_N))
        user, item = next_user, next_item
    return item


def _paired(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """For each of ours the only one of theirs with its colour, if the colour is its alone here too; else -1."""
    colour, first, times = np.unique(theirs, return_index=True, return_counts=True)
    _, group, here = np.unique(ours, return_inverse=True, return_counts=True)
    at = np.minimum(np.searchsorted(colour, ours), len(colour) - 1)
    alone = (colour[at] == ours) & (times[at] == 1) & (here[group] == 1)
    return np.where(alone, first[at], -1)
