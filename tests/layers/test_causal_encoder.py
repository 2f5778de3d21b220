"""SASRec's encoder against torch's attention one history at a time; no state knows a later event."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from fullrank.layers.causal_encoder import CausalEncoder
from fullrank.layers.jagged import events_from_the_end, pad_segments

LENGTHS, W, D, PLACES = [3, 0, 1, 4], 6, 8, 5
OFFSETS = torch.tensor([0, *LENGTHS]).cumsum(0)


def encoder(heads=1, blocks=2):
    torch.manual_seed(0)
    made = CausalEncoder(W, D, PLACES, blocks, heads).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return made


def events():
    return torch.randn(sum(LENGTHS), W, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def alone(made, own_EW, heads):
    """The same encoder on one history, padded on the left as in the paper, by torch's attention."""
    padded_SW = torch.cat([torch.zeros(PLACES - len(own_EW), W, dtype=torch.float64), own_EW])
    x = padded_SW @ made.project.weight.T + made.places_SD.flip(0)
    is_padding = torch.arange(PLACES) < PLACES - len(own_EW)
    for block in made.blocks:
        attention = nn.MultiheadAttention(D, heads, bias=False, batch_first=True).double()
        with torch.no_grad():
            attention.in_proj_weight.copy_(block.attention.project.weight)
            attention.out_proj.weight.copy_(torch.eye(D))
        y = F.layer_norm(x, (D,), block.attend_norm.norm.weight, block.attend_norm.norm.bias).unsqueeze(0)
        hidden = torch.ones(PLACES, PLACES).triu(1).bool() | is_padding
        hidden &= ~torch.eye(PLACES).bool()  # a padding place sees itself, so that its softmax is one of something
        s = x + attention(y, y, y, attn_mask=hidden)[0].squeeze(0)
        y = F.layer_norm(s, (D,), block.feed_norm.norm.weight, block.feed_norm.norm.bias)
        x = s + F.relu(y @ block.feed[0].weight.T + block.feed[0].bias) @ block.feed[2].weight.T + block.feed[2].bias
    return F.layer_norm(x, (D,), made.norm.weight, made.norm.bias)[PLACES - len(own_EW) :]


@pytest.mark.parametrize("heads", [1, 4])
def test_states_are_those_of_padded_rows(heads):
    made, x_EW = encoder(heads), events()
    states, last = made.states(x_EW, OFFSETS), made(x_EW, OFFSETS)
    for r, length in enumerate(LENGTHS):
        expected = alone(made, x_EW[OFFSETS[r] : OFFSETS[r + 1]], heads)
        torch.testing.assert_close(states[r, :length], expected)
        torch.testing.assert_close(last[r], expected[-1] if length else torch.zeros(D, dtype=torch.float64))


def test_a_later_event_changes_no_earlier_state():
    made, x_EW = encoder(), events()
    before = made.states(x_EW, OFFSETS)
    for changed in range(4):
        other = x_EW.clone()
        other[OFFSETS[3] + changed] += 1
        after = made.states(other, OFFSETS)
        assert torch.equal(after[3, :changed], before[3, :changed])
        assert (after[3, changed:] != before[3, changed:]).any(-1).all()
        assert torch.equal(after[:3, :1], before[:3, :1])  # nor another history's


def test_gradients_and_a_batch_without_events():
    made, x_EW = encoder(blocks=1), events().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: made(x, OFFSETS), (x_EW,))
    nothing = made(x_EW[:0], torch.zeros(4, dtype=torch.int64))
    assert nothing.shape == (3, D) and not nothing.any()


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_parameter_count(blocks):
    expected = W * D + PLACES * D + 2 * D + blocks * (5 * D**2 + 2 * D + 4 * D)
    assert sum(parameter.numel() for parameter in CausalEncoder(W, D, PLACES, blocks).parameters()) == expected


@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_padding_and_places_from_the_end(lengths):
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    values = torch.arange(1.0, 1 + 2 * sum(lengths)).reshape(-1, 2).requires_grad_()
    padded = pad_segments(values, offsets)
    assert padded.shape == (len(lengths), max(1, *lengths, 0), 2)
    from_the_end = events_from_the_end(offsets, sum(lengths)).tolist()
    assert from_the_end == [place for length in lengths for place in reversed(range(length))]
    for i, length in enumerate(lengths):
        assert torch.equal(padded[i, :length], values[offsets[i] : offsets[i + 1]])
        assert not padded[i, length:].any()
    padded.sum().backward()
    assert values.grad is not None and torch.equal(values.grad, torch.ones_like(values))
