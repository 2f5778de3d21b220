"""What was fitted, and the one way from a record to a batch: the same code in prepare, predict and serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from fullrank.data.columns import NEVER, Columns, DataError, EncodedBlock, Ragged, array, span_positions
from fullrank.data.encode_columns import encode_events, encode_feature, take_rows
from fullrank.data.history import HistorySource, Spans, first_not_before
from fullrank.data.id_map import IdMap
from fullrank.data.inputs import Inputs
from fullrank.data.item_table import ItemTable
from fullrank.data.normalise import Normalised, Origin, normalise
from fullrank.data.normalise_time import task_windows
from fullrank.data.request_groups import first_rows
from fullrank.data.scalers import Scalers
from fullrank.schema import Schema, SchemaError, did_you_mean

if TYPE_CHECKING:
    from fullrank.data.batch import Batch

REQUEST_COLUMNS = ("@user", "@request")
ROW_COLUMNS = (
    *("@impression", "@scenario", "@campaign", "@advertiser", "@item", "@time"),
    *("@weight", "@sample_rate", "@propensity", "@exploration", "@position", "@bid", "@price"),
)


class EventsByUser(Protocol):
    """Where the past of a request is found: the users' events, by the user's code and the request's time."""

    def past(self, user_R: np.ndarray, time_R: np.ndarray) -> tuple[HistorySource, Spans]: ...


@dataclass(frozen=True, eq=False)
class Transform:
    """Id maps by key space, scalers and the item table (None for a log without items), for one schema.

    `hash_key` is the secret of `--hash-ids`, where the data was prepared with one; it is never saved.
    """

    schema: Schema
    id_maps: Mapping[str, IdMap]
    scalers: Scalers
    items: ItemTable | None = None
    hash_key: bytes | None = None

    def __post_init__(self) -> None:
        for history in self.schema.histories:
            for name in (history.key_space, *(f.key_space for f in history.features if f.key_space)):
                if self.schema.key_space(name).hashes > 1:
                    raise SchemaError(
                        f"History {history.name!r} uses key space {name!r} with {self.schema.key_space(name).hashes} "
                        "hashes; an event column holds one id. Give the history a key space with hashes = 1."
                    )

    @property
    def num_rows(self) -> dict[str, int]:
        """Rows per key space: how large its tables are."""
        return {name: id_map.num_rows for name, id_map in self.id_maps.items()}

    def normalise(self, records: pa.RecordBatch, origin: Origin, *, labels: bool = True) -> Normalised:
        """`normalise` with this transform's schema and hash key."""
        return normalise(self.schema, records, origin, hash_key=self.hash_key, labels=labels)

    def encode(self, rows: Normalised) -> EncodedBlock:
        """The rows' block (docs/architecture.md, section 2), all but the span columns of histories.

        Consecutive rows with an equal request key and equal request-side values (user and context features, inline
        lists) are one request; without a request role, or with a missing key, each row is its own. A request's `@time`
        is the least among its rows here: whoever knows of more rows of it lowers it afterwards.
        """
        first = first_rows(self.schema, rows)
        requests: Columns = {name: rows.array(name)[first] for name in REQUEST_COLUMNS if name in rows.columns}
        if "@time" in rows.columns:
            time = rows.array("@time")
            requests["@time"] = np.minimum.reduceat(time, first) if len(first) else time
        kept = [name for name in ROW_COLUMNS if name in rows.columns]
        kept += [name for name in rows.columns if name.startswith(("@label.", "@known_at."))]
        request_of_row = np.zeros(rows.num_rows, dtype=np.int32)
        request_of_row[first[1:]] = 1
        own: Columns = {"@request": np.cumsum(request_of_row, dtype=np.int32)}
        own |= {name: rows.columns[name] for name in kept}
        for feature in self.schema.all_features():
            if feature.kind == "text":
                continue
            if feature.of in ("user", "context"):
                requests |= encode_feature(feature, rows.columns, first, self.id_maps, self.scalers)
            else:
                own |= encode_feature(feature, rows.columns, None, self.id_maps, self.scalers)
        return EncodedBlock(requests, own, len(first), rows.num_rows)

    def encode_events(self, rows: Normalised, name: str, block: EncodedBlock) -> dict[str, Ragged]:
        """The events of inline history `name` for every request of `block = encode(rows)`, oldest first: columns of an
        event store, all with the same offsets.

        Past is decided here, by the request's `@time` in `block`: events with `available >= @time` are left out, and
        of the others all but the newest `max_length`.
        """
        history = self.schema.history(name)
        prefix = f"@history.{name}."
        first = np.flatnonzero(np.diff(array(block.rows, "@request"), prepend=-1))
        lists = {
            column.removeprefix(prefix): take_rows(values, first)
            for column, values in rows.columns.items()
            if column.startswith(prefix)
        }
        lists = {column: values for column, values in lists.items() if isinstance(values, Ragged)}
        available = lists["available"]
        bound = array(block.requests, "@time") if "@time" in block.requests else np.full(len(first), NEVER)
        end = first_not_before(available.values, available.offsets[:-1], available.offsets[1:], bound)
        start = np.maximum(available.offsets[:-1], end - history.max_length)
        positions, offsets = span_positions(start, end)
        flat = {column: values.values[positions] for column, values in lists.items()}
        return {n: Ragged(v, offsets) for n, v in encode_events(history, flat, self.id_maps, self.scalers).items()}

    def event_columns(self, name: str, columns: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Encoded event columns of by_user history `name`, from normalised ones by their names in an event store."""
        return encode_events(self.schema.history(name), columns, self.id_maps, self.scalers)

    def read(
        self,
        records: pa.RecordBatch,
        inputs: Inputs,
        *,
        events: Mapping[str, EventsByUser] | None = None,
        labels: bool = False,
        origin: Origin | None = None,
    ) -> tuple[EncodedBlock, tuple[HistorySource, ...]]:
        """Records → their block, whole: with the spans of the histories of `inputs`, and the store each points into.

        The first half of `apply`; `assemble` is the second. Between the two a request may be filled in from elsewhere,
        or be given other candidates than its records' (`ask.py`).
        """
        rows = self.normalise(records, origin or Origin("records"), labels=labels)
        block = self.encode(rows)
        sources = []
        for wanted in inputs.histories:
            name = wanted.name
            if self.schema.history(name).layout == "inline":
                lists = self.encode_events(rows, name, block)
                source = HistorySource({column: values.values for column, values in lists.items()})
                offsets = lists["item"].offsets
                spans = Spans(offsets[1:], np.diff(offsets).astype(np.int32))
            else:
                users, times = array(block.requests, "@user"), array(block.requests, "@time")
                source, spans = _events_of(events or {}, name).past(users, times)
            block.requests[f"@history.{name}.end"] = spans.end_R
            block.requests[f"@history.{name}.length"] = spans.length_R
            sources.append(source)
        return block, tuple(sources)

    def apply(
        self,
        records: pa.RecordBatch,
        inputs: Inputs,
        *,
        events: Mapping[str, EventsByUser] | None = None,
        views: Mapping[str, np.ndarray] | None = None,
        labels: bool = False,
        as_of: int = NEVER - 1,
        origin: Origin | None = None,
    ) -> Batch:
        """Records → the batch a model of `inputs` reads, bit for bit what prepare and the loader make of them.

        `events`: the events of every by_user history that `inputs` names, in this transform's ids (or in later ones,
        with `views`): an event store, or `past.Past` over several partitions. A request reads the user's events that
        were available before its time. Inline histories come with the records. `labels`: read label columns too (they
        must be there), known as of `as_of`. `views`: see `assemble`.
        """
        from fullrank.data.assemble import assemble

        block, sources = self.read(records, inputs, events=events, labels=labels, origin=origin)
        return assemble(
            block,
            inputs,
            sources=sources,
            items=self.items,
            views=views or {},
            as_of=as_of,
            windows=task_windows(self.schema),
            labels=labels,
        )

    def save(self, folder: Path) -> None:
        """Id maps, scalers and items in a folder of their own; the schema is saved by who owns the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, id_map in self.id_maps.items():
            id_map.save(folder / "ids" / name)
        self.scalers.save(folder / "scalers.json")
        if self.items is not None:
            replace(self.items, num_saved=0).save(folder / "items", 0)

    @staticmethod
    def load(folder: Path, schema: Schema, *, hash_key: bytes | None = None) -> Transform:
        """What `save` wrote, for the same schema: it encodes every record to the same bits."""
        id_maps = {
            name: IdMap.load(folder / "ids" / name, schema.key_space(name)) for name in schema.used_key_spaces()
        }
        items = ItemTable.load(folder / "items") if (folder / "items").is_dir() else None
        return Transform(schema, id_maps, Scalers.load(folder / "scalers.json"), items, hash_key)


def _events_of(events: Mapping[str, EventsByUser], name: str) -> EventsByUser:
    if name not in events:
        raise DataError(
            f"Expected the events of history {name!r} (by_user: records do not carry them), got {list(events)}."
            f"{did_you_mean(name, list(events))} Pass events={{{name!r}: the prepared data's event store}}."
        )
    return events[name]
