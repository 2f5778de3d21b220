"""Next-item sequences: Amazon reviews of 2014 (Beauty, Toys, Sports; 5-core) and Last.fm, in the files of S3-Rec.

Kun Zhou et al.: S3-Rec: Self-Supervised Learning for Sequential Recommendation with Mutual Information Maximization,
CIKM 2020. The reviews: Julian McAuley et al., SIGIR 2015; Last.fm: Cantador, Brusilovsky, Kuflik, HetRec 2011.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.readers.movielens import index_in, read_table
from fullrank.data.readers.public import PublicLog
from fullrank.data.readers.sequences import NegativeSampler, Sequences, read_sequences
from fullrank.data.source import CHUNK_ROWS, LogChunk, fingerprint_of
from fullrank.data.splits import SPLITS, GivenFiles
from fullrank.schema import Feature, History, Roles, Schema, Task

NEGATIVES = 4
_ITEMS = {"item": pa.int64(), "asin": pa.string(), "words": pa.string()}


def sequence_schema(name: str, *, text: bool = False) -> Schema:
    """Task `used`, history `used` (the user's positives; the newest 50, as in the paper's experiments), and what the
    item is: `attributes` (categories and brand, or tags, as numbers), and with `text` its words and its ASIN.

    The order is the event's place among its user's: it compares events of one user, never of two.
    """
    texts = tuple(Feature(name=column, kind="text", of="item") for column in ("words", "asin")) if text else ()
    return Schema(
        name=name,
        roles=Roles(user="user", item="item", request="request", order="position"),
        time_unit="position",
        features=(Feature(name="attributes", kind="multi", of="item"), *texts),
        histories=(History(name="used", where="used", max_length=50),),
        tasks=(Task(name="used"),),
    )


class SequenceLog(PublicLog):
    """A request is one event of a user: a row with the item (label 1) and `negatives` rows with items the user never
    used (label 0), drawn once from `seed` (`NegativeSampler`; number and rule are our choice). `negatives=0`: events
    alone, for models that see a whole sequence.

    Split leave-one-out: each user's last event tests, the one before validates; the rest, and all of users with fewer
    than three, train. Training rows come first, then validation, then test. `items`: a table `id ASIN words` with tabs
    between, for the texts of items (`amazon_items.write_items` makes one); without it, `NAME.items.tsv` of the folder
    if it is there.

    The events are held in memory (24 bytes each), rows are made a chunk at a time.
    """

    NAME = ""
    STEM = ""  # of the file names

    def __init__(
        self, path: Path | str, *, negatives: int = NEGATIVES, seed: int = 0, items: Path | str | None = None
    ) -> None:
        if negatives < 0:
            raise ValueError(f"Expected negatives >= 0, got {negatives}.")
        bundle = Bundle(path)
        sequence, attributes = f"{self.STEM}.txt", f"{self.STEM}_item2attributes.json"
        beside = f"{self.NAME}.items.tsv"
        table = Path(items) if items else Path(path) / beside if bundle.has([beside]) else None
        schema = sequence_schema(self.NAME, text=table is not None)
        super().__init__(schema, bundle, [sequence, attributes], GivenFiles())
        self._drawn = f"{negatives} {seed}" if negatives else "0"
        self._table = table
        self._sequences = read_sequences(bundle, sequence)
        self._sampler = NegativeSampler(self._sequences, negatives, seed) if negatives else None
        self._num_rows = 1 + negatives
        self._known = np.unique(self._sequences.item_N)
        self._columns = {"attributes": _attributes(bundle, attributes, self._known)}
        if table:
            self._columns |= _texts(table, self._known)

    def chunks(self) -> Iterator[LogChunk]:
        owner_N, position_N = self._sequences.owners(), self._sequences.positions()
        split_N = _leave_one_out(self._sequences)
        step, row = max(CHUNK_ROWS // self._num_rows, 1), 0
        for number, split in enumerate(SPLITS):
            events = np.flatnonzero(split_N == number)
            for start in range(0, len(events), step):
                part = events[start : start + step]
                records = self._records(owner_N[part], position_N[part], self._sequences.item_N[part])
                yield LogChunk(records, self._bundle.label(self._files[0]), row, split)
                row += records.num_rows

    def fingerprint(self) -> str:
        contents = [super().fingerprint().encode(), self._drawn.encode()]
        return fingerprint_of([*contents, self._table.read_bytes()] if self._table else contents)

    def _records(self, owner_P: np.ndarray, position_P: np.ndarray, item_P: np.ndarray) -> pa.RecordBatch:
        item_PK = item_P[:, None]
        if self._sampler:
            item_PK = np.concatenate([item_PK, self._sampler.draw(owner_P, position_P)], axis=1)
        used_PK = np.zeros(item_PK.shape, dtype=np.int8)
        used_PK[:, 0] = 1
        longest = int(np.diff(self._sequences.offsets).max())
        columns = {
            "user": self._sequences.user_U[owner_P],
            "position": position_P,
            "request": owner_P * longest + position_P,
        }
        arrays = {name: pa.array(np.repeat(column, self._num_rows)) for name, column in columns.items()}
        arrays |= {"item": pa.array(item_PK.ravel()), "used": pa.array(used_PK.ravel())}
        place = pa.array(np.searchsorted(self._known, item_PK.ravel()))
        return pa.RecordBatch.from_pydict(
            arrays | {name: column.take(place) for name, column in self._columns.items()}
        )


class AmazonBeauty(SequenceLog):
    """22,363 users, 12,101 items, 198,502 reviews."""

    NAME, STEM = "amazon-beauty", "Beauty"


class AmazonToys(SequenceLog):
    """19,412 users, 11,924 items, 167,597 reviews."""

    NAME, STEM = "amazon-toys", "Toys_and_Games"


class AmazonSports(SequenceLog):
    """35,598 users, 18,357 items, 296,337 reviews."""

    NAME, STEM = "amazon-sports", "Sports_and_Outdoors"


class LastFM(SequenceLog):
    """1,090 users, 3,646 artists, 52,551 events."""

    NAME, STEM = "lastfm", "LastFM"


def _leave_one_out(sequences: Sequences) -> np.ndarray:
    """0 train, 1 valid, 2 test for each event."""
    ends = sequences.offsets[1:][np.diff(sequences.offsets) >= 3]
    split_N = np.zeros(len(sequences.item_N), dtype=np.int8)
    split_N[ends - 1], split_N[ends - 2] = 2, 1
    return split_N


def _attributes(bundle: Bundle, name: str, items: np.ndarray) -> pa.Array:
    """The different attributes of each item, in the file's order; none for an item that the file does not know."""
    try:
        known = {int(item): dict.fromkeys(map(int, values)) for item, values in json.loads(bundle.read(name)).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f'{bundle.label(name)}: expected {{"item": [attribute, …], …}} of numbers ({error}). Get the file again.'
        ) from error
    return pa.array([list(known.get(item, ())) for item in items.tolist()], pa.list_(pa.int64()))


def _texts(table: Path, items: np.ndarray) -> dict[str, pa.Array]:
    """The ASIN and words of each item; null where the table does not know it."""
    rows = read_table(Bundle(table.parent), table.name, _ITEMS, delimiter="\t").combine_chunks()
    place = index_in(items, rows["item"].to_numpy())
    return {name: rows[name].combine_chunks().take(place) for name in ("words", "asin")}
