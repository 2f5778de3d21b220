"""Requests that nobody logged, made as if they had been: a user, what is told about the moment, and the user's past."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from fullrank.data.ask import asking, complete, requests_of
from fullrank.data.batch import FeatureBlock, Requests
from fullrank.data.columns import Columns, EncodedBlock, array, span_positions
from fullrank.data.history import HistorySource, Spans
from fullrank.data.inputs import Field, Inputs
from fullrank.data.normalise import Origin
from fullrank.data.partitions import PreparedData
from fullrank.data.past import gathered, pasts
from fullrank.data.prepare_checks import check_hash_key
from fullrank.recipes.field_states import FieldState, field_states
from fullrank.recipes.newest_requests import NewestRequests, filled_in
from fullrank.schema import Schema
from fullrank.training.run import Run


@dataclass(frozen=True)
class Asked:
    """R requests, ready to be scored. `pairs`: what was told of the pair, one value a request, for all its candidates.

    By request: `in_log` whether the data ever saw the user · `known` the inputs that have a value which training met ·
    `unknown` those with one it never met · `events` how many past events were read · `past` the codes of their items.
    """

    requests: Requests
    pairs: Columns
    in_log: tuple[bool, ...]
    known: tuple[tuple[str, ...], ...]
    unknown: tuple[tuple[str, ...], ...]
    events: tuple[int, ...]
    past: tuple[np.ndarray, ...]

    def has_nothing(self, request: int) -> bool:
        """Whether the model knows nothing of this request: no user, no context, no history."""
        return not self.known[request] and not self.events[request]


class Asker:
    """Makes requests for a run out of records that hold some of the log's columns, one request a record.

    What a record does not say of user and context is taken from the user's newest request in the data, the past from
    the data's histories; what neither says is missing. The moment is just after all that the data know, unless a
    record has a time. Ids are the run's; `data` may be a later version of what it was trained on.
    """

    def __init__(self, run: Run, data: PreparedData, *, hash_key: bytes | None = None) -> None:
        check_hash_key(data.manifest, hash_key)
        data.lineage.check(run.record.lineage, str(run.path))
        self.inputs: Inputs = run.record.inputs
        self.data = data
        whole = run.transform(hash_key)
        pinned = data.pinned(whole)
        self.views = pinned.views
        self.id_maps = whole.id_maps
        self._items = pinned.items
        self._transform = asking(whole, self.inputs, candidates=False)
        self._events = pasts(data, self.inputs)
        self._pairs = tuple(field for field in self.inputs.candidate if field.of == "pair")
        ends = [part.entry.time_max for part in data.partitions if part.entry.time_max is not None]
        self.now = max(data.as_of, *ends) + 1 if ends else data.as_of + 1

    @property
    def schema(self) -> Schema:
        """What is read of a record."""
        return self._transform.schema

    def newest(self, records: pa.RecordBatch, origin: Origin | None = None) -> NewestRequests:
        """The newest requests of all users of some records: found once, however many batches are asked."""
        user = self.schema.roles.user
        if not user or user not in records.schema.names:
            return NewestRequests.of(self.data, np.empty(0, np.uint64))
        only = replace(self._transform, schema=Schema(roles=replace(self.schema.roles, time="", order="")))
        rows = only.normalise(records.select([user]), origin or Origin("records"), labels=False)
        return NewestRequests.of(self.data, rows.array("@user"))

    def ask(self, records: pa.RecordBatch, newest: NewestRequests, origin: Origin | None = None) -> Asked:
        """One request a record. `newest` of these records, or of more. Raises `DataError`."""
        made = complete(self.schema, records, self.now)
        block, sources = self._transform.read(made.records, self.inputs, events=self._events, origin=origin)
        n = block.num_requests
        code_R = array(block.requests, "@user") if "@user" in block.requests else np.zeros(n, np.uint64)
        block_R, row_R = newest.rows_of(code_R)
        at = np.flatnonzero(block_R >= 0)
        if len(at):
            block, sources = self._from_newest(block, sources, newest, at, block_R[at], row_R[at])
        requests = requests_of(block, self.inputs, sources=sources, items=self._items, views=self.views)
        past, events_R = self._past(block, sources)
        in_log = block_R >= 0
        for name in self._events:  # a file of events may know users that no row has
            in_log |= array(block.requests, f"@history.{name}.length") > 0
        states = self.states(requests.features, self.inputs.request)
        if "user" in states and self.id_maps["user"].space.policy == "hashed":  # a bucket is nobody's own
            stranger = ~states["user"].missing_n & ~in_log
            states["user"] = FieldState(states["user"].missing_n, stranger)
        pairs = {name: column for name, column in block.rows.items() if not name.startswith("@")}
        part = replace(self.inputs, request=self._pairs, candidate=(), histories=())
        told = requests_of(replace(block, requests=pairs), part, sources=(), items=None, views=self.views)
        states |= self.states(told.features, self._pairs)
        return Asked(
            requests=requests,
            pairs=pairs,
            in_log=tuple(in_log.tolist()),
            known=tuple(tuple(name for name, s in states.items() if s.known_n[r]) for r in range(n)),
            unknown=tuple(tuple(name for name, s in states.items() if s.unknown_n[r]) for r in range(n)),
            events=tuple(events_R.tolist()),
            past=past,
        )

    def states(self, block: FeatureBlock, fields: tuple[Field, ...]) -> dict[str, FieldState]:
        """What the run knew of the fields of a block; see `field_states`."""
        return field_states(block, fields, self.id_maps)

    def _from_newest(
        self,
        block: EncodedBlock,
        sources: tuple[HistorySource, ...],
        newest: NewestRequests,
        at: np.ndarray,
        block_m: np.ndarray,
        row_m: np.ndarray,
    ) -> tuple[EncodedBlock, tuple[HistorySource, ...]]:
        """Requests `at` with what their records do not say taken from the newest requests: features, and the lists of
        inline histories."""
        fields, requests = self.inputs.request, dict(block.requests)
        names = [name for field in fields for name in (field.name, f"{field.name}@weights") if name in requests]
        inline = [h.name for h in self.inputs.histories if self.schema.history(h.name).layout == "inline"]
        spans = [f"@history.{name}.{part}" for name in inline for part in ("end", "length")]
        others = newest.columns(block_m, row_m, [*names, *spans])
        bare = replace(self.inputs, candidate=(), histories=())
        own = requests_of(block, bare, sources=(), items=None, views=self.views).features
        missing: Columns = {name: state.missing_n for name, state in self.states(own, fields).items()}
        requests |= filled_in({name: requests[name] for name in names}, others, at, fields, missing)
        where = {history.name: place for place, history in enumerate(self.inputs.histories)}
        stores = list(sources)
        partition = np.array([newest.blocks[number].partition for number in block_m])
        for name in inline:
            end, length = (array(requests, f"@history.{name}.{part}").copy() for part in ("end", "length"))
            store_R = np.zeros(block.num_requests, np.int64)
            empty = length[at] == 0
            store_R[at[empty]] = 1 + partition[empty]
            end[at[empty]] = array(others, f"@history.{name}.end")[empty]
            length[at[empty]] = array(others, f"@history.{name}.length")[empty]
            kept = [stores[where[name]], *self.data.sources(name)]
            stores[where[name]], found = gathered(kept, store_R, Spans(end, length))
            requests |= {f"@history.{name}.end": found.end_R, f"@history.{name}.length": found.length_R}
        return replace(block, requests=requests), tuple(stores)

    def _past(
        self, block: EncodedBlock, sources: tuple[HistorySource, ...]
    ) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """The codes of the items that each request's events are of, and the number of its events in all histories."""
        n = block.num_requests
        codes: list[list[np.ndarray]] = [[] for _ in range(n)]
        events_R = np.zeros(n, np.int64)
        for history, source in zip(self.inputs.histories, sources, strict=True):
            end = array(block.requests, f"@history.{history.name}.end")
            length = array(block.requests, f"@history.{history.name}.length")
            events_R += length
            if self.schema.history(history.name).key_space != "item":
                continue
            positions, offsets = span_positions(end - length, end)
            items = np.asarray(source.columns["@item"])[positions]
            for r in range(n):
                codes[r].append(items[offsets[r] : offsets[r + 1]])
        return tuple(np.concatenate([np.empty(0, np.uint64), *parts]) for parts in codes), events_R
