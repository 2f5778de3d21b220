"""Rows of mapped files: the compiled body against the plain one, and both against a table in memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fullrank.kernels.bodies import bodies
from fullrank.kernels.disk_rows import Chunks, Held, read_rows
from fullrank.kernels.parts import in_waiting_parts


@given(
    width=st.sampled_from([1, 17]),  # every width read is seconds of compiling
    state=st.sampled_from([0, 3]),
    rows=st.integers(1, 40),
    shift=st.integers(0, 6),
    num=st.integers(0, 50),
    num_held=st.none() | st.integers(0, 40),
    seed=st.integers(0, 99),
)
def test_every_row_is_the_newest_there_is(
    width: int, state: int, rows: int, shift: int, num: int, num_held: int | None, seed: int
) -> None:
    random = np.random.default_rng(seed)
    table = random.standard_normal((rows, width + state)).astype(np.float32)
    chunks = Chunks.of([table[low : low + (1 << shift)].copy() for low in range(0, rows, 1 << shift)], 1 << shift)
    asked = torch.from_numpy(random.integers(0, rows, num))
    expected = torch.from_numpy(table)[asked, :width]
    held = None
    if num_held is not None:
        newer = torch.from_numpy(random.permutation(rows)[:num_held])
        rows_CD = torch.randn(len(newer) + 1, width)
        slot_S = torch.zeros(rows, dtype=torch.int32)
        slot_S[newer] = torch.arange(1, len(newer) + 1).int()
        held = Held(slot_S, rows_CD)
        now = torch.from_numpy(table[:, :width].copy())
        now[newer] = rows_CD[1:]
        expected = now[asked]
    for body in ("reference", "compiled"):
        with bodies(body), pytest.MonkeyPatch.context() as patch:
            if body == "compiled":
                patch.setattr("fullrank.kernels.cpu.disk_rows.GRAIN", 1)
            assert torch.equal(read_rows(chunks, asked, width, held), expected), body
            if held is None:
                assert torch.equal(read_rows(chunks, asked, width + state), torch.from_numpy(table)[asked])


def test_the_parts_of_a_loop_that_waits_are_the_whole() -> None:
    for num in (0, 1, 5, 1000):
        seen: list[int] = []
        in_waiting_parts(lambda low, high: seen.extend(range(low, high)), num, 3)  # noqa: B023 (called at once)
        assert sorted(seen) == list(range(num))


def test_an_error_in_a_part_is_the_callers() -> None:
    def fails(low: int, high: int) -> None:
        if high == 100:
            raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        in_waiting_parts(fails, 100, 1)
