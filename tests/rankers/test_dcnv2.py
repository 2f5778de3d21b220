"""DCNv2 against the same model written out by hand, and its parts of unusual inputs."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from fullrank.data.batch import Batch, Candidates, FeatureBlock, HistoryBatch, Requests
from fullrank.data.inputs import Field, HistoryInputs, Inputs, TaskInput
from fullrank.rankers import DCNv2
from fullrank.rankers.field_front import EmbeddingConfig

ITEM = Field(name="item", kind="categorical", key_space="item")
INPUTS = Inputs(
    request=(Field(name="user", kind="categorical", key_space="user"),),
    candidate=(ITEM,),
    histories=(HistoryInputs(name="seen", last_n=5, fields=(ITEM,)),),
    tasks=(TaskInput(name="click"), TaskInput(name="buy")),
)
ROWS = {"user": 6, "item": 9}
WIDTH = 3


def block(ids):
    ids = torch.tensor(ids, dtype=torch.int64)
    return FeatureBlock(ids, torch.zeros(len(ids), 0))


def batch():
    history = HistoryBatch(block([[3], [4], [8], [8], [2]]), torch.tensor([0, 2, 2, 5]))
    requests = Requests(block([[2], [3], [5]]), (history,), torch.zeros(3), torch.zeros(3))
    return Batch(requests, Candidates(block([[7], [6], [2], [7]]), torch.tensor([2, 0, 1, 2])))


def build(structure):
    config = DCNv2.Config(
        embedding=EmbeddingConfig(width=WIDTH, init_std=1.0), structure=structure, num_cross_layers=2, hidden=(5, 4)
    )
    ranker = config.build(INPUTS, ROWS, seed=3)
    with torch.no_grad():
        for parameter in ranker.dense_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.3)
    return ranker


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_logits_are_those_of_the_equations(structure):
    ranker = build(structure)
    taps = {}
    output = ranker(batch(), taps=taps)
    user, item = (ranker.tables.logical_tables()[f"{space}.main"] for space in ("user", "item"))
    pooled = torch.stack([item[[3, 4]].mean(0), torch.zeros(WIDTH), item[[8, 8, 2]].mean(0)])
    weights = {name: parameter for name, parameter in ranker.named_parameters()}
    for row, (r, i) in enumerate([(2, 7), (0, 6), (1, 2), (2, 7)]):
        x0 = x = torch.cat([user[[2, 3, 5][r]], pooled[r], item[i]])
        assert torch.equal(taps["fields"][row].flatten(), x0)
        for layer in range(2):
            W, b = weights[f"cross.{layer}.linear.weight"], weights[f"cross.{layer}.linear.bias"]
            x = x0 * (W @ x + b) + x
            torch.testing.assert_close(taps[f"cross.{layer}"][row], x)
        deep = x0 if structure == "parallel" else x
        for step in (0, 2):
            deep = F.relu(weights[f"mlp.steps.{step}.weight"] @ deep + weights[f"mlp.steps.{step}.bias"])
        shared = torch.cat([x, deep]) if structure == "parallel" else deep
        for at, task in enumerate(INPUTS.task_names):
            w, b = weights[f"towers.of_task.{at}.steps.0.weight"], weights[f"towers.of_task.{at}.steps.0.bias"]
            torch.testing.assert_close(output.logits[task][row], (w @ shared + b).squeeze())


def test_parameter_count():
    ranker = DCNv2.Config(embedding=EmbeddingConfig(width=8), hidden=(16,)).build(INPUTS, ROWS, seed=0)
    flat = 3 * 8
    expected = 3 * (flat**2 + flat) + (flat * 16 + 16) + 2 * (flat + 16 + 1)
    assert sum(parameter.numel() for parameter in ranker.dense_parameters()) == expected


def test_frozen_for_a_task_are_the_towers_of_the_others():
    names = build("parallel").frozen_for("click")
    assert names == {"towers.of_task.1.steps.0.weight", "towers.of_task.1.steps.0.bias"}


@pytest.mark.parametrize("part", ["request", "candidate"])
def test_a_part_may_have_no_fields(part):
    inputs = replace(INPUTS, **{part: ()})
    nothing = FeatureBlock(torch.zeros(3 if part == "request" else 4, 0, dtype=torch.int64), torch.zeros(4, 0))
    whole = batch()
    bare = replace(whole, **{f"{part}s": replace(getattr(whole, f"{part}s"), features=nothing)})
    output = DCNv2.Config().build(inputs, ROWS, seed=0)(bare)
    assert output.logits["buy"].shape == (4,)


def test_no_field_at_all_is_an_error():
    with pytest.raises(ValueError, match="at least one field or history"):
        inputs = Inputs(request=(), candidate=(), histories=(), tasks=(TaskInput(name="click"),))
        DCNv2.Config().build(inputs, {}, seed=0)


def test_a_wrong_structure_names_the_nearest():
    with pytest.raises(ValueError, match=r"DCNv2 structure .* got 'paralel'\. Did you mean 'parallel'\?"):
        DCNv2.Config(structure="paralel")
