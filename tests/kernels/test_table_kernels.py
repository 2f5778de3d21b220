"""The compiled bodies of the table step against their references, on any number of threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from fullrank.kernels.bodies import bodies, runs_compiled
from fullrank.kernels.gather import IdOutOfRange, gather
from fullrank.kernels.merge import merge
from fullrank.kernels.update import ftrl, lazy_adam, rowwise_adagrad

WIDTHS = st.sampled_from([1, 20, 256])  # every width is seconds of compiling
THREADS = st.integers(1, 3)
NO_ROWS = torch.empty(0, dtype=torch.int64)
ROWS = 40  # of an arena whose rows are updated


@contextmanager
def compiled_on(threads: int) -> Iterator[None]:
    """Compiled bodies, on that many threads even where each gets a single row."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with pytest.MonkeyPatch.context() as patch, bodies("compiled"):
            for name in ("gather", "merge", "rowwise_adagrad", "lazy_adam", "ftrl"):
                patch.setattr(f"fullrank.kernels.cpu.{name}.GRAIN", 1)
            yield
    finally:
        torch.set_num_threads(before)


def same(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """The same types, shapes and numbers; NaN is NaN."""
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


@given(
    width=WIDTHS,
    leading=st.sampled_from([(0,), (1,), (7,), (2, 5), (3, 0), (2, 1, 4)]),
    num_rows=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    threads=THREADS,
    seed=st.integers(0, 99),
)
def test_gather(width: int, leading: tuple[int, ...], num_rows: list[int], threads: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    num_rows_F = torch.tensor(num_rows)
    base_F = num_rows_F.cumsum(0) - num_rows_F
    weight_RD = torch.randn(sum(num_rows), width, generator=random)
    ids_nF = (torch.rand(*leading, len(num_rows), generator=random) * num_rows_F).long()
    with compiled_on(threads):
        got = gather(weight_RD, ids_nF, base_F, num_rows_F)
    with bodies("reference"):
        same(got, gather(weight_RD, ids_nF, base_F, num_rows_F))


@pytest.mark.parametrize("id", [-1, 4, -(2**63), 2**63 - 1])
@pytest.mark.parametrize("owner", [0, 29])
def test_gather_names_an_id_outside_its_table(id: int, owner: int) -> None:
    """Wherever it is, and whatever part of the work it is in."""
    ids_nF = torch.zeros(30, 3, dtype=torch.int64)
    ids_nF[owner, 1:] = id
    expected = f"Expected ids of column 1 to be rows of its table, got {id}\\."
    with compiled_on(3), pytest.raises(IdOutOfRange, match=expected) as found:
        gather(torch.randn(12, 20), ids_nF, torch.tensor([0, 4, 8]), torch.tensor([4, 4, 4]))
    assert (found.value.column, found.value.id) == (1, id)


def large_zeros(path: Path, *shape: int) -> Tensor:
    """Zeros of a file without contents, which take no room."""
    return torch.from_numpy(np.memmap(path, dtype=np.float32, mode="w+", shape=shape))


def test_numbers_beyond_2_to_the_31(tmp_path: Path) -> None:
    """The number of a row's first element needs more than 32 bits: of fewer, another row would be read or written."""
    num_rows = 2**31 // 20 + 8
    first, last = num_rows - 7, num_rows - 1
    weight_RD, acc_R = large_zeros(tmp_path / "weight", num_rows, 20), large_zeros(tmp_path / "acc", num_rows)
    mean_RD, square_RD = (large_zeros(tmp_path / name, num_rows, 20) for name in ("mean", "square"))
    rows_U, grad_UD = torch.tensor([1, first, last]), torch.ones(3, 20)
    with compiled_on(2):
        rowwise_adagrad(weight_RD, acc_R, rows_U, grad_UD, lr=1.0, eps=0.0, scale=1.0)
        constants: Any = {"betas": (0.0, 0.0), "rate": 1.0, "bias": 1.0, "eps": 0.0, "scale": 1.0, "shrunk_U": None}
        lazy_adam(weight_RD, mean_RD, square_RD, rows_U, grad_UD, **constants)
        ids_nF, base_F = torch.tensor([[1, 0], [0, 6]]), torch.tensor([0, first])
        x_nFD, rows_nF = gather(weight_RD, ids_nF, base_F, torch.tensor([2, 7]))
    assert weight_RD[[0, 1, first, first + 1, last], 0].tolist() == [0, -2, -2, 0, -2]
    assert x_nFD[:, :, 19].tolist() == [[-2, -2], [0, -2]]
    assert rows_nF.tolist() == [[1, first], [0, last]]


@given(
    width=WIDTHS,
    values=st.sampled_from(
        [
            range(1),  # all are duplicates
            range(5),
            range(10**6),  # few are
            range(2**31 - 3, 2**31 + 2),
            range(2**32 - 1, 2**32),  # the largest that are compiled
            range(2**32 - 4, 2**32),
            range(2**32 - 2, 2**32 + 2),
            range(2**40, 2**40 + 40),
        ]
    ),
    num=st.sampled_from([0, 1, 2, 40]),
    has_sources=st.booleans(),
    dropped=st.sets(st.integers(0, 39)),
    threads=THREADS,
    seed=st.integers(0, 99),
)
@example(width=20, values=range(2**32 - 1, 2**32), num=40, has_sources=False, dropped=set(), threads=3, seed=0)
def test_merge(
    width: int, values: range, num: int, has_sources: bool, dropped: set[int], threads: int, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    rows_N = torch.randint(values.start, values.stop, (num,), generator=random)
    sources_N = torch.randint(0, 3, (num,), generator=random) if has_sources else None
    # Small whole numbers: their sums are exact, whatever the order.
    grads_nD = torch.randint(-9, 10, (3 if has_sources else num, width), generator=random).float()
    if num > 1:
        grads_nD[1, -1] = torch.nan
    dropped_rows = torch.tensor(sorted(values.start + at for at in dropped), dtype=torch.int64)
    with compiled_on(threads):
        got = merge(rows_N, grads_nD, sources_N, dropped_rows)
    with bodies("reference"):
        same(got, merge(rows_N, grads_nD, sources_N, dropped_rows))


@pytest.mark.parametrize("dropped", [[0], [39], [0, 17, 39], list(range(40)), [-5, 99]])
def test_merge_drops_rows_at_both_ends_and_all(dropped: list[int]) -> None:
    rows_N = torch.arange(40).repeat(2)
    grads_nD = torch.arange(80.0).unsqueeze(-1).repeat(1, 20)
    for threads in (1, 2, 3):
        with compiled_on(threads):
            rows_U, values_UD = merge(rows_N, grads_nD, None, torch.tensor(dropped))
        left = [row for row in range(40) if row not in dropped]
        assert rows_U.tolist() == left
        assert values_UD[:, 0].tolist() == [row + row + 40 for row in left]


def test_merge_gives_the_bits_of_one_by_one_on_any_number_of_threads() -> None:
    """Numbers of which the sum depends on the order; one row is a third of all and so crosses the cuts of threads."""
    random = torch.Generator().manual_seed(0)
    rows_N = torch.randint(0, 900, (30_000,), generator=random)
    rows_N[:10_000] = 450
    grads_nD = torch.randn(30_000, 20, generator=random)
    expected = np.zeros((900, 20), dtype=np.float32)
    np.add.at(expected, rows_N.numpy(), grads_nD.numpy())
    for threads in (1, 2, 3):
        with compiled_on(threads):
            same(merge(rows_N, grads_nD, None, NO_ROWS), (torch.arange(900), torch.from_numpy(expected)))


# A step of the arena (weight, mean or z, square or n, accumulator), its rows and gradients, and the scale.
Step = Callable[[list[Tensor], Tensor, Tensor, float], None]


def adagrad_step(state: list[Tensor], rows_U: Tensor, grad_UD: Tensor, scale: float) -> None:
    rowwise_adagrad(state[0], state[3], rows_U, grad_UD, lr=0.1, eps=1e-8, scale=scale)


def adam_step(state: list[Tensor], rows_U: Tensor, grad_UD: Tensor, scale: float) -> None:
    adam(state, rows_U, grad_UD, scale, None)


def decaying_adam_step(state: list[Tensor], rows_U: Tensor, grad_UD: Tensor, scale: float) -> None:
    adam(state, rows_U, grad_UD, scale, 1 / (rows_U + 1.5))


def adam(state: list[Tensor], rows_U: Tensor, grad_UD: Tensor, scale: float, shrunk_U: Tensor | None) -> None:
    constants: Any = {"betas": (0.9, 0.99), "rate": 0.1, "bias": 0.5, "eps": 1e-8}
    lazy_adam(state[0], state[1], state[2], rows_U, grad_UD, scale=scale, shrunk_U=shrunk_U, **constants)


def ftrl_step(state: list[Tensor], rows_U: Tensor, grad_UD: Tensor, scale: float) -> None:
    ftrl(state[0], state[1], state[2], rows_U, grad_UD, lr=0.1, beta=1.0, l1=0.3, l2=0.01, scale=scale)


STEPS = [adagrad_step, adam_step, decaying_adam_step, ftrl_step]


def updated(step: Step, before: list[Tensor], rows_U: Tensor, grad_UD: Tensor, scale: float) -> list[Tensor]:
    after = [x.clone() for x in before]
    step(after, rows_U, grad_UD, scale)
    return after


@given(
    step=st.sampled_from(STEPS),
    width=WIDTHS,
    num=st.sampled_from([0, 1, 2, 33, ROWS]),
    scale=st.sampled_from([1.0, 0.3, 0.0]),
    threads=THREADS,
    seed=st.integers(0, 99),
)
def test_updates(step: Step, width: int, num: int, scale: float, threads: int, seed: int) -> None:
    """Equal up to rounding; NaN stays where it is; every row that got no gradient has the bits it had."""
    random = torch.Generator().manual_seed(seed)
    before = [torch.randn(ROWS, width, generator=random) for _ in range(2)]
    before += [torch.rand(ROWS, width, generator=random), torch.rand(ROWS, generator=random)]
    before[2] *= before[2] > 0.2  # where nothing was summed yet
    rows_U = torch.randperm(ROWS, generator=random)[:num].sort().values
    grad_UD = torch.randn(num, width, generator=random)
    if num > 1:
        grad_UD[1, -1] = torch.nan
    with compiled_on(threads):
        got = updated(step, before, rows_U, grad_UD, scale)
    with bodies("reference"):
        expected = updated(step, before, rows_U, grad_UD, scale)
    others = torch.ones(ROWS, dtype=torch.bool).index_fill_(0, rows_U, False)
    atol = 1e-5 if step is ftrl_step else 1e-6  # its z is a difference of numbers of up to 50
    for one, other, old in zip(got, expected, before, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=atol, equal_nan=True)
        assert torch.equal(one[others], old[others])


@pytest.mark.parametrize("step", STEPS)
def test_updates_give_the_same_bits_on_any_number_of_threads(step: Step) -> None:
    random = torch.Generator().manual_seed(1)
    before = [torch.rand(ROWS, 20, generator=random) for _ in range(3)] + [torch.rand(ROWS, generator=random)]
    rows_U, grad_UD = torch.arange(1, ROWS, 2), torch.randn(ROWS // 2, 20, generator=random)
    with compiled_on(1):
        expected = updated(step, before, rows_U, grad_UD, 0.3)
    for threads in (2, 3):
        with compiled_on(threads):
            same(tuple(updated(step, before, rows_U, grad_UD, 0.3)), tuple(expected))


def test_the_faces_run_these_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without this, a face that runs its reference would pass all of the above."""

    class Ran(Exception):
        pass

    def runs(*arguments: object) -> None:
        raise Ran

    for name in ("gather", "merge", "rowwise_adagrad", "lazy_adam", "ftrl"):
        monkeypatch.setattr(f"fullrank.kernels.cpu.{name}.{name}_on_cpu", runs)
    one, row = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)
    with compiled_on(1):
        with pytest.raises(Ran):
            gather(one, row[:, None], row, row + 1)
        with pytest.raises(Ran):
            merge(row, one, None, NO_ROWS)
        for step in STEPS:
            with pytest.raises(Ran):
                step([one, one, one, one[0]], row, one, 1.0)


def test_which_work_is_compiled() -> None:
    """Much of it, in float32 rows that lie one after another and are at most 256 wide; small work too if told to."""
    rows = torch.ones(4, 256)
    assert runs_compiled(100, 100, rows, rows)
    assert not runs_compiled(99, 100, rows)
    for other in (rows.double(), rows.bfloat16(), rows.T, torch.ones(1, 257), rows.to("meta")):
        assert not runs_compiled(100, 100, rows, other)
    with bodies("compiled"):
        assert runs_compiled(1, 100, rows)
        assert not runs_compiled(0, 100, rows)
        with bodies("reference"):
            assert not runs_compiled(100, 100, rows)
        assert runs_compiled(1, 100, rows)
    assert not runs_compiled(1, 100, rows)
