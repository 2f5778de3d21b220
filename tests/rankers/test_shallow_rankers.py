"""LR, FM, Wide & Deep and DeepFM against their equations, row by row and pair by pair."""

import itertools
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from row_by_row import INPUTS, NUM_ROWS, TASKS, Vectors, batch, built, count

from fullrank.data.batch import Batch, Candidates, FeatureBlock, Requests
from fullrank.data.inputs import Field, Inputs, TaskInput
from fullrank.features.table_plan import TableOptimizer
from fullrank.features.table_updates import TableUpdater
from fullrank.rankers import FM, LR, DCNv2, DeepFM, WideAndDeep
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.rankers.linear_part import LinearConfig

EMBEDDING = EmbeddingConfig(width=3, init_std=0.5)
ALONE = replace(INPUTS, tasks=TASKS[:1])
both = pytest.mark.parametrize("inputs", [INPUTS, ALONE], ids=["two-tasks", "one-task"])


def expected_linear(ranker, b):
    return ranker.linear.bias_K + torch.stack(Vectors(ranker, ranker.linear.front, "linear").of_row(b)).sum(0)


def expected_pairs(ranker, b):
    vectors = Vectors(ranker, ranker.front).of_row(b)
    return sum(torch.dot(v, w) for v, w in itertools.combinations(vectors, 2))


def expected_deep(ranker, b):
    x = torch.cat(Vectors(ranker, ranker.front).of_row(b))
    for step in ranker.mlp.steps:
        x = step(x) if isinstance(step, torch.nn.ReLU) else step.weight @ x + step.bias
    return torch.stack([tower.steps[0].weight[0] @ x + tower.steps[0].bias[0] for tower in ranker.towers.of_task])


def check(ranker, expected_of_row):
    taps = {}
    logits = ranker(batch(), taps=taps).logits
    assert tuple(logits) == ranker.inputs.task_names
    for b in range(4):
        torch.testing.assert_close(torch.stack([logits[task][b] for task in logits]), expected_of_row(b))
    return taps


@both
def test_lr_adds_the_weights_of_its_fields(inputs):
    ranker = built(LR.Config(linear=LinearConfig(init_std=0.5)), inputs)
    taps = check(ranker, lambda b: expected_linear(ranker, b))
    vectors = Vectors(ranker, ranker.linear.front, "linear")
    for b in range(4):
        torch.testing.assert_close(taps["fields"][b], torch.stack(vectors.of_row(b)))
    torch.testing.assert_close(taps["pooled"], taps["fields"].sum(1))


@both
def test_fm_is_bias_weights_and_the_double_sum_over_pairs(inputs):
    ranker = built(FM.Config(embedding=EMBEDDING), inputs)
    scale = torch.ones(1) if ranker.scale_K is None else ranker.scale_K
    assert len(scale) == len(inputs.tasks)
    check(ranker, lambda b: expected_linear(ranker, b) + scale * expected_pairs(ranker, b))


@both
def test_deepfm_is_fm_and_an_mlp_on_the_same_vectors(inputs):
    ranker = built(DeepFM.Config(embedding=EMBEDDING, hidden=(6, 4)), inputs)
    scale = torch.ones(1) if ranker.scale_K is None else ranker.scale_K
    check(
        ranker, lambda b: expected_linear(ranker, b) + scale * expected_pairs(ranker, b) + expected_deep(ranker, b)
    )


@both
def test_wide_and_deep_is_lr_and_an_mlp(inputs):
    ranker = built(WideAndDeep.Config(embedding=EMBEDDING, hidden=(6, 4)), inputs)
    check(ranker, lambda b: expected_linear(ranker, b) + expected_deep(ranker, b))


def test_tables_are_named_by_what_they_are_for():
    spaces = ("user", "tag", "item", "action")
    linear = {f"{space}.linear": (NUM_ROWS[space], 2) for space in spaces}
    main = {f"{space}.main": (NUM_ROWS[space], 3) for space in spaces}

    def shapes(config):
        return {name: tuple(table.shape) for name, table in built(config).tables.logical_tables().items()}

    assert shapes(LR.Config()) == linear
    for config in (FM.Config(embedding=EMBEDDING), DeepFM.Config(embedding=EMBEDDING)):
        assert shapes(config) == main | linear


@both
def test_dense_parameter_counts(inputs):
    """Eight fields, of which one numeric and one vector of two numbers; the rest stands in tables."""
    K, D, H = len(inputs.tasks), 3, 5
    linear, scale = K * (1 + 3 + (2 + 2)), K if K > 1 else 0
    fields = 3 * D + (2 + 2) * D
    deep = 8 * D * H + H + K * (H + 1)
    assert count(built(LR.Config(), inputs)) == linear
    assert count(built(FM.Config(embedding=EMBEDDING), inputs)) == linear + fields + scale
    assert count(built(WideAndDeep.Config(embedding=EMBEDDING, hidden=(H,)), inputs)) == linear + fields + deep
    assert count(built(DeepFM.Config(embedding=EMBEDDING, hidden=(H,)), inputs)) == linear + fields + deep + scale


def test_requests_are_read_once(monkeypatch):
    """What scoring looks up is of candidates alone: their two tables, for weights and for factors."""
    ranker = built(FM.Config(embedding=EMBEDDING))
    state = ranker.encode_request(batch().requests)
    whole = ranker(batch()).logits
    monkeypatch.setattr(ranker, "encode_request", None)
    for part in (ranker.front, ranker.linear.front):
        monkeypatch.setattr(part, "request", None)
        monkeypatch.setattr(part, "events", None)
    again = ranker.score(state, batch().candidates).logits
    assert all(torch.equal(again[task], whole[task]) for task in whole)


@pytest.mark.parametrize(("config", "finds_it"), [(LR.Config(), False), (FM.Config(), True)])
def test_a_pair_effect_is_found_by_who_has_pairs(config, finds_it):
    """The label is whether user and item are of one parity: no sum of their weights says that."""
    quick = TableOptimizer(semantics="dense", lr=0.1)
    config = replace(config, linear=LinearConfig(optimizer=quick))
    if finds_it:
        config = replace(config, embedding=replace(EMBEDDING, optimizer=quick))
    inputs = Inputs(request=INPUTS.request[:1], candidate=INPUTS.candidate[1:], histories=(), tasks=TASKS[:1])
    ranker = built(config, inputs).train()
    users, items = torch.tensor(list(itertools.product(range(3), range(4)))).T
    requests = Requests(ids_alone(torch.arange(2, 5)), (), torch.zeros(3), torch.zeros(3))
    rows = Batch(requests, Candidates(ids_alone(items + 2), users))
    labels = ((users + items) % 2).float()
    tables = TableUpdater(ranker.tables)
    for _ in range(50):
        loss = F.binary_cross_entropy_with_logits(ranker(rows).logits["click"], labels)
        loss.backward()
        tables.step()
    assert loss.item() < 0.1 if finds_it else loss.item() > 0.6


def ids_alone(ids):
    return FeatureBlock(ids.unsqueeze(1), torch.zeros(len(ids), 0))


def test_published_recipes_are_configs():
    """The FuxiCTR models as BARS ran them on ten categorical fields."""
    fields = tuple(Field(name=f"f{i}", kind="categorical", key_space=f"f{i}") for i in range(10))
    inputs = Inputs(request=fields[:5], candidate=fields[5:], histories=(), tasks=(TaskInput(name="click"),))
    rows = {f"f{i}": 20 + i for i in range(10)}
    adam = TableOptimizer(semantics="dense", lr=1e-3, weight_decay=0.05)
    embedding = EmbeddingConfig(width=10, init_std=1e-4, optimizer=adam)
    linear = LinearConfig(init_std=1e-4, optimizer=adam)
    hidden = (400, 400, 400)
    tables, mlp = sum(rows.values()), 100 * 400 + 2 * 400 * 400 + 3 * 2 * 400  # BatchNorm's two for the Linear's one
    for config, expected_tables, expected_dense in (
        (LR.Config(linear=linear), tables, 1),
        (FM.Config(embedding=embedding, linear=linear), 11 * tables, 1),
        (
            DeepFM.Config(embedding=embedding, linear=linear, hidden=hidden, dropout=0.2, batch_norm=True),
            11 * tables,
            1 + mlp + 401,
        ),
        (
            WideAndDeep.Config(embedding=embedding, linear=linear, hidden=hidden, dropout=0.2, batch_norm=True),
            11 * tables,
            1 + mlp + 401,
        ),
        (
            DCNv2.Config(embedding=embedding, num_cross_layers=4, hidden=hidden, dropout=0.4, batch_norm=True),
            10 * tables,
            4 * (100 * 100 + 100) + mlp + 501,
        ),
    ):
        ranker = config.build(inputs, rows, seed=0)
        assert sum(table.numel() for table in ranker.tables.logical_tables().values()) == expected_tables
        assert count(ranker) == expected_dense
        for table in ranker.tables.logical_tables().values():
            assert 0 < float(table.abs().max()) < 1e-3 and not table[0].any()
        for arena in ranker.tables.plan.arenas:
            assert arena.optimizer == adam
        linears = [module for module in ranker.modules() if isinstance(module, torch.nn.Linear)]
        assert all(linear.bias is None or not linear.bias.any() for linear in linears)
