"""Packed rows: how far from what they were, and the same bits from either body on any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from fullrank.kernels.bodies import bodies
from fullrank.kernels.gather import IdOutOfRange
from fullrank.kernels.gather_compact import SCALE, gather_bfloat16, gather_int8, pack_bfloat16, pack_int8

KINDS = [(pack_bfloat16, gather_bfloat16), (pack_int8, gather_int8)]
TINY, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
LEAST_BFLOAT16 = 2.0**-133  # its smallest number above zero
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
# Numbers that lie near each other, numbers of any size, and those at the ends of the range.
NUMBERS = st.one_of(st.floats(-1, 1, width=32), FINITE, st.sampled_from([0.0, LARGEST, -LARGEST, TINY, 2.0**-149]))
ROWS = arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.sampled_from([1, 2, 7, 16])), elements=NUMBERS)
every_kind = pytest.mark.parametrize(("pack", "gather"), KINDS, ids=["bfloat16", "int8"])


@contextmanager
def compiled_on(threads: int) -> Iterator[None]:
    """Compiled bodies, on that many threads even where each gets a single row."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.MonkeyPatch.context() as patch, bodies("compiled"):
            patch.setattr("fullrank.kernels.cpu.gather_compact.GRAIN", 1)
            yield
    finally:
        torch.set_num_threads(before)


def read(rows: np.ndarray, pack: Callable[..., Tensor], gather: Callable[..., Tensor]) -> np.ndarray:
    """Rows packed and read again, in float64."""
    whole = torch.tensor([0]), torch.tensor([len(rows)])
    x_n1D = gather(pack(torch.from_numpy(rows)), torch.arange(len(rows)).unsqueeze(-1), *whole)
    assert x_n1D.dtype == torch.float32 and x_n1D.isfinite().all()
    return x_n1D.squeeze(1).double().numpy()


@given(rows=ROWS)
@example(rows=np.full((1, 1), LARGEST, np.float32))
@example(rows=np.array([[LARGEST, -1.0], [TINY, 2.0**-149], [0.0, -0.0]], np.float32))
def test_bfloat16_is_the_nearest_number_of_eight_bits(rows: np.ndarray) -> None:
    found, exact = read(rows, *KINDS[0]), rows.astype(np.float64)
    bound = np.maximum(2.0**-8 * np.abs(exact), LEAST_BFLOAT16 / 2)
    assert (np.abs(found - exact) <= bound).all()
    assert (found.astype(np.float32).view(np.uint32) & 0xFFFF == 0).all()
    ordinary = np.abs(exact) < 2.0**127
    # By another route: the candidates are the bits cut off, and the next number above.
    low = (rows.view(np.uint32) & 0xFFFF0000).view(np.float32).astype(np.float64)
    high = ((rows.view(np.uint32) & 0xFFFF0000) + 0x10000).view(np.float32).astype(np.float64)
    nearest = np.minimum(np.abs(low - exact), np.abs(high - exact))
    assert (np.abs(found - exact) == nearest)[ordinary].all()


def test_bfloat16_rounds_ties_to_even() -> None:
    rows = np.array([[1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, -1 - 3 * 2**-8]], np.float32)
    assert read(rows, *KINDS[0]).tolist() == [[1, 1 + 2**-6, -1, -1 - 2**-6]]


@given(rows=ROWS)
@example(rows=np.full((1, 1), LARGEST, np.float32))
@example(rows=np.nextafter(np.full((1, 1), LARGEST, np.float32), np.float32(0)))
@example(rows=np.array([[LARGEST, -LARGEST / 2], [200 * TINY, -TINY], [0.0, -0.0], [2.0**-149, 0.0]], np.float32))
def test_int8_is_within_half_a_step_of_the_rows_largest(rows: np.ndarray) -> None:
    found, exact = read(rows, *KINDS[1]), rows.astype(np.float64)
    step_n1 = np.abs(exact).max(1, keepdims=True) / 127
    kept_n1 = step_n1 > TINY * (1 + 1e-6)
    near = np.abs(found - exact) <= step_n1 / 2 * (1 + 1e-4)  # a quotient and a product are rounded beside
    assert (near | ~kept_n1).all()
    zeros_n1 = step_n1 < TINY * (1 - 1e-6)
    assert ((found == 0) | ~zeros_n1).all()


def test_int8_numbers_by_hand() -> None:
    rows = np.array([[127.0, -63.4, 0.5, 1.5], [0, 0, 0, 0], [-0.254, 0.1, 0.0009, 0.254]], np.float32)
    packed = pack_int8(torch.from_numpy(rows))
    assert packed.shape == (3, SCALE + 4) and packed.dtype == torch.uint8
    numbers = packed[:, SCALE:].view(torch.int8).tolist()
    assert numbers == [[127, -63, 0, 2], [0, 0, 0, 0], [-127, 50, 0, 127]]
    scales = packed[:, :SCALE].contiguous().view(torch.float32).flatten()
    assert scales.tolist() == pytest.approx([1.0, 0.0, 0.002])
    np.testing.assert_allclose(read(rows, *KINDS[1])[2], [-0.254, 0.1, 0, 0.254], rtol=1e-6)


@every_kind
@given(
    width=st.sampled_from([1, 20, 250]),  # every width is seconds of compiling
    leading=st.sampled_from([(0,), (1,), (7,), (2, 5), (3, 0), (2, 1, 4)]),
    num_rows=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_bodies_agree_bit_for_bit(
    pack: Callable[..., Tensor],
    gather: Callable[..., Tensor],
    width: int,
    leading: tuple[int, ...],
    num_rows: list[int],
    threads: int,
    seed: int,
) -> None:
    random = torch.Generator().manual_seed(seed)
    num_rows_F = torch.tensor(num_rows)
    base_F = num_rows_F.cumsum(0) - num_rows_F
    rows_RD = torch.randn(sum(num_rows), width, generator=random) * torch.randn(sum(num_rows), 1, generator=random)
    rows_RD[base_F] = 0  # padding
    ids_nF = (torch.rand(*leading, len(num_rows), generator=random) * num_rows_F).long()
    packed = pack(rows_RD)
    with compiled_on(threads):
        found = gather(packed, ids_nF, base_F, num_rows_F)
    with bodies("reference"):
        expected = gather(packed, ids_nF, base_F, num_rows_F)
    assert found.dtype == torch.float32 and found.shape == (*ids_nF.shape, width)
    assert torch.equal(found, expected)
    assert not found[ids_nF == 0].any()


@every_kind
@pytest.mark.parametrize("body", ["reference", "compiled"])
@pytest.mark.parametrize("id", [-1, 4, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("owner", [0, 29])
def test_an_id_outside_its_table_is_named(
    pack: Callable[..., Tensor], gather: Callable[..., Tensor], body: str, id: int, owner: int
) -> None:
    ids_nF = torch.zeros(30, 3, dtype=torch.int64)
    ids_nF[owner, 1:] = id
    which = compiled_on(3) if body == "compiled" else bodies("reference")
    expected = f"Expected ids of column 1 to be rows of its table, got {id}\\."
    with which, pytest.raises(IdOutOfRange, match=expected) as found:
        gather(pack(torch.randn(12, 20)), ids_nF, torch.tensor([0, 4, 8]), torch.tensor([4, 4, 4]))
    assert (found.value.column, found.value.id) == (1, id)


@every_kind
def test_rows_beyond_2_to_the_31_bytes(
    pack: Callable[..., Tensor], gather: Callable[..., Tensor], tmp_path: Path
) -> None:
    """The place of a row needs more than 32 bits: of fewer, another row would be read. The file takes no room."""
    row = pack(torch.arange(20.0).unsqueeze(0))
    num_rows = 2**31 // row.shape[1] + 8
    size = num_rows * row.shape[1] * row.element_size()
    file = np.memmap(tmp_path / "rows", dtype=np.uint8, mode="w+", shape=(size,))
    packed = torch.from_numpy(file).view(row.dtype).view(num_rows, -1)
    packed[-2] = row
    ids_nF, base_F = torch.tensor([[1, 0], [0, 6], [1, 7]]), torch.tensor([0, num_rows - 8])
    with compiled_on(2):
        x_nFD = gather(packed, ids_nF, base_F, torch.tensor([2, 8]))
    assert x_nFD[:, :, 19].tolist() == [[0, 0], [0, 19], [0, 0]]
