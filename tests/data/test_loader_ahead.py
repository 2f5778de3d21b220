"""Batches that are made ahead: the same ones, in the same order, no further than asked, and nothing goes on after."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from test_loader_order import INPUTS, _Data, _stream

from fullrank.data.ahead import ahead
from fullrank.data.loader import Loader
from fullrank.data.pack import visiting_order


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_what_is_made_ahead_comes_in_order_and_no_further_than_asked():
    begun = []

    def items():
        for number in range(20):
            begun.append(number)
            yield number

    with ThreadPoolExecutor(3) as pool:
        made = ahead(pool, lambda number: number * number, items(), depth=4)
        assert not begun
        assert next(made) == 0 and begun == list(range(5))
        assert next(made) == 1 and begun == list(range(6))
        assert list(made) == [number * number for number in range(2, 20)]


@pytest.mark.parametrize("bad", [1, 9])
def test_an_error_of_the_items_comes_after_the_results_before_it(bad: int):
    def items():
        yield from range(3)
        raise OSError("block 3 cannot be read")

    def checked(number: int) -> int:
        if number == bad:
            raise ValueError("block 1 is not what it should be")
        return number

    with ThreadPoolExecutor(2) as pool:
        made, came = ahead(pool, checked, items(), depth=5), []
        with pytest.raises((OSError, ValueError), match="block 1 is not" if bad == 1 else "block 3 cannot be read"):
            came.extend(iter(made.__next__, None))
        assert came == ([0] if bad == 1 else [0, 1, 2])


def test_an_error_comes_where_its_result_would_have():
    def broken(number: int) -> int:
        if number == 2:
            raise OSError("block 2 cannot be read")
        return number

    with ThreadPoolExecutor(2) as pool:
        made = ahead(pool, broken, range(9), depth=3)
        assert [next(made), next(made)] == [0, 1]
        with pytest.raises(OSError, match="block 2 cannot be read"):
            next(made)
        assert list(made) == []


@pytest.mark.parametrize("options", [{}, {"whole_requests": True}, {"shuffle": False}])
def test_batches_are_those_of_one_thread(options):
    data = _Data([[1, 2, 3, 4] * 3, [2] * 9, [5, 1] * 4, [1] * 30])
    options = {"batch_size": 8, "seed": 1, "shuffle": True, "window_blocks": 2, **options}
    loader = Loader(data, INPUTS, "train", **options)
    windows = map(loader._packed_window, loader._windows_from(2, 0))
    pieces = (loader._whole if loader.whole_requests else loader._even)(windows, 0)
    alone = [batch.candidates.features.ids_nF.tolist() for batch in map(loader._batch, pieces)]
    assert alone == [batch.candidates.features.ids_nF.tolist() for batch in loader.epoch(2)]


def test_an_epoch_that_is_dropped_leaves_no_thread():
    batches = Loader(_Data([[1] * 50] * 9), INPUTS, "train", batch_size=2, shuffle=True, window_blocks=2).epoch(0)
    next(batches)
    assert loader_threads()
    del batches
    assert not loader_threads()


def test_a_block_that_cannot_be_read_is_an_error_of_the_epoch_and_leaves_no_thread():
    class Broken(_Data):
        def read(self, block, inputs):
            if block.number == 3:
                raise OSError("block 3 is gone")
            return super().read(block, inputs)

    batches = Loader(Broken([[1] * 20] * 5), INPUTS, "train", batch_size=20).epoch(0)
    with pytest.raises(OSError, match="block 3 is gone"):
        list(batches)
    assert not loader_threads()


def test_rows_that_wait_for_the_next_window_stand_by_the_number_of_their_request():
    """So they stood before batches were made ahead; a run that is resumed meets the order it began with."""
    data = _Data([[1] * 10, [1] * 10])
    loader = Loader(data, INPUTS, "train", batch_size=7, seed=3, shuffle=True, window_blocks=1)
    alone = Loader(data, INPUTS, "train", batch_size=1, seed=3, shuffle=True, window_blocks=1)
    rows, single = ([row for row, _ in _stream(each)[0]] for each in (loader, alone))
    assert rows[:7] == single[:7] and rows[10:] == single[10:]
    assert rows[7:10] == sorted(single[7:10]) != single[7:10]


def test_only_kept_rows_are_visited_with_the_requests_they_need():
    request_of_row = np.array([0, 0, 1, 3, 3, 3, 4])
    order = visiting_order(request_of_row, 5, kept=np.array([1, 3, 5]), random=None)
    assert order is not None and order.rows.tolist() == [1, 3, 5]
    assert order.requests.tolist() == [0, 3] and order.request_of_row.tolist() == [0, 1, 1]
    shuffled = visiting_order(request_of_row, 5, kept=None, random=np.random.default_rng(0))
    assert shuffled is not None and sorted(shuffled.requests.tolist()) == [0, 1, 2, 3, 4]
    assert request_of_row[shuffled.rows].tolist() == shuffled.requests[shuffled.request_of_row].tolist()
    assert sorted(shuffled.rows.tolist()) == list(range(7)) and (np.diff(shuffled.request_of_row) >= 0).all()
    assert visiting_order(request_of_row, 5, kept=None, random=None) is None


def test_what_a_batch_holds_is_its_own():
    loader = Loader(_Data([[2] * 6]), INPUTS, "train", batch_size=3)  # requests are cut: both parts read the same one
    first, second, *_ = loader.epoch(0)
    first.requests.features.ids_nF.fill_(-1)
    first.candidates.features.ids_nF.fill_(-1)
    assert second.requests.features.ids_nF.tolist() == [[1], [2]]
    assert second.candidates.features.ids_nF.tolist() == [[3], [4], [5]]
