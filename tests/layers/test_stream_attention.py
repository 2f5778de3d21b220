"""Streams of unequal length beside padded attention with a mask, and the masks' own golden values."""

from __future__ import annotations

import itertools

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fullrank.layers.rope import Rotation
from fullrank.layers.stream_attention import (
    Streams,
    full_attention,
    stream_mask,
    tail_attention,
    window_attention,
)
from fullrank.layers.stream_targets import target_attention

HEADS, WIDTH = 2, 4


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rotate(x_Shd, positions_S):
    """What `Rotation` does, by the formula, to heads cut in two."""
    low, high = x_Shd.chunk(2, dim=-1)
    half = low.shape[-1]
    angles_S1d = positions_S.double()[:, None, None] * 10_000.0 ** -(torch.arange(half).double() / half)
    cos, sin = angles_S1d.cos(), angles_S1d.sin()
    return torch.cat([low * cos - high * sin, low * sin + high * cos], dim=-1)


def turned(x_Shd, positions_S):
    """The same by `Rotation`."""
    rotation = Rotation.of(positions_S, HEADS * WIDTH, HEADS, torch.float64)
    return rotation(x_Shd.flatten(1).repeat(1, 3)).unflatten(1, (3, HEADS, WIDTH))[:, 0]


def streams_of(lengths):
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return Streams(offsets, torch.zeros(int(offsets[-1]), dtype=torch.int64))


def naive(q_Shd, k_Shd, v_Shd, mask_SS):
    scores = torch.einsum("qhd,khd->hqk", q_Shd, k_Shd) / q_Shd.shape[-1] ** 0.5
    weights = scores.masked_fill(~mask_SS, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v_Shd)


def test_t1_golden_mask():
    rows = ["10000000", "11000000", "00100000", "00110000", "00111000", "00011100", "00001110", "00000111"]
    found = stream_mask(8, 2, 3)
    assert ["".join(str(int(one)) for one in row) for row in found] == rows
    assert torch.equal(stream_mask(8, 2), torch.ones(8, 8).tril().bool())


def test_t2_visible_pairs():
    assert int(stream_mask(10, 3).sum()) == 55 and int(stream_mask(10, 3, 2).sum()) == 18
    assert int(stream_mask(60, 8).sum()) == 1830
    assert int(stream_mask(60, 8, 16).sum()) == 748 and int(stream_mask(60, 8, 32).sum()) == 1204
    assert int(stream_mask(60, 8, 16)[8:].sum()) == 712
    assert stream_mask(60, 8, 16).any(1).all() and stream_mask(10, 3, 1).any(1).all()


def test_t5_all_ways_to_attend_agree():
    x = [drawn(9, HEADS, WIDTH, seed=seed) for seed in range(3)]
    for static, window in ((0, None), (2, 3)):
        mask = stream_mask(9, static, window)
        library = F.scaled_dot_product_attention(*(one.transpose(0, 1) for one in x), attn_mask=mask).transpose(0, 1)
        torch.testing.assert_close(library, naive(*x, mask), rtol=0, atol=1e-10)


lengths = st.lists(st.integers(0, 23), min_size=1, max_size=7).filter(any)


@settings(deadline=None)
@given(lengths, st.integers(1, 9), st.integers(0, 99))
def test_t5_ragged_attention_is_masked_attention(lengths, window, seed):
    streams = streams_of(lengths)
    q, k, v = (drawn(streams.num_tokens, HEADS, WIDTH, seed=3 * seed + n) for n in range(3))
    full, near = full_attention(q, k, v, streams), window_attention(q, k, v, streams, window)
    for low, high in zip(streams.offsets[:-1].tolist(), streams.offsets[1:].tolist(), strict=True):
        own = [x[low:high] for x in (q, k, v)]
        if high > low:
            torch.testing.assert_close(full[low:high], naive(*own, stream_mask(high - low, 0)), rtol=0, atol=1e-10)
            mask = stream_mask(high - low, 0, window)
            torch.testing.assert_close(near[low:high], naive(*own, mask), rtol=0, atol=1e-10)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=5),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(1, 3),
    st.integers(0, 99),
)
def test_targets_see_their_stream_and_themselves(lengths, window, num_targets, tokens, seed):
    streams, limit = streams_of(lengths), window or None
    keys, values = (drawn(streams.num_tokens, HEADS, WIDTH, seed=seed + n) for n in range(2))
    q, k, v = (drawn(num_targets, tokens, HEADS, WIDTH, seed=seed + n) for n in (5, 6, 7))
    draw = torch.Generator().manual_seed(seed)
    stream_of_B = torch.randint(0, len(lengths), (num_targets,), generator=draw)
    found = target_attention(q, k, v, keys, values, streams, stream_of_B, limit)
    for b, stream in enumerate(stream_of_B.tolist()):
        low, high = int(streams.offsets[stream]), int(streams.offsets[stream + 1])
        low = low if limit is None else max(low, high - limit + 1)
        own = [torch.cat([x[low:high], one[b]]) for x, one in ((keys, k), (values, v))]
        seen = torch.ones(tokens, high - low + tokens, dtype=torch.bool).tril(high - low)
        expected = naive(q[b], *own, seen)
        torch.testing.assert_close(found[b], expected, rtol=0, atol=1e-6)  # scores of targets are float32


@settings(deadline=None)
@given(lengths, st.integers(0, 30), st.integers(0, 99))
def test_the_newest_tokens_read_what_they_read_among_all(lengths, tail, seed):
    streams = streams_of(lengths)
    q, k, v = (drawn(streams.num_tokens, HEADS, WIDTH, seed=3 * seed + n) for n in range(3))
    kept, alone = streams.newest_alone(tail)
    ends = itertools.pairwise(streams.offsets.tolist())
    every = [range(max(low, high - tail), high) for low, high in ends]
    assert kept.tolist() == [at for tokens in every for at in tokens]
    assert alone.lengths.tolist() == [len(tokens) for tokens in every]
    found = tail_attention(q[kept], k, v, streams, tail)
    torch.testing.assert_close(found, full_attention(q, k, v, streams)[kept], rtol=0, atol=1e-10)


def test_empty_streams_have_gradients_that_are_numbers():
    streams = streams_of([0, 3, 0])
    q, k, v = (drawn(3, HEADS, WIDTH, seed=n).requires_grad_() for n in range(3))
    target = [drawn(4, 1, HEADS, WIDTH, seed=n).requires_grad_() for n in (3, 4, 5)]
    read = target_attention(*target, k, v, streams, torch.tensor([0, 1, 1, 2]), 2)
    total = full_attention(q, k, v, streams).sum() + window_attention(q, k, v, streams, 2).sum() + read.sum()
    total = total + tail_attention(q[1:], k, v, streams, 2).sum()
    total.backward()
    assert all(x.grad.isfinite().all() for x in (q, k, v, *target) if x.grad is not None)
    assert torch.equal(read[0], target[2][0]) and torch.equal(read[3], target[2][3])


def test_t7_only_differences_of_positions_matter():
    q, k = drawn(6, HEADS, WIDTH), drawn(6, HEADS, WIDTH, seed=1)
    positions = torch.tensor([0, 0, 1, 2, 3, 9])

    def scores(shift):
        return torch.einsum("qhd,khd->hqk", turned(q, positions + shift), turned(k, positions + shift))

    torch.testing.assert_close(scores(0), scores(1000), rtol=0, atol=1e-10)
    assert torch.equal(turned(q, positions)[:2], q[:2])


def test_t7_queries_and_keys_of_whole_rows_are_turned_and_values_are_not():
    made = drawn(6, 3 * HEADS * WIDTH)
    positions = torch.tensor([0, 0, 7, 2, 2, 900])
    found = Rotation.of(positions, HEADS * WIDTH, HEADS, made.dtype)(made).unflatten(1, (3, HEADS, WIDTH))
    q, k, v = made.unflatten(1, (3, HEADS, WIDTH)).unbind(1)
    expected = torch.stack([rotate(q, positions), rotate(k, positions), v], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
