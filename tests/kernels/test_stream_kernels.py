"""Kernels of streams of tokens: compiled bodies against torch's operations and against plain attention in float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.kernels.bodies import bodies
from fullrank.kernels.rms_norm import gated_rms_norm, rms_norm
from fullrank.kernels.rotate import turned_heads
from fullrank.kernels.stream_attention import MOST, attends_in_place, stream_attention
from fullrank.kernels.swiglu import swiglu

NEAR = {torch.float32: 3e-6, torch.bfloat16: 2e-2}


def drawn(*shape, dtype=torch.float32, seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return x.requires_grad_()


def near(found, expected, share):
    """No further apart than a share of the largest."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected.double(), rtol=0, atol=share * float(expected.abs().max()))


def results_of(function, *inputs):
    """What it gives, and the gradients of its inputs; a product that differs from element to element is learned."""
    for x in inputs:
        x.grad = None
    made = function(*inputs)
    made = made if isinstance(made, tuple) else (made,)
    loss = sum((y.float() * torch.linspace(-1, 2 + n, y.numel()).view_as(y)).sum() for n, y in enumerate(made))
    loss.backward()
    return [y.detach() for y in made] + [x.grad for x in inputs]


def both_bodies(function, *inputs):
    found = []
    for which in ("compiled", "reference"):
        with bodies(which):
            found.append(results_of(function, *inputs))
    return zip(*found, strict=True)


POINTWISE = {
    "rms_norm": (lambda x, gate, read, z, w: rms_norm(x, w, 1e-6), (0, 4)),
    "gated_rms_norm": (lambda x, gate, read, z, w: gated_rms_norm(x, gate, read, w, 1e-6), (0, 1, 2, 4)),
    "swiglu": (lambda x, gate, read, z, w: swiglu(z), (3,)),
}


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("width", [3, 48])
@pytest.mark.parametrize("name", POINTWISE)
def test_compiled_bodies_give_what_torch_gives(name, width, dtype):
    function, used = POINTWISE[name]
    x, gate, read, z = (drawn(5, 7, width * n, dtype=dtype, seed=n + k) for k, n in ((0, 1), (1, 1), (2, 1), (3, 2)))
    every = [x, gate, read, z, drawn(width, seed=9)]

    def of_used(*some):
        given = list(every)
        for at, one in zip(used, some, strict=True):
            given[at] = one
        return function(*given)

    for found, expected in both_bodies(of_used, *(every[at] for at in used)):
        near(found, expected, NEAR[dtype])


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("half", [1, 6])
def test_turned_heads_are_what_torch_gives_and_the_rest_stays(half, dtype):
    x = drawn(9, 2, 5 * 2 * half + 3, dtype=dtype)
    angles = torch.randn(4, half, generator=torch.Generator().manual_seed(1))
    place = torch.randint(4, (9, 2), generator=torch.Generator().manual_seed(2))

    def turned(x):
        return turned_heads(x.clone(), angles.cos(), angles.sin(), place, 5)

    for found, expected in both_bodies(turned, x):
        near(found, expected, NEAR[dtype])
    with bodies("compiled"):
        assert torch.equal(turned(x)[..., -3:], x[..., -3:])


def test_what_is_not_a_number_shows():
    gate = drawn(3, 8).detach()
    gate[1, 2] = torch.nan
    with bodies("compiled"):
        i, normed = gated_rms_norm(torch.ones(3, 8), gate, torch.ones(3, 8), torch.ones(8), 1e-6)
        lifted = swiglu(gate)
    assert i.isnan().nonzero().tolist() == [[1, 2]] and normed.isnan().any(1).tolist() == [False, True, False]
    assert lifted.isnan().any(1).tolist() == [False, True, False]


def test_far_gates_are_shut_or_open():
    x, read = torch.zeros(1, 4), torch.ones(1, 4)
    gate = torch.tensor([[-1e30, -200.0, 200.0, 1e30]])
    with bodies("compiled"):
        i, _ = gated_rms_norm(x, gate, read, torch.ones(4), 1e-6)
        lifted = swiglu(torch.cat([gate, read], dim=1))
    torch.testing.assert_close(i, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), rtol=0, atol=1e-37)
    torch.testing.assert_close(lifted, torch.tensor([[0.0, 0.0, 200.0, 1e30]]), rtol=1e-6, atol=1e-7)


def plain(q_Nhd, k_Nhd, v_Nhd, offsets, window):
    """Each stream with a mask, in float64."""
    made = []
    for low, high in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        q, k, v = (x[low:high].double().transpose(0, 1) for x in (q_Nhd, k_Nhd, v_Nhd))
        place = torch.arange(high - low)
        behind = place[:, None] - place
        seen = (behind >= 0) & (behind < (window or 1 << 40))
        scores = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
        made.append((scores.softmax(-1) @ v).transpose(0, 1))
    return torch.cat(made).to(q_Nhd.dtype)


def streams_of(lengths):
    return torch.tensor([0, *lengths]).cumsum(0)


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.one_of(st.integers(0, 40), st.sampled_from([16, 64, 65, 130])), min_size=1, max_size=5),
    window=st.one_of(st.none(), st.integers(1, 80)),
    width=st.sampled_from([2, 7, 12]),
)
def test_streams_attend_as_by_the_formula(lengths, window, width):
    offsets = streams_of(lengths)
    made = drawn(int(offsets[-1]), 3, 2, width)  # queries, keys and values of one product: rows of three

    def ours(made):
        return stream_attention(*made.unbind(1), offsets, window)

    def formula(made):
        return plain(*made.unbind(1), offsets, window)

    if len(made):
        for found, expected in zip(results_of(ours, made), results_of(formula, made), strict=True):
            near(found, expected, 1e-5)


@pytest.mark.parametrize("window", [None, 5])
def test_streams_in_bfloat16_are_those_of_its_numbers_in_float32(window):
    offsets = streams_of([3, 0, 70, 20])
    made = drawn(93, 3, 2, 8, dtype=torch.bfloat16)
    exact = made.detach().float().requires_grad_()
    found = results_of(lambda x: stream_attention(*x.unbind(1), offsets, window), made)
    expected = results_of(lambda x: stream_attention(*x.unbind(1), offsets, window), exact)
    for one, other in zip(found, expected, strict=True):
        near(one.float(), other, 2e-2)


def test_scores_of_any_size_are_weighed():
    offsets = streams_of([40])
    q, k, v = (drawn(40, 1, 4, seed=seed).detach() for seed in range(3))
    found = stream_attention(1e6 * q, 1e6 * k, v, offsets, None)
    torch.testing.assert_close(found, plain(1e6 * q, 1e6 * k, v, offsets, None), rtol=1e-4, atol=1e-4)


def test_a_stream_that_is_no_number_leaves_the_others_alone():
    offsets = streams_of([10, 20, 30])
    made = drawn(60, 3, 1, 8).detach()
    clean = stream_attention(*made.unbind(1), offsets, 4)
    made[15] = torch.nan
    found = stream_attention(*made.unbind(1), offsets, 4)
    assert found[15:19].isnan().flatten(1).all()
    assert torch.equal(found[30:], clean[30:]) and torch.equal(found[:10], clean[:10])


def test_threads_change_no_bit_of_streams():
    offsets = streams_of([5, 90, 33, 1, 64])
    made = drawn(193, 3, 2, 8)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(results_of(lambda x: stream_attention(*x.unbind(1), offsets, None), made))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_who_attends_in_place():
    with bodies("compiled"):
        assert attends_in_place(*[torch.zeros(4, 2, MOST)] * 3)
        assert not attends_in_place(*[torch.zeros(4, 2, MOST + 1)] * 3)
        assert not attends_in_place(*[torch.zeros(4, 2, 8).double()] * 3)
    with bodies("reference"):
        assert not attends_in_place(*[torch.zeros(4, 2, 8)] * 3)
    assert not attends_in_place(*[torch.zeros(4, 2, 8)] * 3)  # little work stays with torch


def test_sums_of_parts_are_those_of_one():
    x, weight = drawn(6_000, 24), drawn(24, seed=1)  # enough for compiled bodies and for several parts
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(results_of(lambda x, w: rms_norm(x, w, 1e-6), x, weight)[-1])
    finally:
        torch.set_num_threads(before)
    near(*found, 1e-5)
