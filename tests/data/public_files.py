"""Tiny files in the formats of public sets, written for tests, and what a reader makes of them."""

from __future__ import annotations

import gzip
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.readers import PublicSource
from fullrank.data.readers.census import ADULT
from fullrank.data.readers.tabular import columns_read


def write_files(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = text.encode()
        (folder / name).write_bytes(gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    return folder


def rows_of(source: PublicSource) -> list[dict]:
    """All rows, with the split of their chunk as `@split`; every column that the schema reads is there."""
    rows = []
    for chunk in source.chunks():
        assert set(columns_read(source.schema)) <= set(chunk.records.schema.names)
        rows += [row | {"@split": chunk.split} for row in chunk.records.to_pylist()]
    return rows


def prepared_as_usual(source: PublicSource, folder: Path) -> PreparedData:
    """The set prepared with the split and moment of its reader."""
    prepare(source, folder, split=source.split, as_of=source.as_of)
    return PreparedData.open(folder)


def columns_of(data: PreparedData, split: str, *names: str) -> list[np.ndarray]:
    """Columns of a split's rows (or requests), block after block."""
    blocks = [data.read_all(block) for block in data.blocks(split, (0,))]
    parts = [[(b.rows if name in b.rows else b.requests)[name] for b in blocks] for name in names]
    return [np.concatenate(part) if part else np.zeros(0) for part in parts]


def real(folder: str) -> Path:
    path = Path(os.environ.get("FULLRANK_DATA") or "nowhere") / folder
    if not path.is_dir():
        pytest.skip(f"{folder} is not in $FULLRANK_DATA")
    return path


def counts(source: PublicSource, label: str) -> tuple[dict[str, int], dict[str, int]]:
    """Rows and positives of every split."""
    rows: Counter[str] = Counter()
    positives: Counter[str] = Counter()
    for chunk in source.chunks():
        rows[chunk.split] += chunk.records.num_rows
        positives[chunk.split] += sum(int(value) for value in chunk.records[label].to_pylist())
    return dict(rows), dict(positives)


def adult_line(income: str, married: str = "Divorced", **values: str) -> str:
    given = {"income": income, "marital_status": married, "workclass": "Private"} | values
    numbers = dict.fromkeys(("age", "education_num", "capital_gain", "capital_loss", "hours_per_week"), "40")
    return ", ".join(given.get(column, numbers.get(column, f"{column} a")) for column in ADULT) + "\n"


ADULT_FILES = {
    "adult.data": adult_line("<=50K", "Never-married") + adult_line(">50K", workclass="?") + "\n",
    "adult.test": "|1x3 Cross validator\n"
    + adult_line(">50K.", age="17")
    + adult_line("<=50K.", age="18")
    + adult_line("<=50K.", "Never-married", age="19"),
}
