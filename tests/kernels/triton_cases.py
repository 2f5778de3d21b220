"""Kernels with Triton bodies against their references. Not collected: `test_triton_bodies.py` runs this file in a
process whose Triton interprets, so that tensors on a CPU do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fullrank.kernels import bodies as bodies_module
from fullrank.kernels import gather as gather_module
from fullrank.kernels import merge as merge_module
from fullrank.kernels import update as update_module
from fullrank.kernels.bodies import bodies
from fullrank.kernels.gather import IdOutOfRange, gather
from fullrank.kernels.gpu import gather as gather_body
from fullrank.kernels.gpu import lazy_adam as lazy_adam_body
from fullrank.kernels.gpu import merge as merge_body
from fullrank.kernels.gpu import rowwise_adagrad as rowwise_adagrad_body
from fullrank.kernels.merge import merge
from fullrank.kernels.update import lazy_adam, rowwise_adagrad

WIDTHS = st.sampled_from([1, 3, 16, 20, 257])
FEW = settings(max_examples=10)  # the interpreter takes milliseconds an instruction
NO_ROWS = torch.empty(0, dtype=torch.int64)


@pytest.fixture(autouse=True, scope="module")
def tensors_count_as_on_a_gpu() -> Iterator[None]:
    """All of these tests are too small for compiled bodies, so a face runs Triton, or the reference if told to."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (gather_module, merge_module, update_module):
            patch.setattr(module, "runs_triton", lambda *rows: bodies_module._bodies != "reference")
        yield


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(got: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@FEW
@given(
    width=WIDTHS,
    leading=st.sampled_from([(0,), (1,), (7,), (2, 5), (3, 0)]),
    num_rows=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.int32, torch.int64]),
    seed=st.integers(0, 99),
)
def test_gather(width: int, leading: tuple[int, ...], num_rows: list[int], dtype: torch.dtype, seed: int) -> None:
    random = draws(seed)
    num_rows_F = torch.tensor(num_rows)
    base_F = num_rows_F.cumsum(0) - num_rows_F
    weight_RD = torch.randn(sum(num_rows), width, generator=random)
    ids_nF = (torch.rand(*leading, len(num_rows), generator=random) * num_rows_F).to(dtype)
    got = gather(weight_RD, ids_nF, base_F, num_rows_F)
    with bodies("reference"):
        same(got, gather(weight_RD, ids_nF, base_F, num_rows_F))


@pytest.mark.parametrize("id", [-1, 4, -(2**40), 2**62])
def test_gather_names_an_id_outside_its_table(id: int) -> None:
    ids_nF = torch.zeros(300, 3, dtype=torch.int64)
    ids_nF[299, 1] = id
    weight_RD, num_rows_F = torch.randn(12, 16), torch.tensor([4, 4, 4])
    with pytest.raises(IdOutOfRange, match=f"column 1 to be rows of its table, got {id}\\."):
        gather(weight_RD, ids_nF, torch.tensor([0, 4, 8]), num_rows_F)


def large_zeros(path: Path, *shape: int) -> Tensor:
    """Zeros of a file without contents, which take no room."""
    return torch.from_numpy(np.memmap(path, dtype=np.float32, mode="w+", shape=shape))


def test_numbers_beyond_2_to_the_31(tmp_path: Path) -> None:
    """The number of a row's first element needs more than 32 bits: of fewer, another row would be read or written."""
    num_rows = 2**31 // 16 + 8
    first, last = num_rows - 8, num_rows - 1
    weight_RD = large_zeros(tmp_path / "weight", num_rows, 16)
    acc_R = large_zeros(tmp_path / "acc", num_rows)
    rowwise_adagrad(weight_RD, acc_R, torch.tensor([1, first, last]), torch.ones(3, 16), lr=1.0, eps=1e-30, scale=1.0)
    assert weight_RD[[0, 1, first, first + 1, last], 0].tolist() == [0, -1, -1, 0, -1]
    ids_nF, base_F = torch.tensor([[1, 0], [0, 7]], dtype=torch.int32), torch.tensor([0, first])
    x_nFD, rows_nF = gather(weight_RD, ids_nF, base_F, torch.tensor([2, 8]))
    assert x_nFD[:, :, 15].tolist() == [[-1, -1], [0, -1]]
    assert rows_nF.tolist() == [[1, first], [0, last]]


@FEW
@given(
    width=WIDTHS,
    values=st.sampled_from([range(1), range(5), range(2**31 - 3, 2**31 + 2), range(2**40, 2**40 + 40)]),
    num=st.sampled_from([0, 1, 2, 40]),
    has_sources=st.booleans(),
    dropped=st.sets(st.integers(0, 39)),
    seed=st.integers(0, 99),
)
def test_merge(width: int, values: range, num: int, has_sources: bool, dropped: set[int], seed: int) -> None:
    random = draws(seed)
    rows_N = torch.randint(values.start, values.stop, (num,), generator=random)
    sources_N = torch.randint(0, 3, (num,), generator=random) if has_sources else None
    # Small whole numbers: their sums are exact, whatever the order.
    grads_nD = torch.randint(-9, 10, (3 if has_sources else num, width), generator=random).float()
    dropped_rows = torch.tensor(sorted(values.start + at for at in dropped), dtype=torch.int64)
    got = merge(rows_N, grads_nD, sources_N, dropped_rows)
    with bodies("reference"):
        same(got, merge(rows_N, grads_nD, sources_N, dropped_rows))


def test_merge_gives_the_same_bits_again() -> None:
    rows_N, grads_nD = torch.zeros(300, dtype=torch.int64), torch.randn(300, 20, generator=draws(0))
    got = merge(rows_N, grads_nD, None, NO_ROWS)
    same(merge(rows_N, grads_nD, None, NO_ROWS), got)
    torch.testing.assert_close(got[1][0], grads_nD.double().sum(0).float())


def touched(width: int, num: int, seed: int) -> tuple[torch.Generator, Tensor, Tensor]:
    """`num` of 40 rows and a gradient each, of which one number is NaN where there are several."""
    random = draws(seed)
    rows_U = torch.randperm(40, generator=random)[:num].sort().values
    grad_UD = torch.randn(num, width, generator=random)
    if num > 1:
        grad_UD[1, -1] = torch.nan
    return random, rows_U, grad_UD


@FEW
@given(width=WIDTHS, num=st.sampled_from([0, 1, 2, 33]), scale=st.sampled_from([1.0, 0.3]), seed=st.integers(0, 99))
def test_rowwise_adagrad(width: int, num: int, scale: float, seed: int) -> None:
    random, rows_U, grad_UD = touched(width, num, seed)
    before = torch.randn(40, width, generator=random), torch.rand(40, generator=random)
    got, expected = ([x.clone() for x in before] for _ in range(2))
    rowwise_adagrad(got[0], got[1], rows_U, grad_UD, lr=0.1, eps=1e-8, scale=scale)
    with bodies("reference"):
        rowwise_adagrad(expected[0], expected[1], rows_U, grad_UD, lr=0.1, eps=1e-8, scale=scale)
    close_where_touched(got, expected, before, rows_U)


@FEW
@given(
    width=WIDTHS,
    num=st.sampled_from([0, 1, 2, 33]),
    scale=st.sampled_from([1.0, 0.3]),
    decays=st.booleans(),
    seed=st.integers(0, 99),
)
def test_lazy_adam(width: int, num: int, scale: float, decays: bool, seed: int) -> None:
    random, rows_U, grad_UD = touched(width, num, seed)
    before = [torch.randn(40, width, generator=random) for _ in range(2)] + [torch.rand(40, width, generator=random)]
    shrunk_U = torch.rand(num, generator=random) if decays else None
    got, expected = ([x.clone() for x in before] for _ in range(2))

    def step(w_RD: Tensor, m_RD: Tensor, v_RD: Tensor) -> None:
        constants: Any = {"betas": (0.9, 0.99), "rate": 0.1, "bias": 0.5, "eps": 1e-8, "scale": scale}
        lazy_adam(w_RD, m_RD, v_RD, rows_U, grad_UD, shrunk_U=shrunk_U, **constants)

    step(*got)
    with bodies("reference"):
        step(*expected)
    close_where_touched(got, expected, before, rows_U)


def close_where_touched(
    got: list[Tensor], expected: list[Tensor], before: tuple[Tensor, ...] | list[Tensor], rows_U: Tensor
) -> None:
    """Equal up to rounding, NaN included; and every other row has the bits it had."""
    others = torch.ones(40, dtype=torch.bool).index_fill_(0, rows_U, False)
    for one, other, old in zip(got, expected, before, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)
        assert torch.equal(one[others], old[others])


def test_the_faces_run_these_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, a face that runs its reference would pass all of the above."""

    class Ran(Exception):
        pass

    def runs(*arguments: object) -> None:
        raise Ran

    monkeypatch.setattr(gather_body, "gather_on_gpu", runs)
    monkeypatch.setattr(merge_body, "merge_on_gpu", runs)
    monkeypatch.setattr(rowwise_adagrad_body, "rowwise_adagrad_on_gpu", runs)
    monkeypatch.setattr(lazy_adam_body, "lazy_adam_on_gpu", runs)
    one, row = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(Ran):
        gather(one, row, row, row + 1)
    with pytest.raises(Ran):
        merge(row, one, None, NO_ROWS)
    with pytest.raises(Ran):
        rowwise_adagrad(one, one[0], row, one, lr=1.0, eps=0.0, scale=1.0)
    with pytest.raises(Ran):
        lazy_adam(one, one, one, row, one, betas=(0, 0), rate=1.0, bias=1.0, eps=0.0, scale=1.0, shrunk_U=None)
