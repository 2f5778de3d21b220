"""iPinYou, season of campaign 2997: bid requests as sixteen named fields, with clicks (the rows of deep-ctr).

Weinan Zhang, Tianming Du, Jun Wang: Deep Learning over Multi-field Categorical Data, ECIR 2016, from the iPinYou
real-time bidding log (Hairen Liao et al., ADKDD 2014). 26,773 training rows with 255 clicks, 21,150 with 50.
"""

# pyarrow.compute makes its functions when it is imported, where pyright does not see them:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fullrank.data.bundle import Bundle
from fullrank.data.columns import DataError
from fullrank.data.readers.libfm import FieldKeys, field_keys, read_libfm
from fullrank.data.readers.movielens import read_table
from fullrank.data.readers.public import ROW, PublicLog, numbered
from fullrank.data.source import LogChunk
from fullrank.data.splits import GivenFiles
from fullrank.schema import Feature, Roles, Schema, Task

REQUEST = (
    "weekday", "hour", "useragent", "IP", "region", "city", "adexchange",
    "domain", "slotid", "slotwidth", "slotheight", "slotvisibility", "slotformat",
)  # fmt: skip
FIELDS = (*REQUEST, "creative", "advertiser", "slotprice")
INDEX, TRAIN, TEST = "featindex.fm.txt", "train.fm.txt", "test.fm.txt"


def ipinyou_schema() -> Schema:
    """The fields as they are, `creative` the item; task `click`. There is no user, no time and no request.

    The fields are long: 131,235 addresses in 47,923 rows. `slotprice` is the floor price of the slot, in groups.
    """
    return Schema(
        name="ipinyou",
        roles=Roles(item="creative", advertiser="advertiser", impression=ROW),
        features=(
            *(Feature(name=name, kind="categorical") for name in (*REQUEST, "slotprice")),
            Feature(name="advertiser", kind="categorical", of="item"),
        ),
        tasks=(Task(name="click"),),
    )


class IPinYou(PublicLog):
    """A folder or archive with `train.fm.txt`, `test.fm.txt` and `featindex.fm.txt` (each plain or gzipped): every
    row one feature of each field, by number; the keys are the names of the index. The split is that of the files, none
    validates: too few clicks to take any away."""

    NAME = "ipinyou"

    def __init__(self, path: Path | str) -> None:
        bundle = Bundle(path)
        index = bundle.either(INDEX)
        parts = {bundle.either(TRAIN): "train", bundle.either(TEST): "test"}
        super().__init__(ipinyou_schema(), bundle, [*parts, index], GivenFiles())
        self._parts, self._index = parts, index

    def chunks(self) -> Iterator[LogChunk]:
        keys, row = _read_index(self._bundle, self._index), 0
        for name, split in self._parts.items():
            first_row = 0
            for label_B, ids_BF in read_libfm(self._bundle, name, len(FIELDS)):
                columns = keys.columns(ids_BF, self._bundle.label(name), first_row)
                records = pa.RecordBatch.from_pydict({"click": pa.array(label_B)} | columns)
                yield LogChunk(numbered(records, row), self._bundle.label(name), first_row, split)
                first_row, row = first_row + len(label_B), row + len(label_B)


def _read_index(bundle: Bundle, name: str) -> FieldKeys:
    """Lines `field:value TAB number`."""
    table = read_table(bundle, name, {"name": pa.string(), "number": pa.int64()}, delimiter="\t").combine_chunks()
    names = table["name"].combine_chunks()
    parts = pc.extract_regex(names, r"^(?P<field>[^:]*):(?P<value>.*)$")
    if parts.null_count:
        line = int(np.argmin(parts.is_valid().to_numpy(zero_copy_only=False)))
        raise DataError(
            f"{bundle.label(name)}, line {line + 1}: expected `field:value`, got {names[line].as_py()!r}. "
            "Get the file again."
        )
    return field_keys(FIELDS, parts.field("field"), parts.field("value"), table["number"].to_numpy())
