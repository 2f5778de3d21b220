"""A log in the shape of Criteo's: a label, 13 numbers, 26 categories as hexadecimal texts, and a time.

Cardinalities are those of the 26 columns of the competition's log of 46 M rows; values follow a Zipf law over them,
and numbers are counts with a long tail. Some of either are missing, each column with a share of its own (our choice).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fullrank.schema import Feature, KeySpace, Roles, Schema, Task

CARDINALITIES = (
    *(1_460, 583, 10_131_227, 2_202_608, 305, 24, 12_517, 633, 3, 93_145, 5_683, 8_351_593, 3_194),
    *(27, 14_992, 5_461_306, 10, 5_652, 2_173, 4, 7_046_547, 18, 15, 286_181, 105, 142_572),
)
NUMBERS = tuple(f"I{number}" for number in range(1, 14))
CATEGORIES = tuple(f"C{number}" for number in range(1, 27))
ZIPF = 1.05
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
PART_ROWS = 500_000
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)  # two letters a byte


def schema(min_count: int) -> Schema:
    """What the columns mean. Key spaces are frozen: nobody else keeps what a later append would need."""
    return Schema(
        name="shape of criteo",
        roles=Roles(time="time"),
        features=(
            *(Feature(name=name, kind="numeric", of="pair", scale="standard") for name in NUMBERS),
            *(Feature(name=name, kind="categorical", of="pair") for name in CATEGORIES),
        ),
        tasks=(Task(name="click"),),
        key_spaces=tuple(KeySpace(name=name, policy="frozen", min_count=min_count) for name in CATEGORIES),
    )


def write(folder: Path, rows: int, part_rows: int = PART_ROWS) -> dict[str, int]:
    """`SPLIT/SPLIT-000.parquet` …, each of at most `part_rows` rows: what is in memory at once. Rows by split."""
    random = np.random.default_rng(0)
    counts = {split: round(rows * share) for split, share in SHARES.items()}
    first = 0
    for split, count in counts.items():
        (folder / split).mkdir(parents=True)
        for number, part in enumerate(_parts(count, part_rows)):
            pq.write_table(draw(first, part, random), folder / split / f"{split}-{number:03d}.parquet")
            first += part
    return counts


def draw(first: int, rows: int, random: np.random.Generator) -> pa.Table:
    """Rows from number `first` on, a hundred a second."""
    columns: dict[str, pa.Array] = {"click": pa.array((random.random(rows) < 0.25).astype(np.float32))}
    for place, name in enumerate(NUMBERS):
        counts = np.floor(random.lognormal(place / 4, 1.5, rows)).astype(np.float32)
        columns[name] = pa.array(counts, mask=random.random(rows) < place / 26)
    for place, (name, cardinality) in enumerate(zip(CATEGORIES, CARDINALITIES, strict=True)):
        there = random.random(rows) >= (place % 5) / 20
        columns[name] = texts(zipf(cardinality, rows, random), place, there)
    columns["time"] = pa.array(1_600_000_000 + np.arange(first, first + rows) // 100)
    return pa.table(columns)


def zipf(cardinality: int, rows: int, random: np.random.Generator) -> np.ndarray:
    """Ranks 1 … cardinality, P(rank) ~ the integral of x^-ZIPF from rank to rank + 1: by its inverse, without a
    table."""
    power = 1 - ZIPF
    drawn = (1 + random.random(rows) * ((cardinality + 1.0) ** power - 1)) ** (1 / power)
    return np.minimum(drawn.astype(np.uint32), np.uint32(cardinality))


def texts(ranks: np.ndarray, place: int, there: np.ndarray) -> pa.Array:
    """Eight hexadecimal letters a rank, no two ranks of a column alike; null where it is not `there`."""
    scrambled = ranks.astype(np.uint32) * np.uint32(2_654_435_761) + np.uint32(place)  # odd: a bijection of 32 bits
    letters = _HEX[scrambled.view(np.uint8)]
    offsets = np.arange(0, 8 * len(ranks) + 1, 8, dtype=np.int32)
    valid = np.packbits(there, bitorder="little")
    return pa.StringArray.from_buffers(len(ranks), *map(pa.py_buffer, (offsets, letters, valid)))


def _parts(rows: int, most: int) -> Iterator[int]:
    for first in range(0, rows, most):
        yield min(most, rows - first)
