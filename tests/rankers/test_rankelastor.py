"""RankElastor: golden tensors of both forms, the sizes of published configurations, and what is refused."""

from __future__ import annotations

import pytest
import torch
from test_rankmixer import fill

from fullrank.data.inputs import Field, Inputs, TaskInput
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import RankElastor
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.rankers.rankelastor_block import RankElastorBlock

T, D, H = 4, 8, 16


def golden_block(form):
    block = RankElastorBlock(T, D, form=form, mixer="full", ffn="glu", expansion=2, units=(D,)).double()
    with torch.no_grad():
        block.mixing.linear.weight.copy_(fill((T * D, T * D), 0.8, 32))
        if form == "repository":
            block.mixing.linear.bias.copy_(fill((T * D,), 0.9, 10))
        glu = block.ffn[0] if form == "paper" else block.ffn[1]
        glu.lift.weight_TdD.copy_(fill((T, D, H), 1.1, 8))
        glu.gate.weight_TdD.copy_(fill((T, D, H), 1.2, 8))
        glu.reduce.weight_TdD.copy_(fill((T, H, D), 1.3, 16))
        glu.skip.weight_TdD.copy_(fill((T, D, D), 1.4, 8))
        if form == "repository":
            glu.inner_skip.weight_TdD.copy_(fill((T, D, H), 1.5, 8))
            block.ffn[2].weight_TdD.copy_(fill((T, D, D), 1.6, 8))
    return block


def is_golden(y, total, squares, first, last):
    y = y.detach()
    assert y.sum().item() == pytest.approx(total, abs=1e-6)
    assert y.square().sum().item() == pytest.approx(squares, abs=1e-6)
    assert y[0, 0, :4].tolist() == pytest.approx(first, abs=1e-6)
    assert y[1, -1, -4:].tolist() == pytest.approx(last, abs=1e-6)


def test_appendix_a_paper_form():
    block, x = golden_block("paper"), fill((2, T, D), 0.3, 1)
    is_golden(
        block.mix(x), 0.0, 63.999040, [1.938553, 0.773875, -0.020514, -1.389068],
        [-0.429759, 1.599158, 0.029903, -1.162965],
    )  # fmt: skip
    is_golden(
        block(x), -5.423170, 34.453657, [0.750852, 0.752787, 0.224923, -1.38814],
        [-0.97505, -0.660062, 0.047197, -0.08246],
    )  # fmt: skip


def test_appendix_a_repository_form():
    is_golden(
        golden_block("repository")(fill((2, T, D), 0.3, 1)), 21.680881, 131.541583,
        [3.220026, 1.826403, 1.089605, -1.263833], [-0.391678, 1.968278, 1.104013, -1.343899],
    )  # fmt: skip


def published(fields, emb, num_tokens, width, layers, **options):
    """A configuration of the repository, on so many categorical fields."""
    names = [f"c{at}" for at in range(fields)]
    inputs = Inputs(
        request=(),
        candidate=tuple(Field(name=name, kind="categorical", key_space=name) for name in names),
        histories=(),
        tasks=(TaskInput(name="click"),),
    )
    config = RankElastor.Config(
        form="repository",
        embedding=EmbeddingConfig(width=emb),
        tokenizer=TokenizerConfig(num_tokens=num_tokens, token_width=width),
        num_layers=layers,
        **({"tokens": "matrix"} | options),
    )
    return config.build(inputs, dict.fromkeys(names, 3), 0)


CRITEO, AVAZU = 39, 24
VECTOR = {"tokens": "vector", "tokens_hidden": 800}
BASE = {"mixer": "permute", "ffn": "gelu", "tokens_norm": False}
PUBLISHED = {
    "criteo_dim_10": ((CRITEO, 10, 15, 26, 1), {"units": (64, 64)}, 1_484_093),
    "criteo_dim_20": ((CRITEO, 20, 26, 30, 1), {"units": (64, 64)}, 3_681_981),
    "criteo_dim_20_v5": ((CRITEO, 20, 26, 30, 2), {"units": (48, 48)}, 4_840_103),
    "criteo_dim_20_v7": ((CRITEO, 20, 26, 30, 4), {"units": (64, 64)}, 10_972_731),
    "criteo base": ((CRITEO, 20, 26, 26, 2), BASE | {"units": (200, 200)}, 3_589_071),
    "criteo fast": ((CRITEO, 20, 26, 30, 2), {"units": (24, 24), "mixer": "segments", "segments": 26}, 2_364_311),
    "avazu_dim_16": ((AVAZU, 16, 24, 16, 4), VECTOR, 1_870_209),
    "avazu_dim_32": ((AVAZU, 32, 24, 32, 3), {"tokens": "none"}, 4_019_809),
    "avazu_dim_64": ((AVAZU, 64, 24, 64, 5), VECTOR, 25_980_289),
    "avazu base": ((AVAZU, 64, 24, 48, 5), BASE | {"units": (400, 400), "tokens_hidden": 800}, 26_661_281),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_e4_published_configurations_have_their_sizes(name):
    sizes, options, expected = PUBLISHED[name]
    ranker = published(*sizes, **options)
    assert sum(parameter.numel() for parameter in ranker.dense_parameters()) == expected


def test_e4_of_the_papers_form():
    block = RankElastorBlock(16, 24, form="paper", mixer="full", ffn="glu", expansion=3)
    assert sum(p.numel() for p in block.parameters()) == (16 * 24) ** 2 + 16 * (3 * 3 + 1) * 24**2 + 2 * 24


def test_what_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'permute'"):
        RankElastor.Config(mixer="permut")  # pyright: ignore[reportArgumentType]  # it is refused
    with pytest.raises(ValueError, match="Stacked units"):
        RankElastor.Config(units=(8,))
    with pytest.raises(ValueError, match="need tokenizer"):
        RankElastor.Config(tokens="matrix", tokenizer=TokenizerConfig(mode="field", token_width=8))
    with pytest.raises(ValueError, match="divides the 390 field numbers, got 16"):
        published(CRITEO, 10, 16, 26, 1)
    with pytest.raises(ValueError, match="must be 15 tokens x 20"):
        published(CRITEO, 10, 15, 20, 1, tokens="none")
