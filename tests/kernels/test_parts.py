"""Work cut into parts: every part once, in whatever thread it is asked for, and errors come out."""

import itertools
import os
import threading

import pytest
import torch

from fullrank.kernels import parts
from fullrank.kernels.parts import even_cuts, in_parts


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("num", [0, 1, 7, 1000])
def test_cuts_cover_the_range_in_parts_of_at_least_a_grain(threads, num):
    cuts = even_cuts(num, 10)
    assert cuts[0] == 0 and cuts[-1] == num and len(cuts) - 1 <= threads
    if len(cuts) > 2:
        assert min(high - low for low, high in itertools.pairwise(cuts)) >= 10


@pytest.mark.parametrize("in_main", [True, False])
@pytest.mark.parametrize("openmp", [True, False])
def test_every_part_runs_once_in_order_of_results(threads, in_main, openmp, monkeypatch):
    if not openmp:
        monkeypatch.setattr(parts, "_openmp", lambda: None)
    done = []

    def work(low, high, shift):
        done.append((low, high))
        return low + shift

    found = []

    def ask():
        found.append(in_parts(work, [0, 3, 3, 10, 11], 100))

    if in_main:
        ask()
    else:
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    assert found == [[100, 103, 103, 110]]
    assert sorted(done) == [(0, 3), (3, 3), (3, 10), (10, 11)]


@pytest.mark.parametrize("openmp", [True, False])
def test_an_error_of_any_part_comes_out(openmp, monkeypatch):
    if not openmp:
        monkeypatch.setattr(parts, "_openmp", lambda: None)

    def work(low, high):
        if low == 2:
            raise KeyError("of the last part")

    with pytest.raises(KeyError, match="of the last part"):
        in_parts(work, [0, 1, 2, 3])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own():
    in_parts(lambda low, high: None, [0, 1, 2])  # the parent has used both kinds of threads
    child = os.fork()
    if child == 0:
        good = in_parts(lambda low, high: low, [0, 1, 2, 3]) == [0, 1, 2]
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
