"""Law 1. Two layouts, one truth: a log with its events grouped by user and the same log with its events in lists give
bit-identical batches, row by row in the same order.

What is fitted is fitted from what a row holds: a list counts an event once for every row that shows it, so counts (and
with them the order of ids) are the layout's own. The law is therefore held with the fitted state equal: taken from the
other layout, or with nothing to fit (hashed keys, unscaled numbers) and not a hand laid on.
"""

from __future__ import annotations

from dataclasses import replace

import laws_logs as logs
import laws_reading as reading
import numpy as np
import pytest
import torch

from fullrank.data.inputs import Inputs
from fullrank.data.partitions import PreparedData
from fullrank.data.splits import ByHash, ByTime, PerUserOrder, Split

SPLITS: tuple[Split, ...] = (ByTime(valid=0.1, test=0.2), PerUserOrder(valid=0.1, test=0.2), ByHash(test=0.3))


def assert_same_data(one: PreparedData, two: PreparedData, batch_size: int) -> None:
    num_events = np.zeros(len(one.schema.histories), dtype=int)
    for split in ("train", "valid", "test"):
        left, right = (reading.batches(data, split, batch_size) for data in (one, two))
        reading.assert_same(left, right)
        for batch in left:
            num_events += [history.num_events for history in batch.requests.histories]
    assert (num_events > 0).all()


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: type(split).__name__)
@pytest.mark.parametrize("name", logs.names())
def test_batches_are_the_same_when_nothing_is_fitted(name: str, split: Split, tmp_path) -> None:
    one, *others = (
        reading.prepared(replace(source, schema=reading.nothing_fitted(source.schema)), tmp_path / layout, split)
        for layout, source in logs.log(name).items()
    )
    for other in others:
        assert_same_data(one, other, batch_size=64)


@pytest.mark.parametrize("name", logs.names())
def test_batches_are_the_same_with_one_fitted_state(name: str, tmp_path) -> None:
    (_, first), *others = logs.log(name).items()
    one = reading.prepared(first, tmp_path / "first", SPLITS[0], block_rows=90)
    for layout, source in others:
        assert_same_data(one, reading.prepared_with(one.transform, source, tmp_path / layout, SPLITS[0]), batch_size=37)


@pytest.mark.parametrize("name", [name for name in logs.names() if name != "taac"])
def test_batches_show_the_same_keys_when_each_layout_fits_its_own(name: str, tmp_path) -> None:
    """The lists of training rows hold events of the log's own training rows, so the same keys get ids."""
    log = logs.log(name)
    both = [reading.prepared(log[layout], tmp_path / layout, SPLITS[0]) for layout in ("log", "inline")]
    maps = [data.transform.id_maps for data in both]
    for space in maps[0]:
        left, right = (np.sort(m[space].codes_of_ids(np.arange(m[space].num_rows))) for m in maps)
        assert np.array_equal(left, right), space
    for batch in zip(*(reading.batches(data, "test") for data in both), strict=True):
        for part, history in enumerate(Inputs.of(both[0].schema).histories):
            events = [one.requests.histories[part].events for one in batch]
            for place, field in enumerate(field for field in history.fields if field.kind == "categorical"):
                one, two = [
                    m[field.key_space].codes_of_ids(block.ids_nF[:, place].numpy())
                    for m, block in zip(maps, events, strict=True)
                ]
                assert np.array_equal(one, two), (history.name, field.name)
            assert torch.equal(*(block.numbers_nF.isnan() for block in events))
