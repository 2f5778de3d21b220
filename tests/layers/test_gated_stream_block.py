"""TokenFormer's layer: golden tensors, causality, its gate, and its size."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fullrank.diagnostics import effective_rank
from fullrank.layers.gated_stream_block import GatedStreamBlock
from fullrank.layers.stream_attention import stream_mask

D, S, M = 8, 8, 2
POSITIONS = torch.tensor([0, 0, 1, 2, 3, 4, 5, 9])


def fill(shape, shift, fan):
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (torch.sin(0.37 * i**2 + shift) / fan**0.5).reshape(shape)


def golden():
    block = GatedStreamBlock(D, 2, 2).double()
    named = (block.query, block.key, block.value, block.out, block.gate)
    with torch.no_grad():
        for at, linear in enumerate(named):
            linear.weight.copy_(fill((D, D), 2 + at / 10, 8).T)
        block.lift.weight.copy_(fill((D, 2 * D), 3.1, 8).T)
        block.side.weight.copy_(fill((D, 2 * D), 3.2, 8).T)
        block.reduce.weight.copy_(fill((2 * D, D), 3.3, 16).T)
    return block


def is_golden(y, total, squares, first, last):
    y = y.detach()
    assert float(y.sum()) == pytest.approx(total, abs=1e-5)
    assert float(y.square().sum()) == pytest.approx(squares, abs=1e-5)
    assert y[0, 0, :4].tolist() == pytest.approx(first, abs=1e-6)
    assert y[1, -1, -4:].tolist() == pytest.approx(last, abs=1e-6)


def test_appendix_a_full_then_window():
    block, x = golden(), fill((2, S, D), 0.3, 1)
    full = block(x, stream_mask(S, M), POSITIONS)
    is_golden(
        full, 0.706751, 78.861643, [0.380095, 0.361316, 0.925452, 0.006817],
        [-0.469168, 0.692963, -0.721097, -0.643743],
    )  # fmt: skip
    is_golden(
        block(full, stream_mask(S, M, 3), POSITIONS), 0.660796, 123.260365,
        [0.678889, 0.228861, 0.61006, 0.226068], [-0.741164, 0.491595, -1.224911, -0.401638],
    )  # fmt: skip
    ranks = [float(effective_rank(full[0], kind)) for kind in ("entropy", "stable", "abundance")]
    assert ranks == pytest.approx([6.230142, 2.700544, 3.873089], abs=1e-5)


def test_appendix_a_without_positions():
    y = golden()(fill((2, S, D), 0.3, 1), stream_mask(S, M), torch.zeros(S))
    is_golden(
        y, 2.098797, 79.129504, [0.380095, 0.361316, 0.925452, 0.006817],
        [-0.411565, 0.688382, -0.752236, -0.630843],
    )  # fmt: skip


def moved_by(token, mask):
    block, x = golden(), fill((2, S, D), 0.3, 1)
    changed = x.clone()
    changed[:, token] += 1
    difference = block(changed, mask, POSITIONS) - block(x, mask, POSITIONS)
    return (difference.abs().amax((0, 2)) > 1e-9).nonzero().flatten().tolist()


def test_t3_who_notices_a_changed_token():
    assert moved_by(5, stream_mask(S, M)) == moved_by(5, stream_mask(S, M, 3)) == [5, 6, 7]
    assert moved_by(0, stream_mask(S, M, 3)) == [0, 1]
    assert moved_by(0, stream_mask(S, M)) == list(range(S))


def test_t4_receptive_field_of_two_windows():
    """32 and then 16: the last of 64 tokens sees 46 back."""
    blocks = [GatedStreamBlock(D, 2, 1).double() for _ in range(2)]
    x = torch.randn(1, 64, D, dtype=torch.float64).requires_grad_()
    y = x
    for block, window in zip(blocks, (32, 16), strict=True):
        y = block(y, stream_mask(64, 0, window), torch.arange(64))
    y[0, -1].sum().backward()
    assert x.grad.abs().sum(-1)[0].nonzero().flatten().tolist() == list(range(64 - 47, 64))


def test_t6_the_gate():
    block, x, mask = golden(), fill((2, S, D), 0.3, 1), stream_mask(S, M)
    q, k, v = (part.transpose(-2, -3) for part in block.heads(x, block.rotation(POSITIONS, x))[:3])
    attended = block.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(-2, -3).flatten(-2))

    def after(sum_of_both):
        normed = block.norm_feed(sum_of_both)
        return sum_of_both + block.reduce(F.silu(block.lift(normed)) * block.side(normed))

    with torch.no_grad():
        block.gate.weight.zero_()
        torch.testing.assert_close(block(x, mask, POSITIONS), after(x + attended / 2))
        for height, share in ((1e9, 1.0), (-1e9, 0.0)):
            block.gate = torch.nn.Linear(D, D).double()
            block.gate.weight.zero_()
            block.gate.bias.fill_(height)
            torch.testing.assert_close(block(x, mask, POSITIONS), after(x + share * attended))
    plain = GatedStreamBlock(D, 2, 2, gated=False).double()
    plain.load_state_dict({name: value for name, value in block.state_dict().items() if not name.startswith("gate")})
    torch.testing.assert_close(plain(x, mask, POSITIONS), after(x + attended))


def test_t6_every_token_teaches_the_gate():
    block, x = golden(), fill((1, S, D), 0.3, 1)
    for token in range(S):
        block.zero_grad()
        block(x, stream_mask(S, M), POSITIONS)[0, token].sum().backward()
        assert block.gate.weight.grad.abs().sum() > 0


def test_t7_fields_at_one_position_are_told_apart_by_the_causal_mask_alone():
    block, x = golden(), fill((2, S, D), 0.3, 1)
    swapped = x[:, [1, 0, *range(2, S)]]
    both_ways = stream_mask(S, M)
    both_ways[0, 1] = True
    for mask, same in ((both_ways, True), (stream_mask(S, M), False)):
        before, after = (block(block(y, mask, POSITIONS), mask, POSITIONS)[:, -1] for y in (x, swapped))
        assert torch.allclose(before, after, rtol=0, atol=1e-12) == same


@pytest.mark.parametrize(("width", "layers", "expected"), [(64, 4, 279_040), (128, 4, 1_115_136), (256, 3, 3_343_872)])
def test_t8_parameters(width, layers, expected):
    blocks = [GatedStreamBlock(width, 4, 4) for _ in range(layers)]
    assert sum(p.numel() for block in blocks for p in block.parameters()) == expected
