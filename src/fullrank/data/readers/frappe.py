"""Frappe: 96,203 uses of 4,082 apps by 957 people in context, and two apps not used for each: 288,609 rows.

Linas Baltrunas, Karen Church, Alexandros Karatzoglou, Nuria Oliver: Frappe: Understanding the Usage and Perception of
Mobile App Recommendations In-The-Wild. arXiv:1505.03014, 2015. The rows with negatives and their three files are those
of Xiangnan He, Tat-Seng Chua: Neural Factorization Machines for Sparse Predictive Analytics, SIGIR 2017.

A negative copies its positive's context, `cost` with it, though cost belongs to the app: an app with the wrong cost is
never a positive. So it is a regression test of models, not evidence of their quality.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from fullrank.data.bundle import Bundle
from fullrank.data.readers.libfm import FieldKeys, field_keys, read_libfm
from fullrank.data.readers.movielens import read_table
from fullrank.data.readers.public import ROW, PublicLog, numbered
from fullrank.data.source import LogChunk
from fullrank.data.splits import GivenFiles
from fullrank.schema import Feature, Roles, Schema, Task

CONTEXT = ("daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city")
FIELDS = ("user", "item", *CONTEXT)
TRAIN = ("frappe.train.libfm", "frappe.train.rebuilt.libfm", "frappe.train.reconstructed.libfm")
VALID, TEST = "frappe.validation.libfm", "frappe.test.libfm"
MAP = "feature_map.tsv"


def frappe_schema() -> Schema:
    """Ten categorical fields and the task `used`. The rows have no time and no order, so there are no histories."""
    return Schema(
        name="frappe",
        roles=Roles(user="user", item="item", impression=ROW),
        features=tuple(Feature(name=name, kind="categorical") for name in CONTEXT),
        tasks=(Task(name="used"),),
    )


class Frappe(PublicLog):
    """A folder with three files, plain or gzipped: a train file (one of `TRAIN`), `VALID` and `TEST`; the split is
    that of the files. `frappe_build.rebuild` makes a train file where only the raw log is at hand.

    With `feature_map.tsv` (lines `id field value`) the keys are the log's own words (`morning`, `Spain`), without it
    the files' feature numbers: other keys of the same rows.
    """

    NAME = "frappe"

    def __init__(self, path: Path | str) -> None:
        bundle = Bundle(path)
        train = next((name for name in map(bundle.either, TRAIN) if bundle.has([name])), TRAIN[0])
        parts = {train: "train", bundle.either(VALID): "valid", bundle.either(TEST): "test"}
        meanings = bundle.either(MAP)
        self._keys = read_map(bundle, meanings) if bundle.has([meanings]) else None
        super().__init__(frappe_schema(), bundle, [*parts, *([meanings] if self._keys else [])], GivenFiles())
        self._parts = parts

    def chunks(self) -> Iterator[LogChunk]:
        row = 0
        for name, split in self._parts.items():
            first_row = 0
            for label_B, ids_BF in read_libfm(self._bundle, name, len(FIELDS)):
                if self._keys:
                    columns = self._keys.columns(ids_BF, self._bundle.label(name), first_row)
                else:
                    columns = {field: pa.array(ids_BF[:, place]) for place, field in enumerate(FIELDS)}
                records = pa.RecordBatch.from_pydict({"used": pa.array(label_B)} | columns)
                yield LogChunk(numbered(records, row), self._bundle.label(name), first_row, split)
                first_row, row = first_row + len(label_B), row + len(label_B)


def read_map(bundle: Bundle, name: str) -> FieldKeys:
    """What the ids of the files mean."""
    columns = {"id": pa.int64(), "field": pa.string(), "value": pa.string()}
    table = read_table(bundle, name, columns, delimiter="\t", skip=1)
    field, value = (table[column].combine_chunks() for column in ("field", "value"))
    return field_keys(FIELDS, field, value, table["id"].to_numpy())
