"""RankMixer: golden tensors, parameter counts, and the settings it can be built with."""

import pytest
import torch

from fullrank.data.inputs import Field, HistoryInputs, Inputs, TaskInput
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import RankMixer
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.rankers.rankmixer_block import RankMixerBlock, SparseRankMixerBlock


def fill(shape, shift, fan):
    """Deterministic numbers: sin(0.37 i² + shift) / sqrt(fan) over the flat index i."""
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (torch.sin(0.37 * i**2 + shift) / fan**0.5).reshape(shape)


def count(*modules):
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


@pytest.mark.parametrize(
    ("placement", "total", "squares", "first", "last"),
    [
        ("post", 0.0, 63.999494, [0.41491, 1.274085, 0.256207, -1.768716], [-0.339206, 0.92917, 1.344346, -2.013313]),
        (
            "pre",
            10.976698,
            141.969127,
            [0.645743, 1.851919, 0.334779, -2.126735],
            [-1.377986, 0.816339, 1.455391, -3.6063],
        ),
    ],
)
def test_r6_golden_block(placement, total, squares, first, last):
    T, D, H = 4, 8, 16
    block = RankMixerBlock(T, D, 2, placement).double()
    with torch.no_grad():
        block.ffn.weight1_TDH.copy_(fill((T, D, H), 0.1, 8))
        block.ffn.bias1_T1H.copy_(fill((T, H), 0.2, 10).unsqueeze(1))
        block.ffn.weight2_THD.copy_(fill((T, H, D), 0.4, 16))
        block.ffn.bias2_T1D.copy_(fill((T, D), 0.5, 10).unsqueeze(1))
    x_BTD = fill((2, T, D), 0.3, 1)
    y_BTD = block(x_BTD.transpose(0, 1)).transpose(0, 1)
    assert y_BTD.sum().item() == pytest.approx(total, abs=1e-6)
    assert y_BTD.square().sum().item() == pytest.approx(squares, abs=1e-6)
    assert y_BTD[0, 0, :4].tolist() == pytest.approx(first, abs=1e-6)
    assert y_BTD[1, -1, -4:].tolist() == pytest.approx(last, abs=1e-6)


@pytest.mark.parametrize(
    ("tokens", "width", "expected"),
    [(16, 768, 75_577_344), (32, 1536, 604_286_976), (16, 64, 530_944), (8, 64, 265_728)],
)
def test_r5_backbone_parameters(tokens, width, expected):
    with torch.device("meta"):
        blocks = [RankMixerBlock(tokens, width, 2) for _ in range(2)]
    assert count(*blocks) == expected


def test_r5_backbone_parameters_with_experts():
    blocks = [SparseRankMixerBlock(16, 64, 2, "post", 4, 0.5) for _ in range(2)]
    assert count(*blocks) == 2_138_880


@pytest.mark.parametrize(("fields", "width", "tokens", "token_width"), [(26, 16, 4, 32), (12, 10, 8, 64)])
def test_r5_tokenizer_parameters(fields, width, tokens, token_width):
    tokenizer = TokenizerConfig(num_tokens=tokens, token_width=token_width).build((width,) * fields)
    segment = fields * width // tokens
    assert count(tokenizer) == tokens * (segment * token_width + token_width)


def unirank_inputs():
    def named(prefix, n):
        return tuple(Field(name=f"{prefix}{i}", kind="categorical", key_space=f"{prefix}{i}") for i in range(n))

    history = HistoryInputs(name="seen", last_n=100, fields=named("item", 7))
    tasks = tuple(TaskInput(name=name) for name in ("click", "like", "follow", "long_view"))
    return Inputs(request=named("user", 12), candidate=named("item", 7), histories=(history,), tasks=tasks)


def test_r7_a_published_configuration_has_its_published_size():
    """12 user and 7 item fields of width 16, attention pooling of one history, four tasks: input 416."""
    inputs = unirank_inputs()
    config = RankMixer.Config(
        embedding=EmbeddingConfig(width=16),
        tokenizer=TokenizerConfig(mode="chunk", num_tokens=4, token_width=256, norm=True),
        num_layers=3,
        expansion=2,
        norm="pre",
        history="din",
        towers=(128, 64),
    )
    ranker = config.build(inputs, dict.fromkeys(inputs.key_spaces(), 4), seed=0)
    assert ranker.front.num_fields * 16 == 416
    assert sum(parameter.numel() for parameter in ranker.dense_parameters()) == 3_547_140
    assert count(*ranker.front.attention) == 4 * (7 * 16) * 256


def test_a_width_that_cannot_be_mixed_names_the_nearest():
    config = RankMixer.Config(tokenizer=TokenizerConfig(num_tokens=6, token_width=64))
    with pytest.raises(ValueError, match=r"multiple of 6, got 64\. The nearest is 66\."):
        config.build(unirank_inputs(), dict.fromkeys(unirank_inputs().key_spaces(), 4), seed=0)


@pytest.mark.parametrize(("name", "value", "near"), [("norm", "pst", "post"), ("history", "dinn", "din")])
def test_a_wrong_choice_names_the_nearest(name, value, near):
    with pytest.raises(ValueError, match=rf"RankMixer {name} .* got '{value}'\. Did you mean '{near}'\?"):
        RankMixer.Config(**{name: value})


def test_attention_needs_a_candidate():
    inputs = unirank_inputs()
    alone = Inputs(request=inputs.request, candidate=(), histories=inputs.histories, tasks=inputs.tasks)
    with pytest.raises(ValueError, match="'din' needs candidate fields"):
        RankMixer.Config(history="din").build(alone, dict.fromkeys(inputs.key_spaces(), 4), seed=0)
