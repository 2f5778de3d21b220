"""Top k: bodies against a sort of all scores, written with another library."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fullrank.kernels.bodies import Bodies, bodies
from fullrank.kernels.cpu import top_k as body
from fullrank.kernels.top_k import top_k

BOTH: list[Bodies] = ["reference", "compiled"]


def sorted_scores(queries_QD: Tensor, items_ND: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Best first, of equal ones the lower item: a stable sort of what is to be small."""
    scores_QN = queries_QD.numpy().astype(np.float64) @ items_ND.numpy().astype(np.float64).T
    items_Qk = np.argsort(-scores_QN, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores_QN, items_Qk, axis=1), items_Qk


@pytest.mark.parametrize("which", BOTH)
@given(
    num_queries=st.integers(1, 5),
    num_items=st.integers(1, 300),
    width=st.integers(1, 4),
    largest=st.sampled_from([0, 1, 30]),
    k=st.integers(1, 300),
    block=st.sampled_from([1, 64, 200, 1000]),
    room=st.sampled_from([1, 16]),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_it_is_the_head_of_a_stable_sort(
    which: Bodies,
    num_queries: int,
    num_items: int,
    width: int,
    largest: int,
    k: int,
    block: int,
    room: int,
    threads: int,
    seed: int,
) -> None:
    """Whole numbers: products are exact, and there are many ties; with blocks and room so small, notes are sorted
    many times, and most items do not pass."""
    random = torch.Generator().manual_seed(seed)
    queries_QD, items_ND = (
        torch.randint(-largest, largest + 1, (num, width), generator=random).float() for num in (num_queries, num_items)
    )
    k = min(k, num_items)
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch, bodies(which):
        patch.setattr(body, "BLOCK", block)
        patch.setattr(body, "ROOM", room)
        patch.setattr(body, "MOST", 3)
        torch.set_num_threads(threads)
        scores_Qk, items_Qk = top_k(queries_QD, items_ND, k)
        torch.set_num_threads(before)
    expected_scores, expected_items = sorted_scores(queries_QD, items_ND, k)
    assert (scores_Qk.dtype, items_Qk.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(items_Qk.numpy(), expected_items)
    np.testing.assert_array_equal(scores_Qk.numpy(), expected_scores)


@pytest.mark.parametrize("which", BOTH)
def test_infinite_scores_and_two_zeros(which: Bodies) -> None:
    """-0.0 and 0.0 are one score; one that is minus infinity is still better than none."""
    items_ND = torch.tensor([-torch.inf, -0.0, 0.0, torch.inf, -1.0, -0.0, -1e-45, 1e-45]).unsqueeze(-1)
    with bodies(which):
        scores_Qk, items_Qk = top_k(torch.ones(1, 1), items_ND, 8)
    assert items_Qk.tolist() in ([[3, 7, 1, 2, 5, 6, 4, 0]], [[3, 1, 2, 5, 6, 7, 4, 0]])  # without denormals: the last
    assert scores_Qk[0, [0, -1]].tolist() == [torch.inf, -torch.inf]


@pytest.mark.parametrize("which", BOTH)
@pytest.mark.parametrize("item", [0, 699])
def test_a_score_that_is_nan_is_named(which: Bodies, item: int) -> None:
    items_ND = torch.randn(700, 4)
    items_ND[item, 2] = torch.nan
    with bodies(which), pytest.raises(ValueError, match=f"got NaN for query 0 and item {item}\\."):
        top_k(torch.randn(3, 4), items_ND, 5)


@pytest.mark.parametrize("k", [0, 8])
def test_a_k_that_cannot_be_found_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=f"Expected k in 1\\.\\.7, the number of items, got {k}\\."):
        top_k(torch.ones(1, 2), torch.ones(7, 2), k)


def test_the_face_runs_the_body(monkeypatch: pytest.MonkeyPatch) -> None:
    sentinel = torch.ones(1), torch.ones(1)
    monkeypatch.setattr(body, "top_k_on_cpu", lambda *arguments: sentinel)
    with bodies("compiled"):
        assert top_k(torch.ones(1, 2), torch.ones(7, 2), 3) is sentinel
