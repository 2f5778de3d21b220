"""One step against plain torch: every table as an ordinary parameter, and torch's own clipping and optimizers."""

import pytest
import torch
from tiny_world import OBJECTIVE, OPTIMIZERS, TASKS, Output, TinyLoader
from torch import nn

from fullrank.features.tables import EmbeddingTables, TableOptimizer, TablePlan, TableSpec
from fullrank.training.config import TrainConfig
from fullrank.training.optimizers import RankerOptimizer


class Bilinear(nn.Module):
    """Logits of a user row and an item row of one table; `tables` or a plain parameter."""

    def __init__(self, optimizer: TableOptimizer) -> None:
        super().__init__()
        self.tables = EmbeddingTables(
            TablePlan((TableSpec(key_space="id", num_rows=20, width=4, init_std=0.5, optimizer=optimizer),)), seed=0
        )
        self.head = nn.Linear(8, 2)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, batch, table=None):
        ids_B2 = torch.cat([batch.requests.features.ids_nF, batch.candidates.features.ids_nF], dim=1)
        x_B2D = self.tables.gather_table("id.main", ids_B2) if table is None else table[ids_B2]
        return Output(dict(zip(TASKS, self.head(x_B2D.flatten(1)).unbind(1), strict=True)))


def batches(size):
    return list(TinyLoader(96, batch_size=size).epoch(0))


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_a_step_is_that_of_torch_on_the_mean_of_micro_batches(accumulate, clip_norm):
    torch.manual_seed(0)
    ranker = Bilinear(OPTIMIZERS["dense"])
    ours = RankerOptimizer(ranker, TrainConfig(lr=0.02, weight_decay=0.1))
    plain = Bilinear(OPTIMIZERS["dense"])
    plain.load_state_dict(ranker.state_dict())
    table = nn.Parameter(plain.tables.logical_tables()["id.main"].clone())
    dense = [*plain.head.parameters(), plain.unused]
    theirs = [torch.optim.AdamW(dense, lr=0.02, weight_decay=0.1), torch.optim.Adam([table], lr=0.01)]
    everything = [*dense, table]

    micro = batches(16)
    for step in range(6 // accumulate):
        group = micro[step * accumulate : (step + 1) * accumulate]
        for batch in group:
            torch.stack(list(OBJECTIVE(ranker(batch), batch).values())).sum().backward()
            ours.collect()
        norm = ours.apply(clip_norm)

        loss = sum(sum(OBJECTIVE(plain(batch, table), batch).values()) for batch in group) / accumulate
        loss.backward()
        expected = torch.nn.utils.clip_grad_norm_(everything, clip_norm or torch.inf)
        assert norm == pytest.approx(expected.item(), rel=1e-5)
        assert clip_norm is None or norm > clip_norm  # or nothing would be clipped here
        for optimizer in theirs:
            optimizer.step()
            optimizer.zero_grad()
        assert torch.allclose(ranker.tables.logical_tables()["id.main"], table, rtol=0, atol=1e-6)
        assert torch.allclose(ranker.head.weight, plain.head.weight, rtol=0, atol=1e-6)
    assert torch.equal(ranker.unused, torch.ones(3))  # no gradient: not even decay


@pytest.mark.parametrize("semantics", list(OPTIMIZERS))
def test_state_stored_between_steps_continues_to_the_same_bits(semantics):
    def steps(ranker, optimizer, group):
        for batch in group:
            torch.stack(list(OBJECTIVE(ranker(batch), batch).values())).sum().backward()
            optimizer.collect()
            optimizer.apply(1.0)

    torch.manual_seed(0)
    ranker, config = Bilinear(OPTIMIZERS[semantics]), TrainConfig(lr=0.02)
    optimizer = RankerOptimizer(ranker, config)
    steps(ranker, optimizer, batches(16)[:3])
    stored = {name: tensor.clone() for name, tensor in optimizer.state_tensors().items()}
    assert "adam/head.weight/exp_avg_sq" in stored and "tables/step" in stored
    assert not any("unused" in name for name in stored)
    again = Bilinear(OPTIMIZERS[semantics])
    ranker.tables.logical_tables()  # what a checkpoint reads
    again.load_state_dict(ranker.state_dict())
    resumed = RankerOptimizer(again, config)
    resumed.load_state_tensors(stored)
    steps(ranker, optimizer, batches(16)[3:])
    steps(again, resumed, batches(16)[3:])
    for either in (ranker, again):
        either.tables.logical_tables()  # writes the decay that is due
    for (name, a), b in zip(ranker.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_gradient_that_is_not_finite_changes_nothing():
    ranker = Bilinear(OPTIMIZERS["rowwise_adagrad"])
    optimizer = RankerOptimizer(ranker, TrainConfig())
    before = {name: tensor.clone() for name, tensor in ranker.state_dict().items()}
    batch = batches(16)[0]
    (ranker(batch).logits["click"].sum() * float("inf")).backward()
    optimizer.collect()
    assert not optimizer.apply(None) < float("inf")
    assert all(torch.equal(tensor, before[name]) for name, tensor in ranker.state_dict().items())
    assert optimizer.state_tensors()["tables/step"] == 0  # nothing is left over for the next step either


def test_state_cannot_be_stored_inside_a_step_or_given_to_another_ranker():
    ranker = Bilinear(OPTIMIZERS["lazy"])
    optimizer = RankerOptimizer(ranker, TrainConfig())
    batch = batches(16)[0]
    torch.stack(list(OBJECTIVE(ranker(batch), batch).values())).sum().backward()
    optimizer.collect()
    with pytest.raises(RuntimeError, match="collected and not applied: store between steps"):
        optimizer.state_tensors()
    optimizer.apply(None)
    state = optimizer.state_tensors()
    state["adam/neck.weight/step"] = state.pop("adam/head.weight/step")
    with pytest.raises(ValueError, match=r"this ranker's parameters, got 'neck\.weight'"):
        RankerOptimizer(Bilinear(OPTIMIZERS["lazy"]), TrainConfig()).load_state_tensors(state)
    with pytest.raises(TypeError, match="Expected Linear to have EmbeddingTables as `tables`, got None"):
        RankerOptimizer(nn.Linear(2, 2), TrainConfig())
