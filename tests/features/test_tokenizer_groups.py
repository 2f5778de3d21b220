"""Tokenizers of groups of fields, of fields put together by lot, and of all fields."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fullrank.config_json import decode, encode
from fullrank.features.tokenizer import AutoTokenizer, GroupTokenizer, TokenizerConfig, permuted_groups

WIDTHS, NAMES = (4, 2, 3, 4), ("user", "item", "price", "seen.item")
GROUPS = (("price", "user"), ("seen.item",), ("item",))


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def linear_of(tokenizer, token):
    """Weight and bias of a token of a `GroupTokenizer`."""
    inner = tokenizer.tokens
    group = next(g for g, members in enumerate(inner.groups) if token in members)
    at = inner.groups[group].index(token)
    return inner.linears[group].weight_TdD[at], inner.linears[group].bias_TD[at]


@pytest.mark.parametrize("norm", [False, True])
def test_semantic_is_one_linear_of_each_group_of_names(norm):
    torch.manual_seed(0)
    config = TokenizerConfig(mode="semantic", token_width=6, norm=norm, groups=GROUPS)
    tokenizer = config.build(WIDTHS, NAMES)
    x_BW = torch.randn(5, sum(WIDTHS))
    tokens = tokenizer(x_BW)
    assert tokenizer.num_tokens == 3 and tokens.kinds == ("field",) * 3
    fields = dict(zip(NAMES, x_BW.split(WIDTHS, dim=1), strict=True))
    for t, group in enumerate(GROUPS):
        weight, bias = linear_of(tokenizer, t)
        expected = torch.cat([fields[name] for name in group], dim=1) @ weight + bias
        if norm:
            expected = torch.nn.functional.layer_norm(expected, (6,))
        torch.testing.assert_close(tokens.x_BTD[:, t], expected)
    assert count(tokenizer) == (7 + 4 + 2) * 6 + 3 * 6 + (2 * 3 * 6 if norm else 0)


@given(fields=st.integers(1, 30), data=st.data(), seed=st.integers(0, 2**40))
def test_permuted_groups_are_all_fields_in_even_parts(fields, data, seed):
    tokens = data.draw(st.integers(1, fields))
    groups = permuted_groups(fields, tokens, seed)
    assert len(groups) == tokens and sorted(f for group in groups for f in group) == list(range(fields))
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


def test_the_permutation_is_known_for_ever_and_differs_by_seed():
    assert permuted_groups(8, 3, 0) == [[3, 2, 1], [5, 6, 0], [7, 4]]
    assert len({str(permuted_groups(8, 3, seed)) for seed in range(20)}) == 20
    first = [permuted_groups(6, 6, seed)[0][0] for seed in range(600)]
    assert all(60 < first.count(field) < 140 for field in range(6))


def test_permuted_tokens_are_those_of_its_groups_and_survive_a_config_written_and_read():
    config = TokenizerConfig(mode="permuted", num_tokens=2, token_width=5, permutation_seed=3)
    torch.manual_seed(0)
    tokenizer = config.build(WIDTHS)
    torch.manual_seed(9)
    again = decode(TokenizerConfig, encode(config)).build(WIDTHS)
    again.load_state_dict(tokenizer.state_dict())
    x_BW = torch.randn(4, sum(WIDTHS))
    assert torch.equal(again(x_BW).x_BTD, tokenizer(x_BW).x_BTD)
    fields = x_BW.split(WIDTHS, dim=1)
    for t, group in enumerate(permuted_groups(4, 2, 3)):
        weight, bias = linear_of(tokenizer, t)
        torch.testing.assert_close(
            tokenizer(x_BW).x_BTD[:, t], torch.cat([fields[f] for f in group], dim=1) @ weight + bias
        )


def test_groups_in_order_are_not_gathered():
    in_order = GroupTokenizer(WIDTHS, [[0, 1], [2, 3]], 4, norm=False)
    assert in_order.in_order and not GroupTokenizer(WIDTHS, [[1, 0], [2, 3]], 4, norm=False).in_order


@pytest.mark.parametrize("norm", [False, True])
def test_auto_tokens_read_everything_through_their_own_linear(norm):
    torch.manual_seed(0)
    tokenizer = TokenizerConfig(mode="auto", num_tokens=3, token_width=5, norm=norm).build(WIDTHS)
    assert isinstance(tokenizer, AutoTokenizer)
    torch.nn.init.normal_(tokenizer.bias_N)
    x_BW = torch.randn(4, 13)
    tokens = tokenizer(x_BW)
    for t in range(3):
        part = slice(5 * t, 5 * t + 5)
        expected = x_BW @ tokenizer.weight_WN[:, part] + tokenizer.bias_N[part]
        if norm:
            expected = torch.nn.functional.layer_norm(expected, (5,))
        torch.testing.assert_close(tokens.x_BTD[:, t], expected)
    assert count(tokenizer) == 3 * (13 * 5 + 5) + (2 * 3 * 5 if norm else 0)


def test_auto_weights_are_drawn_token_by_token():
    torch.manual_seed(0)
    weight = AutoTokenizer(200, 8, 100, norm=False).weight_WN.detach()
    bound = math.sqrt(6 / 300)
    assert float(weight.abs().max()) <= bound and abs(float(weight.std()) / (bound / math.sqrt(3)) - 1) < 0.02


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "semantic"}, r"at least one field for the semantic tokenizer, got \(\)"),
        ({"mode": "semantic", "groups": (("a",), ())}, "at least one field for the semantic tokenizer"),
        ({"mode": "semantic", "groups": (("a", "b"), ("a",))}, "every field in one group, got 'a' 2 times"),
        ({"mode": "semantic", "groups": (("a",),), "num_tokens": 2}, "expected num_tokens 1 or None, got 2"),
        ({"mode": "chunk", "num_tokens": 2, "groups": (("a",),)}, "belong to mode 'semantic', got them with 'chunk'"),
        ({"mode": "chunk", "num_tokens": 2, "permutation_seed": 1}, "belongs to mode 'permuted', got it with 'chunk'"),
        ({"mode": "permuted"}, "num_tokens >= 1 for the permuted tokenizer, got None"),
        ({"mode": "auto", "num_tokens": 0}, "num_tokens >= 1 for the auto tokenizer, got 0"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TokenizerConfig(token_width=4, **settings)


def test_groups_that_are_not_of_these_fields_are_refused():
    def built(*groups):
        return TokenizerConfig(mode="semantic", token_width=4, groups=groups).build(WIDTHS, NAMES)

    with pytest.raises(ValueError, match=r"No field 'prise' to group; .* Did you mean 'price'\?"):
        built(("prise",), ("user", "item", "seen.item"))
    with pytest.raises(ValueError, match=r"got none for \['price', 'seen.item'\]"):
        built(("user", "item"))
    with pytest.raises(ValueError, match=r"expected num_tokens of at most 4 \(the fields\), got 5"):
        TokenizerConfig(mode="permuted", num_tokens=5, token_width=4).build(WIDTHS)
    with pytest.raises(ValueError, match=r"field vectors of 13 numbers in all, got shape \(2, 12\)"):
        built(NAMES)(torch.zeros(2, 12))
