"""Labels whose attribution window is still open do not count, early positives no more than silent negatives."""

from __future__ import annotations

import numpy as np

from fullrank.data.columns import NEVER, EncodedBlock
from fullrank.data.inputs import Inputs, TaskInput
from fullrank.data.pack import Unpacked, pack

INPUTS = Inputs(request=(), candidate=(), histories=(), tasks=(TaskInput(name="buy"),))
WINDOW = 100


def _known(time: list[int], label: list[float], known_at: list[int], as_of: int, window: int = WINDOW) -> list[bool]:
    n = len(time)
    rows = {
        "@request": np.arange(n, dtype=np.int32),
        "@time": np.array(time, dtype=np.int64),
        "@label.buy": np.array(label, dtype=np.float32),
        "@known_at.buy": np.array(known_at, dtype=np.int64),
    }
    block = EncodedBlock({"@time": rows["@time"]}, rows, n, n)
    rows = pack([Unpacked(block)], INPUTS, views={}, as_of=as_of, windows={"buy": window} if window else {}).rows
    values_BK, known_BK = rows.matrix("values", np.float32), rows.matrix("known", np.bool_)
    assert values_BK[~known_BK].tolist() == [0.0] * int((~known_BK).sum())
    return known_BK[:, 0].tolist()


def test_an_early_positive_waits_with_the_negatives_of_its_time():
    time, label, known_at = [0, 0, 50, 50], [1, 0, 1, 0], [10, 100, 60, 150]
    assert _known(time, label, known_at, as_of=99) == [False, False, False, False]
    assert _known(time, label, known_at, as_of=100) == [True, True, False, False]
    assert _known(time, label, known_at, as_of=150) == [True, True, True, True]


def test_what_counts_is_an_unbiased_sample_at_any_moment():
    """Rate of counted labels equals the true rate, whenever we look; counting early positives would raise it."""
    rng = np.random.default_rng(5)
    time = np.sort(rng.integers(0, 1_000, 20_000))
    label = rng.random(20_000) < 0.2
    known_at = np.where(label, time + rng.integers(0, WINDOW, 20_000), time + WINDOW)
    for as_of in (300, 700):
        known = np.array(_known(time.tolist(), label.astype(float).tolist(), known_at.tolist(), as_of))
        assert abs(label[known].mean() - 0.2) < 0.02
    early = known_at <= 300
    assert label[early].mean() > 0.22


def test_without_a_window_a_label_counts_once_it_is_known():
    assert _known([0, 0], [1, 0], [10, NEVER], as_of=10, window=0) == [True, False]
