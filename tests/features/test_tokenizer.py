import math

import pytest
import torch

from fullrank.features.tokenizer import ChunkTokenizer, FieldTokenizer, TokenizerConfig


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(("widths", "num_tokens"), [((4, 4, 4), 3), ((5, 3, 2), 4), ((7,), 2), ((2, 2), 4)])
def test_chunk_equals_slicing_by_hand(widths, num_tokens, norm):
    torch.manual_seed(0)
    tokenizer = TokenizerConfig(num_tokens=num_tokens, token_width=6, norm=norm).build(widths)
    for parameter in tokenizer.parameters():
        torch.nn.init.normal_(parameter)
    flat = sum(widths)
    segment = math.ceil(flat / num_tokens)
    x_BW = torch.randn(5, flat)
    tokens = tokenizer(x_BW)
    assert tokens.x_BTD.shape == (5, num_tokens, 6)
    assert tokens.kinds == ("field",) * num_tokens and tokens.mask_BT is None
    for t in range(num_tokens):
        piece = x_BW[:, t * segment : (t + 1) * segment]
        weight = tokenizer.linear.weight_TdD[t, : piece.shape[1]]
        expected = piece @ weight + tokenizer.linear.bias_TD[t]
        if norm:
            expected = torch.nn.functional.layer_norm(
                expected, (6,), tokenizer.norm.gain_TD[t], tokenizer.norm.bias_TD[t]
            )
        torch.testing.assert_close(tokens.x_BTD[:, t], expected)


@pytest.mark.parametrize(("flat", "num_tokens", "width"), [(416, 4, 256), (10, 4, 8), (768, 16, 64)])
def test_chunk_parameter_count(flat, num_tokens, width):
    segment = -(-flat // num_tokens)
    plain = ChunkTokenizer(flat, num_tokens, width, norm=False)
    assert num_parameters(plain) == num_tokens * (segment * width + width)
    assert (
        num_parameters(ChunkTokenizer(flat, num_tokens, width, norm=True))
        == num_parameters(plain) + 2 * num_tokens * width
    )


def test_each_token_reads_its_own_segment():
    tokenizer = ChunkTokenizer(12, 3, 4, norm=True)
    x_BW = torch.randn(2, 12)
    before = tokenizer(x_BW).x_BTD
    x_BW[:, 5] += 1
    changed_T = (tokenizer(x_BW).x_BTD != before).any(-1).any(0)
    assert changed_T.tolist() == [False, True, False]


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("widths", [(4, 4, 4), (3, 5, 3, 1), (2,)])
def test_field_tokenizer_is_one_linear_per_field(widths, norm):
    torch.manual_seed(0)
    tokenizer = TokenizerConfig(mode="field", token_width=6, norm=norm).build(widths)
    assert isinstance(tokenizer, FieldTokenizer) and tokenizer.num_tokens == len(widths)
    x_BW = torch.randn(5, sum(widths))
    tokens = tokenizer(x_BW)
    assert tokens.x_BTD.shape == (5, len(widths), 6) and tokens.kinds == ("field",) * len(widths)
    start = 0
    for t, width in enumerate(widths):
        group = next(g for g, members in enumerate(tokenizer.groups) if t in members)
        linear, at = tokenizer.linears[group], tokenizer.groups[group].index(t)
        expected = x_BW[:, start : start + width] @ linear.weight_TdD[at] + linear.bias_TD[at]
        if norm:
            expected = torch.nn.functional.layer_norm(expected, (6,))
        torch.testing.assert_close(tokens.x_BTD[:, t], expected)
        start += width
    norms = 2 * len(widths) * 6 if norm else 0
    assert num_parameters(tokenizer) == sum(width * 6 + 6 for width in widths) + norms


def test_weights_are_drawn_slice_by_slice():
    torch.manual_seed(0)
    weight_TdD = ChunkTokenizer(16 * 48, 16, 96, norm=False).linear.weight_TdD.detach()
    bound = math.sqrt(6 / (48 + 96))
    assert float(weight_TdD.abs().max()) <= bound
    assert abs(float(weight_TdD.std()) / (bound / math.sqrt(3)) - 1) < 0.02


def test_wrong_configurations_are_refused():
    with pytest.raises(ValueError, match=r"got 'chunks'\. Did you mean 'chunk'\?"):
        TokenizerConfig(mode="chunks", num_tokens=2, token_width=4)  # pyright: ignore[reportArgumentType] - on purpose
    with pytest.raises(ValueError, match="num_tokens >= 1 for the chunk tokenizer, got None"):
        TokenizerConfig(token_width=4)
    with pytest.raises(ValueError, match="token_width >= 1, got 0"):
        TokenizerConfig(num_tokens=2, token_width=0)
    with pytest.raises(ValueError, match=r"expected num_tokens 3 or None, got 2\. Leave it out, or use mode='chunk'"):
        TokenizerConfig(mode="field", num_tokens=2, token_width=4).build((1, 1, 1))
    with pytest.raises(ValueError, match=r"field vectors of 12 numbers in all, got shape \(2, 11\)"):
        ChunkTokenizer(12, 3, 4, norm=False)(torch.zeros(2, 11))
    with pytest.raises(ValueError, match=r"field vectors of 5 numbers in all, got shape \(2, 6\)"):
        FieldTokenizer((2, 3), 4, norm=False)(torch.zeros(2, 6))
