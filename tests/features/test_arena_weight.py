"""An arena's gradient against torch's own sparse embeddings, and who may see it."""

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn
from torch.nn import functional as F

from fullrank.data.batch import Bag
from fullrank.features.arena_weight import ArenaWeight, LookUpGrad
from fullrank.features.table_updates import TableUpdater
from fullrank.features.table_updates.row_grads import sum_lookups
from fullrank.features.tables import EmbeddingTables, TableOptimizer, TablePlan, TableSpec

SIZES = {"user": 6, "item": 9}
BASE = {"user.main": 0, "item.main": 6}
WIDTH = 3
LAZY = TableOptimizer(semantics="lazy", lr=0.05, weight_decay=0.5)


class Model(nn.Module):
    """Some module above the tables, with a parameter of its own."""

    def __init__(self, optimizer: TableOptimizer | None = None) -> None:
        super().__init__()
        specs = (
            TableSpec(key_space=n, num_rows=r, width=WIDTH, init_std=1.0, optimizer=optimizer or TableOptimizer())
            for n, r in SIZES.items()
        )
        self.tables = EmbeddingTables(TablePlan(tuple(specs)), 4)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, ids_N: torch.Tensor) -> torch.Tensor:
        x_ND = self.tables.gather_table("item.main", ids_N)
        x_nD = self.tables.pool("user.main", Bag(torch.tensor([1, 1, 4]), torch.tensor([0, 2, 3])))
        return (x_ND.square().sum() + x_nD.square().sum()) * self.scale


@st.composite
def lookups(draw):
    """(table, ids, lengths of bags, weights): a gather of one table where `lengths` is None, else a pool of it."""
    table = draw(st.sampled_from(list(BASE)))
    ids = draw(st.lists(st.integers(0, SIZES[table.removesuffix(".main")] - 1), max_size=8))
    if draw(st.booleans()):
        return table, ids, None, None
    cuts = sorted(draw(st.lists(st.integers(0, len(ids)), max_size=3)))
    return table, ids, [0, *cuts, len(ids)], draw(st.sampled_from([None, [0.5 + i for i in range(len(ids))]]))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(lookups(), min_size=1, max_size=4), min_size=1, max_size=3), st.booleans())
def test_the_gradient_is_torchs_own_over_look_ups_and_backwards(backwards, read_between):
    tables = Model().tables
    weight_RD = tables.weight(0)
    twin = nn.Parameter(weight_RD.detach().clone())
    generator = torch.Generator().manual_seed(0)
    for group in backwards:
        ours, theirs = torch.zeros(()), torch.zeros(())
        for table, ids, offsets, weights in group:
            ids_N = torch.tensor(ids, dtype=torch.int64)
            if offsets is None:
                x = tables.gather_table(table, ids_N)
                y = F.embedding(ids_N + BASE[table], twin, sparse=True)
            else:
                offsets = torch.tensor(offsets)
                weights_N = None if weights is None else torch.tensor(weights)
                x = tables.pool(table, Bag(ids_N, offsets, weights_N), "sum")
                more = {"sparse": True, "include_last_offset": True, "per_sample_weights": weights_N}
                y = F.embedding_bag(ids_N + BASE[table], twin, offsets, mode="sum", **more)
            torch.testing.assert_close(x, y)
            slope = torch.randn(y.shape, generator=generator)
            ours, theirs = ours + (x * slope).sum(), theirs + (y * slope).sum()
        ours.backward()
        theirs.backward()
        if read_between:
            assert weight_RD.grad is not None and weight_RD.grad.is_sparse
    torch.testing.assert_close(weight_RD.grad.to_dense(), twin.grad.to_dense(), rtol=1e-5, atol=1e-5)
    (grads,) = TableUpdater(tables).merge()
    oracle = twin.grad.coalesce()
    kept = [i for i, row in enumerate(oracle.indices()[0].tolist()) if row not in BASE.values()]
    assert torch.equal(grads.rows_U, oracle.indices()[0][kept])
    torch.testing.assert_close(grads.values_UD, oracle.values()[kept], rtol=1e-5, atol=1e-5)
    assert weight_RD.grad is None


def test_reading_the_gradient_before_the_merge_changes_no_bit():
    merged = []
    for read in (False, True):
        model = Model()
        for _ in range(2):
            model(torch.tensor([3, 1, 3, 8])).backward()
            assert not read or model.tables.weight(0).grad is not None
        merged += TableUpdater(model.tables).merge()
    assert torch.equal(merged[0].rows_U, merged[1].rows_U) and torch.equal(merged[0].values_UD, merged[1].values_UD)


def test_zero_grad_of_a_module_above_forgets_what_backward_left():
    model = Model()
    weight_RD = model.tables.weight(0)
    assert weight_RD.grad is None
    model(torch.tensor([3, 1])).backward()
    model.zero_grad()
    assert weight_RD.grad is None and weight_RD.take() == []
    loss = model(torch.tensor([2]))
    model.zero_grad()  # between forward and backward it forgets nothing that is to come
    loss.backward()
    assert TableUpdater(model.tables).merge()[0].rows_U.tolist() == [1, 4, 6 + 2]


def test_copies_and_files_hold_the_rows_alone():
    model = Model()
    model(torch.tensor([3, 1])).backward()
    for twin in (copy.deepcopy(model).tables.weight(0), copy.copy(model.tables.weight(0))):
        assert type(twin) is ArenaWeight and twin.grad is None and twin.take() == []
        assert torch.equal(twin, model.tables.weight(0))
    assert all(type(tensor) is torch.Tensor for tensor in model.state_dict().values())
    stored = load(save(model.state_dict()))
    assert set(stored) == {"tables.arenas.0", "scale"}
    other = Model()
    other.load_state_dict(stored)
    assert other.tables.weight(0).grad is None
    assert model.tables.weight(0).grad is not None  # all that took nothing away


def test_a_converted_copy_learns_on_its_own():
    model = Model()
    twin = copy.deepcopy(model).double()
    twin(torch.tensor([3, 3])).backward()
    (grads,) = TableUpdater(twin.tables).merge()
    assert grads.values_UD.dtype == torch.float64 and grads.rows_U.tolist() == [1, 4, 6 + 3]
    assert model.tables.weight(0).grad is None


def test_nothing_is_noted_where_no_gradient_is_wanted():
    model = Model()
    ids_N = torch.tensor([3, 1])
    expected = model(ids_N).detach()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            assert torch.equal(model(ids_N), expected)
    model.tables.requires_grad_(False)
    model(ids_N).backward()
    assert model.scale.grad is not None and model.tables.weight(0).take() == []


def test_a_read_gives_the_bits_that_writing_the_deferred_decay_will():
    model = Model(LAZY)
    updater = TableUpdater(model.tables)
    for ids in ([1, 2], [2, 3], [7]):
        model(torch.tensor(ids)).backward()
        updater.step()
    ids_N = torch.arange(SIZES["item"])
    stored = model.tables.weight(0).detach().clone()
    read = model.tables.gather_table("item.main", ids_N)
    updater.flush()
    assert torch.equal(read, model.tables.gather_table("item.main", ids_N))
    assert not torch.equal(stored, model.tables.weight(0))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_lookups_sum_as_a_dense_gradient_does(data):
    rows, dim = 12, 2
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    made, dense = [], torch.zeros(rows, dim, dtype=torch.float64)
    for _ in range(data.draw(st.integers(1, 3))):
        rows_N = torch.tensor(data.draw(st.lists(st.integers(0, rows - 1), max_size=9)), dtype=torch.int64)
        if data.draw(st.booleans()) and len(rows_N):
            sources_N = torch.randint(0, 4, rows_N.shape, generator=generator)
            made.append(LookUpGrad(rows_N, torch.randn(4, dim, generator=generator), sources_N))
        else:
            made.append(LookUpGrad(rows_N, torch.randn(len(rows_N), dim, generator=generator)))
        dense.index_add_(0, rows_N, made[-1].values_ND().double())
    dropped = data.draw(st.one_of(st.none(), st.sets(st.integers(0, rows - 1), min_size=1)))
    dropped_tensor = None if dropped is None else torch.tensor(sorted(dropped))
    grads = sum_lookups(made, dropped_tensor)
    reached = {row for lookup in made for row in lookup.rows_N.tolist()}
    assert grads.rows_U.tolist() == sorted(reached - (dropped or set()))
    assert grads.values_UD.shape == (len(grads.rows_U), dim)
    torch.testing.assert_close(grads.values_UD.double(), dense[grads.rows_U], rtol=0, atol=1e-5)
    again = sum_lookups(made, dropped_tensor)
    assert torch.equal(grads.values_UD, again.values_UD)


def test_rows_of_a_very_large_arena_do_not_overflow_the_sort():
    rows_N = torch.tensor([2**40, 5, 2**40, 2**39])
    grads = sum_lookups([LookUpGrad(rows_N, torch.tensor([[1.0], [2.0], [3.0], [4.0]]))])
    assert grads.rows_U.tolist() == [5, 2**39, 2**40]
    assert grads.values_UD.flatten().tolist() == [2.0, 4.0, 4.0]
