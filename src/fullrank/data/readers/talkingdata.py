"""TalkingData AdTracking: clicks on ads for apps of three days of November 2017, and when the app was installed, if so.

Kaggle, TalkingData AdTracking fraud detection challenge, 2018: 184.9 M clicks, and a sample of 100,000 of them with 227
installs: about one in 440.
"""

# pyarrow.compute makes its functions when it is imported, where pyright does not see them:
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fullrank.data.bundle import Bundle
from fullrank.data.readers.delimited import ColumnKind
from fullrank.data.readers.public import ROW, PublicLog, numbered, with_columns
from fullrank.data.source import LogChunk
from fullrank.data.splits import ByTime
from fullrank.schema import EventFeature, EventOutcome, Feature, History, Roles, Schema, Task

FILES = ("train_sample.csv", "train.csv")
COLUMNS = ("ip", "app", "device", "os", "channel", "click_time", "attributed_time", "is_attributed")
WINDOW = 86_400  # seconds; the longest of the sample's 227 installs came 12.9 hours after its click
LAST_CLICK = datetime.datetime(2017, 11, 9, 16, tzinfo=datetime.UTC)


def talkingdata_schema(*, window: int = WINDOW) -> Schema:
    """Task `install`, known when it happened, and not to come once `window` seconds have passed (a day: our choice).

    The address is taken for the user: it is what past clicks can be grouped by, though many people may share one (a
    hash key hides it). History `clicks`: app and channel of its past clicks, and what came of each, as far as it was
    known.
    """
    return Schema(
        name="talkingdata",
        roles=Roles(user="ip", item="app", impression=ROW, time="click_time"),
        features=(
            Feature(name="device", kind="categorical"),
            Feature(name="os", kind="categorical"),
            Feature(name="channel", kind="categorical", of="pair"),
        ),
        histories=(
            History(
                name="clicks",
                features=(EventFeature(name="channel", key_space="channel"),),
                outcomes=(
                    EventOutcome(
                        name="installed", column="is_attributed", time="attributed_time", window=window
                    ),
                ),
            ),
        ),
        tasks=(Task(name="install", column="is_attributed", label_time="attributed_time", window=window),),
    )


class TalkingData(PublicLog):
    """`train_sample.csv` or `train.csv`; times to the second, or to the minute as spreadsheets leave them
    (`2017-11-07 9:30`), read as UTC. `as_of` is the end of the last click's window: the set was published long after,
    so that every label is known. Prepared without it, the labels of the last day wait for their window."""

    NAME = "talkingdata"

    def __init__(self, path: Path | str, *, window: int = WINDOW) -> None:
        bundle = Bundle(path)
        files = [next((name for name in FILES if bundle.has([name])), FILES[0])]
        as_of = int(LAST_CLICK.timestamp() + window) * 1_000_000
        super().__init__(talkingdata_schema(window=window), bundle, files, ByTime(), as_of=as_of)

    def chunks(self) -> Iterator[LogChunk]:
        kinds: dict[str, ColumnKind] = dict.fromkeys(COLUMNS, "text")
        (name,) = self._files
        row = 0
        for records in self._delimited(name, kinds):
            times = {column: iso_time(records[column]) for column in ("click_time", "attributed_time")}
            yield LogChunk(numbered(with_columns(records, times), row), self._bundle.label(name), row)
            row += records.num_rows


def iso_time(texts: pa.Array) -> pa.Array:
    """`2017-11-07 9:30` as `2017-11-07 09:30`; what is written otherwise stays as it is."""
    return pc.replace_substring_regex(texts, r"^(\d{4}-\d\d-\d\d) (\d:)", r"\1 0\2")
