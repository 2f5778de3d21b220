"""Encoded columns → batch: packing, picking rows, histories out of several stores, what is not known yet."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
import torch

from fullrank.data.assemble import assemble, take
from fullrank.data.columns import NEVER, EncodedBlock, Ragged
from fullrank.data.history import HistorySource
from fullrank.data.inputs import Field, HistoryInputs, Inputs, TaskInput
from fullrank.data.pack import Unpacked, pack

SECOND = 1_000_000
ITEM = Field(name="item", kind="categorical", key_space="item")
EVENTS = HistoryInputs(
    name="seen",
    last_n=2,
    fields=(
        ITEM,
        Field(name="bought", kind="numeric"),
        Field(name="age", kind="numeric"),
        Field(name="item.brand", kind="categorical", key_space="brand"),
        Field(name="item.tags", kind="multi", key_space="tag"),
    ),
)
INPUTS = Inputs(
    request=(
        Field(name="vector", kind="vector", dim=2),
        Field(name="user", kind="categorical", key_space="user"),
        Field(name="interests", kind="multi", key_space="tag"),
    ),
    candidate=(Field(name="price", kind="numeric"), ITEM, Field(name="cost", kind="numeric")),
    histories=(EVENTS,),
    tasks=(TaskInput(name="click"), TaskInput(name="buy")),
)


class Catalogue:
    """Item i has brand 10 + i and the tags 1 … i, first seen at i seconds."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[int], list[int]]] = []

    def attributes(
        self,
        name: str,
        item_ids: np.ndarray,
        before_E: np.ndarray | None = None,
        codes_E: np.ndarray | None = None,
    ) -> np.ndarray | Ragged:
        assert before_E is not None
        self.asked.append((item_ids.tolist(), before_E.tolist()))
        seen = item_ids * SECOND < before_E
        if name == "brand":
            return np.where(seen, item_ids + 10, 1).astype(np.int32)
        tags = [list(range(1, i + 1)) if s else [] for i, s in zip(item_ids.tolist(), seen, strict=True)]
        values = np.array([tag for one in tags for tag in one], dtype=np.int32)
        return Ragged(values, np.cumsum([0, *map(len, tags)]))


def block() -> EncodedBlock:
    """Three requests at 4, 6 and 8 s with two, one and two rows."""
    return EncodedBlock(
        requests={
            "user": np.array([5, 6, 7], dtype=np.int32),
            "vector": np.arange(6, dtype=np.float32).reshape(3, 2),
            "interests": Ragged(np.array([3, 4, 5], dtype=np.int32), np.array([0, 2, 2, 3])),
            "interests@weights": Ragged(np.array([0.5, 1.0, 2.0], dtype=np.float32), np.array([0, 2, 2, 3])),
            "@user": np.array([50, 60, 2**63 + 1], dtype=np.uint64),
            "@time": np.array([4, 6, 8]) * SECOND,
            "@history.seen.end": np.array([2, 0, 5]),
            "@history.seen.length": np.array([2, 0, 3], dtype=np.int32),
        },
        rows={
            "@request": np.array([0, 0, 1, 2, 2], dtype=np.int32),
            "@time": np.array([4, 4, 6, 8, 8]) * SECOND,
            "item": np.array([11, 12, 13, 14, 15], dtype=np.int32),
            "price": np.array([1, 2, 3, 4, 5], dtype=np.float32),
            "cost": np.array([0.1, np.nan, 0.3, 0.4, 0.5], dtype=np.float32),
            "@weight": np.array([1, 2, 3, 4, 5], dtype=np.float32),
            "@label.click": np.array([1, 0, 1, 1, 0], dtype=np.float32),
            "@known_at.click": np.array([4, 4, NEVER // SECOND, 8, 9]) * SECOND,
            "@label.buy": np.array([1, 0, 0, 1, 0], dtype=np.float32),
            "@known_at.buy": np.array([5, 7, 9, 8, 11]) * SECOND,
        },
        num_requests=3,
        num_rows=5,
    )


def store(shift: int = 0) -> HistorySource:
    """Events 0 … 4; the outcome of event i is known at i + 2 s."""
    return HistorySource(
        {
            "item": np.array([1, 2, 7, 4, 5], dtype=np.int32) + shift,
            "time": np.arange(5) * SECOND,
            "available": np.arange(5) * SECOND,
            "bought": np.array([1, 0, 1, 0, 1], dtype=np.float32),
            "bought@known_at": (np.arange(5) + 2) * SECOND,
        }
    )


def whole(as_of: int = 8, items: Catalogue | None = None, **options):
    """The block as one batch."""
    options = {"views": {}, "windows": {}, **options}
    return assemble(block(), INPUTS, sources=(store(),), items=items or Catalogue(), as_of=as_of * SECOND, **options)


def test_fields_lie_in_the_order_of_the_inputs() -> None:
    batch = whole()
    request, candidate = batch.requests.features, batch.candidates.features
    assert request.ids_nF.tolist() == [[5], [6], [7]] and request.ids_nF.dtype == torch.int64
    assert request.vectors_nD[0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert request.bags[0].offsets.tolist() == [0, 2, 2, 3] and request.bags[0].ids_N.tolist() == [3, 4, 5]
    assert request.bags[0].weights_N is not None and request.bags[0].weights_N.tolist() == [0.5, 1.0, 2.0]
    assert candidate.ids_nF.tolist() == [[11], [12], [13], [14], [15]]
    assert candidate.numbers_nF[:, 0].tolist() == [1, 2, 3, 4, 5] and isnan(candidate.numbers_nF[1, 1])
    assert candidate.bags == () and candidate.vectors_nD == ()
    assert batch.requests.user_R.tolist() == [50, 60, -(2**63) + 1] and batch.requests.time_R.tolist()[2] == 8 * SECOND
    assert batch.candidates.request_of_row_B.tolist() == [0, 0, 1, 2, 2]


def test_a_label_counts_once_known_and_its_window_closed() -> None:
    labels = whole(as_of=8).labels
    assert labels is not None
    assert labels.known_BK.T.tolist() == [[True, True, False, True, False], [True, True, False, True, False]]
    assert labels.values_BK.T.tolist() == [[1, 0, 0, 1, 0], [1, 0, 0, 1, 0]]
    closed = whole(as_of=8, windows={"buy": 3 * SECOND}).labels
    assert closed is not None and closed.known_BK[:, 1].tolist() == [True, True, False, False, False]
    assert closed.values_BK[:, 1].tolist() == [1, 0, 0, 0, 0]
    assert labels.weight_B.tolist() == [1, 2, 3, 4, 5]
    assert labels.sample_rate_B.tolist() == labels.propensity_B.tolist() == [1.0] * 5
    assert whole(labels=False).labels is None


def test_a_history_is_the_newest_events_and_what_is_known_of_them() -> None:
    batch = whole()
    (history,) = batch.requests.histories
    assert history.offsets.tolist() == [0, 2, 2, 4]  # last_n = 2 of the three of request 2
    events = history.events
    assert events.ids_nF[:, 0].tolist() == [1, 2, 4, 5]
    bought = events.numbers_nF[:, 0].tolist()
    assert bought[0] == 1 and bought[1] == 0 and bought[2] == 0 and bought[3] == 1
    ages = [4, 3, 5, 4]  # seconds before the request
    assert events.numbers_nF[:, 1].tolist() == np.log10(1.0 + np.array(ages)).astype(np.float32).tolist()


def test_an_outcome_is_nan_up_to_the_very_moment_it_is_known_at() -> None:
    early = block()
    early.requests["@time"] = np.array([3, 6, 6]) * SECOND
    source = store()
    batch = assemble(early, INPUTS, sources=(source,), items=Catalogue(), views={}, as_of=0, windows={})
    bought = batch.requests.histories[0].events.numbers_nF[:, 0].tolist()
    assert bought[0] == 1 and isnan(bought[1])  # known at 2 and 3, asked at 3
    assert bought[2] == 0 and isnan(bought[3])  # known at 5 and 6, asked at 6


def test_attributes_are_asked_for_at_the_time_of_the_request() -> None:
    items = Catalogue()
    batch = whole(items=items)
    assert items.asked == [([1, 2, 4, 5], [4 * SECOND, 4 * SECOND, 8 * SECOND, 8 * SECOND])] * 2
    events = batch.requests.histories[0].events
    assert events.ids_nF[:, 1].tolist() == [11, 12, 14, 15]
    assert events.bags[0].ids_N.tolist() == [1, 1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 5]
    late = block()
    late.requests["@time"] = np.array([2, 6, 5]) * SECOND  # items 2 and 5 are first seen right then
    batch = assemble(late, INPUTS, sources=(store(),), items=items, views={}, as_of=0, windows={})
    events = batch.requests.histories[0].events
    assert events.ids_nF[:, 1].tolist() == [11, 1, 14, 1] and events.bags[0].offsets.tolist() == [0, 1, 1, 5, 5]


def test_without_any_item_every_attribute_is_missing() -> None:
    batch = assemble(block(), INPUTS, sources=(store(),), items=None, views={}, as_of=0, windows={})
    events = batch.requests.histories[0].events
    assert events.ids_nF.tolist() == [[1, 1], [2, 1], [4, 1], [5, 1]]
    assert events.bags[0].ids_N.tolist() == [] and events.bags[0].offsets.tolist() == [0] * 5


def test_views_are_laid_over_every_id_of_their_key_space() -> None:
    view = np.arange(20, dtype=np.int32)
    view[4:] = 2
    batch = whole(views={"item": view, "tag": view})
    assert batch.candidates.features.ids_nF[:, 0].tolist() == [2] * 5
    assert batch.requests.features.ids_nF[:, 0].tolist() == [5, 6, 7]
    assert batch.requests.features.bags[0].ids_N.tolist() == [3, 2, 2]
    events = batch.requests.histories[0].events
    assert events.ids_nF[:, 0].tolist() == [1, 2, 2, 2]
    assert events.ids_nF[:, 1].tolist() == [11, 12, 12, 12]  # attributes of the item that the model sees


def test_requests_come_in_order_of_their_first_row_and_once() -> None:
    packed = pack([Unpacked(block())], INPUTS, views={}, as_of=8 * SECOND, windows={})
    index = np.array([4, 2, 3, 0])
    batch = take(packed.take(index), INPUTS, sources=((store(),),), items=Catalogue(), views={})
    assert batch.requests.features.ids_nF.tolist() == [[7], [6], [5]]
    assert batch.candidates.request_of_row_B.tolist() == [0, 1, 0, 2]
    assert batch.candidates.features.ids_nF[:, 0].tolist() == [15, 13, 14, 11]
    assert batch.requests.histories[0].offsets.tolist() == [0, 2, 2, 4]
    assert batch.requests.histories[0].events.ids_nF[:, 0].tolist() == [4, 5, 1, 2]
    assert batch.requests.features.bags[0].offsets.tolist() == [0, 1, 1, 3]
    assert batch.labels is not None and batch.labels.weight_B.tolist() == [5, 3, 4, 1]


def test_no_rows_at_all_make_a_batch_of_nothing() -> None:
    packed = pack([Unpacked(block())], INPUTS, views={}, as_of=0, windows={})
    batch = take(packed.take(np.empty(0, np.int64)), INPUTS, sources=((store(),),), items=Catalogue(), views={})
    assert batch.num_rows == 0 and batch.requests.num_requests == 0
    assert batch.requests.histories[0].num_events == 0 and batch.requests.histories[0].offsets.tolist() == [0]
    assert batch.requests.features.vectors_nD[0].shape == (0, 2)


@pytest.mark.parametrize("index", [[0, 1, 2, 3, 4], [4, 0, 2], [2], [3, 0]])
def test_requests_may_read_from_several_stores(index: list[int]) -> None:
    """Requests 0 and 2 read another store than request 1: as if each were alone."""
    packed = pack([Unpacked(block())], INPUTS, views={}, as_of=0, windows={})
    for name, values in (("store", [1, 0, 1]), ("end0", [2, 3, 5]), ("length0", [2, 1, 3])):
        packed.requests.records_n[name][:, 0] = values
    stores = ((store(), store(shift=3)),)
    batch = take(packed.take(np.array(index)), INPUTS, sources=stores, items=Catalogue(), views={})
    expected = {0: [4, 5], 1: [7], 2: [7, 8]}
    requests = list(dict.fromkeys([0, 0, 1, 2, 2][row] for row in index))
    (history,) = batch.requests.histories
    found = [part.tolist() for part in torch.tensor_split(history.events.ids_nF[:, 0], history.offsets[1:-1])]
    assert found == [expected[request] for request in requests]
