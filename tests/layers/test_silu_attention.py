"""HSTU's attention: its mask, its distances, and streams of unequal length beside one at a time (S1)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from fullrank.layers.hstu_block import HSTUBlock
from fullrank.layers.silu_attention import SiLUWeights, silu_attention
from fullrank.layers.stream_attention import Streams

D, HEADS = 8, 2


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def block_with_bias(positions=4):
    block = HSTUBlock(D, HEADS, positions).double()
    with torch.no_grad():
        block.mixed.weight.copy_(drawn(4 * D, D, seed=1))
        block.weigh.bias_n.copy_(drawn(positions, seed=2))
    return block


def test_s1_the_mask_comes_after_silu():
    weigh = SiLUWeights(4).double()
    scores = torch.tensor([[[[1.0, -2.0, 3.0]]]], dtype=torch.float64)
    weight = weigh(scores, torch.tensor([[[1, -1, 0]]]))
    assert weight[0, 0, 0].tolist() == pytest.approx(
        [float(F.silu(torch.tensor(1.0))) / 4, 0, 3 / (1 + 2.718281828**-3) / 4]
    )


def test_s1_distances_have_numbers_of_their_own_up_to_the_last():
    weigh = SiLUWeights(3).double()
    with torch.no_grad():
        weigh.bias_n.copy_(torch.tensor([1.0, 2.0, 5.0]))
    weight = weigh(torch.zeros(1, 1, 1, 5, dtype=torch.float64), torch.tensor([[[0, 1, 2, 3, 99]]]))
    expected = F.silu(torch.tensor([1.0, 2.0, 5.0, 5.0, 5.0], dtype=torch.float64)) / 3
    torch.testing.assert_close(weight[0, 0, 0], expected)


def test_s1_nothing_sees_what_comes_after_it():
    block, x = block_with_bias(), drawn(6, D)
    other = x.clone()
    other[4:] += 1
    moved = (block(x) - block(other)).abs().amax(1) > 1e-9
    assert moved.tolist() == [False, False, False, False, True, True]


def test_a_layer_by_hand():
    """Two tokens, one head: every number of the equation once more."""
    block = HSTUBlock(2, 1, 4).double()
    with torch.no_grad():
        block.mixed.weight.copy_(drawn(8, 2))
        block.weigh.bias_n.copy_(drawn(4))
    x = drawn(2, 2, seed=3)
    normed = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    u, v, q, k = (F.silu(normed @ block.mixed.weight[at : at + 2].T) for at in range(0, 8, 2))
    a0 = F.silu(q[0] @ k[0] + block.weigh.bias_n[0]) / 4 * v[0]
    near, far = (F.silu(q[1] @ k[at] + block.weigh.bias_n[1 - at]) / 4 * v[at] for at in (1, 0))
    a = torch.stack([a0, near + far])
    a = (a - a.mean(1, keepdim=True)) / (a.var(1, unbiased=False, keepdim=True) + 1e-6).sqrt()
    expected = x + (a * u) @ block.out.weight.T + block.out.bias
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(st.lists(st.integers(0, 23), min_size=1, max_size=7).filter(any), st.integers(0, 99))
def test_ragged_streams_are_streams_one_at_a_time(lengths, seed):
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    streams = Streams(offsets, torch.zeros(int(offsets[-1]), dtype=torch.int64))
    block, x = block_with_bias(), drawn(streams.num_tokens, D, seed=seed)
    q, k, v, gate = block.heads(x)
    found = block.merge(x, silu_attention(q, k, v, streams, block.weigh), gate)
    for low, high in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        torch.testing.assert_close(found[low:high], block(x[low:high]), rtol=0, atol=1e-6)
