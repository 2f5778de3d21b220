"""Attention and the block against torch's own, and what each token may see."""

import pytest
import torch
from torch import nn

from fullrank.layers.self_attention import SelfAttention
from fullrank.layers.transformer_block import TransformerBlock

B, T, D = 3, 5, 8
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 1, 0], [1, 0, 0, 0, 0]]).bool()


def tokens():
    return torch.randn(B, T, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def reference_of(attention, heads):
    """torch's module with the same weights; without W_O its own is the identity."""
    reference = nn.MultiheadAttention(D, heads, bias=False, batch_first=True).double()
    with torch.no_grad():
        reference.in_proj_weight.copy_(attention.project.weight)
        reference.out_proj.weight.copy_(torch.eye(D) if attention.out is None else attention.out.weight)
    return reference


@pytest.mark.parametrize("heads", [1, 2, 8])
@pytest.mark.parametrize("project_out", [False, True])
@pytest.mark.parametrize("seen", ["all", "masked", "causal"])
def test_attention_is_that_of_torch(heads, project_out, seen):
    torch.manual_seed(0)
    attention, x = SelfAttention(D, heads, project_out).double(), tokens()
    y = attention(x, MASK if seen == "masked" else None, causal=seen == "causal")
    later = torch.ones(T, T).triu(1).bool() if seen == "causal" else None
    padding = ~MASK if seen == "masked" else None
    expected, _ = reference_of(attention, heads)(x, x, x, key_padding_mask=padding, attn_mask=later)
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_the_block_is_that_of_torch(activation):
    torch.manual_seed(0)
    block, x = TransformerBlock(D, 2, 12, activation=activation, project_out=True).double().eval(), tokens()
    reference = nn.TransformerEncoderLayer(
        D, 2, 12, dropout=0.0, activation=activation, batch_first=True, norm_first=True
    ).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
        nn.init.zeros_(reference.self_attn.in_proj_bias)
        nn.init.zeros_(reference.self_attn.out_proj.bias)
        for theirs, ours in (
            (reference.self_attn.in_proj_weight, block.attention.project.weight),
            (reference.self_attn.out_proj.weight, block.attention.out.weight),
        ):
            theirs.copy_(ours)
    for theirs, ours in (
        (reference.norm1, block.attend_norm.norm),
        (reference.norm2, block.feed_norm.norm),
        (reference.linear1, block.feed[0]),
        (reference.linear2, block.feed[2]),
    ):
        theirs.load_state_dict(ours.state_dict())
    expected = reference(x, src_key_padding_mask=~MASK)
    torch.testing.assert_close(block(x, MASK)[MASK], expected[MASK])


def test_a_masked_token_is_seen_by_nobody():
    torch.manual_seed(0)
    block, x = TransformerBlock(D, 2, 12, activation="gelu", project_out=True).double(), tokens()
    other = torch.where(MASK.unsqueeze(-1), x, x + 5)
    assert torch.equal(block(x, MASK)[MASK], block(other, MASK)[MASK])
    assert not torch.equal(block(x)[MASK], block(other)[MASK])


@pytest.mark.parametrize("project_out", [False, True])
def test_parameter_count(project_out):
    block = TransformerBlock(16, 4, 40, activation="relu", project_out=project_out)
    expected = (4 if project_out else 3) * 16**2 + 2 * 16 * 40 + 40 + 16 + 4 * 16
    assert sum(parameter.numel() for parameter in block.parameters()) == expected


def test_query_key_and_value_are_each_drawn_as_a_matrix_of_its_own():
    torch.manual_seed(0)
    for weight in SelfAttention(128, 1, False).project.weight.detach().chunk(3):
        assert abs(float(weight.std()) * 128**0.5 - 1) < 0.03


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="multiple of the number of heads, got 8 and 3"):
        SelfAttention(8, 3, True)
