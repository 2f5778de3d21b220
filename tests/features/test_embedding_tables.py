import copy
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fullrank.data.batch import Bag
from fullrank.features.table_init import ROWS_PER_CHUNK, initial_rows
from fullrank.features.tables import EmbeddingTables, TableOptimizer, TablePlan, TableSpec

SIZES = {"user": 6, "item": 9, "genre": 4}


def make(seed: int = 3, **more) -> EmbeddingTables:
    return EmbeddingTables(
        TablePlan(
            tuple(TableSpec(key_space=name, num_rows=n, width=3, init_std=1.0, **more) for name, n in SIZES.items())
        ),
        seed,
    )


def dense_grad(tables: EmbeddingTables) -> torch.Tensor:
    grad = tables.arenas[0].grad
    assert grad.is_sparse
    return grad.to_dense()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_gather_equals_a_loop_over_logical_tables(data):
    tables = make()
    tables_of = st.sampled_from(["user.main", "item.main", "genre.main"])
    names = tuple(data.draw(st.lists(tables_of, min_size=1, max_size=5)))
    rows = st.tuples(*(st.integers(0, SIZES[name.removesuffix(".main")] - 1) for name in names))
    ids = data.draw(st.lists(rows, max_size=7))
    ids_nF = torch.tensor(ids, dtype=torch.int64).reshape(-1, len(names))
    logical = tables.logical_tables()
    x_nFD = tables.gather(tables.columns(names), ids_nF)
    assert x_nFD.shape == (len(ids), len(names), 3)
    for n, row in enumerate(ids):
        for f, local in enumerate(row):
            assert torch.equal(x_nFD[n, f], logical[names[f]][local])


def test_gradients_are_sparse_and_add_up_over_lookups():
    tables = make()
    columns = tables.columns(("item.main", "item.main", "user.main"))
    ids_nF = torch.tensor([[1, 8, 5], [1, 2, 5]])
    scale_nFD = torch.arange(1.0, 19.0).reshape(2, 3, 3)
    bag = Bag(torch.tensor([8, 8]), torch.tensor([0, 0, 2]))
    ((tables.gather(columns, ids_nF) * scale_nFD).sum() + tables.pool("item.main", bag).sum()).backward()
    expected = torch.zeros(19, 3)
    for n in range(2):
        for f, base in enumerate((6, 6, 0)):
            expected[base + ids_nF[n, f]] += scale_nFD[n, f]
    expected[6 + 8] += 1
    assert torch.allclose(dense_grad(tables), expected)


def test_gather_table_takes_ids_of_any_shape():
    tables = make()
    ids = torch.tensor([[0, 1], [3, 2], [2, 2]])
    assert torch.equal(tables.gather_table("genre.main", ids), tables.logical_tables()["genre.main"][ids])


@pytest.mark.parametrize("mode", ["mean", "sum"])
@pytest.mark.parametrize("weighted", [False, True])
def test_pool_equals_a_loop(mode, weighted):
    tables = make()
    bags = [[1, 2, 2], [], [3], [1, 3], []]
    weights = [[0.5, 2.0, 1.0], [], [3.0], [0.0, 0.0], []]
    flat = Bag(
        torch.tensor([i for bag in bags for i in bag]),
        torch.tensor([0, 3, 3, 4, 6, 6]),
        torch.tensor([w for bag in weights for w in bag]) if weighted else None,
    )
    x_nD = tables.pool("genre.main", flat, mode)
    table = tables.logical_tables()["genre.main"].clone().requires_grad_()
    expected = []
    for bag, bag_weights in zip(bags, weights, strict=True):
        w = torch.tensor(bag_weights) if weighted else torch.ones(len(bag))
        total = (table[bag] * w[:, None]).sum(0)
        expected.append(total / w.sum() if mode == "mean" and w.sum() else total)
    expected_nD = torch.stack(expected)
    assert torch.allclose(x_nD, expected_nD, atol=1e-6)
    assert torch.equal(x_nD[[1, 4]], torch.zeros(2, 3))
    (x_nD * torch.arange(15.0).reshape(5, 3)).sum().backward()
    (expected_nD * torch.arange(15.0).reshape(5, 3)).sum().backward()
    assert torch.allclose(dense_grad(tables)[15:], table.grad, atol=1e-6)
    assert dense_grad(tables)[:15].abs().sum() == 0


def test_bags_that_are_all_empty_pool_to_zeros_and_learn_nothing():
    tables = make()
    x_nD = tables.pool("genre.main", Bag(torch.empty(0, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)))
    assert torch.equal(x_nD, torch.zeros(3, 3))
    x_nD.sum().backward()
    assert dense_grad(tables).abs().sum() == 0


@pytest.mark.parametrize("bad", [9, -1, 2**40])
def test_an_id_outside_its_table_names_table_and_id(bad):
    tables = make()
    message = rf"ids of table 'item\.main' \(column 1\) in 0\.\.8, got {bad}\. .*grow it"
    with pytest.raises(IndexError, match=message):
        tables.gather(tables.columns(("user.main", "item.main")), torch.tensor([[5, 8], [5, bad]]))
    with pytest.raises(IndexError, match=r"ids of table 'item\.main' \(column 0\)"):
        tables.pool("item.main", Bag(torch.tensor([bad]), torch.tensor([0, 1])))


def test_wrong_columns_are_refused():
    plan = TablePlan(
        (TableSpec(key_space="user", num_rows=3, width=2), TableSpec(key_space="item", num_rows=3, width=4))
    )
    tables = EmbeddingTables(plan, 0)
    with pytest.raises(ValueError, match=r"columns of one arena .* \{'user\.main': 0, 'item\.main': 1\}"):
        tables.columns(("user.main", "item.main"))
    with pytest.raises(ValueError, match=r"ids of 1 columns, got shape \(5, 2\)"):
        tables.gather(tables.columns(("user.main",)), torch.zeros(5, 2, dtype=torch.int64))


def test_initial_rows_are_a_function_of_seed_table_and_row():
    n = 2 * ROWS_PER_CHUNK + 37
    small = TableSpec(key_space="user", num_rows=n, width=5, init_std=0.5)
    whole = initial_rows(small, 7, 0, n)
    assert torch.equal(whole[0], torch.zeros(5)) and bool(whole[1:].abs().sum(1).gt(0).all())
    for start, end in ((0, 10), (1, 2), (1000, 1030), (ROWS_PER_CHUNK, 2 * ROWS_PER_CHUNK), (2000, n), (n, n)):
        assert torch.equal(initial_rows(small, 7, start, end), whole[start:end])
    assert len(torch.unique(whole[1:])) > 0.99 * whole[1:].numel()  # chunks are not copies of each other
    assert abs(float(whole.std()) - 0.5) < 0.02 and abs(float(whole.mean())) < 0.02
    other_set = TableSpec(key_space="user", num_rows=n, width=5, init_std=0.5, set="second")
    for other in (initial_rows(small, 8, 0, n), initial_rows(other_set, 7, 0, n)):
        correlation = torch.corrcoef(torch.stack([whole[1:].flatten(), other[1:].flatten()]))[0, 1]
        assert abs(float(correlation)) < 0.04


def test_initial_rows_are_the_same_on_every_machine():
    rows = initial_rows(TableSpec(key_space="item", num_rows=3, width=2, init_std=1.0), 0, 1, 3)
    golden = torch.tensor([[-0.70125383, -0.64736545], [0.0472074, 0.92190003]])
    torch.testing.assert_close(rows, golden, rtol=0, atol=1e-7)


def test_growing_keeps_old_rows_and_makes_the_rows_of_a_larger_table():
    tables = make()
    with torch.no_grad():
        tables.arenas[0][1] = 42.0
    before = {name: view.clone() for name, view in tables.logical_tables().items()}
    columns = tables.columns(("genre.main", "item.main"))
    tables.gather(columns, torch.tensor([[3, 8]]))
    parameter = tables.arenas[0]
    tables.grow({"user": 2000, "item": 12})
    assert tables.arenas[0] is parameter
    larger = EmbeddingTables(tables.plan, 3).logical_tables()
    for name, view in tables.logical_tables().items():
        old = len(before[name])
        assert torch.equal(view[:old], before[name])
        assert torch.equal(view[old:], larger[name][old:])
    x_nFD = tables.gather(columns, torch.tensor([[3, 11]]))
    assert torch.equal(x_nFD[0, 0], before["genre.main"][3]) and torch.equal(x_nFD[0, 1], larger["item.main"][11])


def test_logical_tables_go_through_a_file_into_another_plan(tmp_path):
    tables = make(seed=1)
    save_file(tables.logical_tables(), tmp_path / "tables.safetensors")
    stored = load_file(tmp_path / "tables.safetensors")
    assert {name: tuple(value.shape) for name, value in stored.items()} == {
        "user.main": (6, 3),
        "item.main": (9, 3),
        "genre.main": (4, 3),
    }
    # Another optimizer for one table: other arenas, the same logical tables.
    specs = [TableSpec(key_space=name, num_rows=n, width=3) for name, n in reversed(SIZES.items())]
    specs[0] = TableSpec(key_space="genre", num_rows=4, width=3, optimizer=TableOptimizer(semantics="dense"))
    other = EmbeddingTables(TablePlan(tuple(specs)), 2)
    assert len(other.arenas) == 2
    other.load_logical_tables(stored)
    for name, view in other.logical_tables().items():
        assert torch.equal(view, tables.logical_tables()[name])


def test_loading_checks_names_and_shapes():
    tables = make()
    good = {name: view.clone() for name, view in tables.logical_tables().items()}
    missing = r"every table and no other: missing \['user\.main'\], unexpected \['usr\.main'\]"
    with pytest.raises(ValueError, match=missing):
        others = {name: table for name, table in good.items() if name != "user.main"}
        tables.load_logical_tables({**others, "usr.main": good["user.main"]})
    with pytest.raises(ValueError, match=r"table 'item\.main' of shape \(9, 3\), got \(8, 3\)"):
        tables.load_logical_tables({**good, "item.main": good["item.main"][:8]})


def test_a_copy_is_independent_and_other_precisions_work():
    tables = make()
    columns = tables.columns(("user.main",))
    tables.gather(columns, torch.tensor([[1]]))
    twin = copy.deepcopy(tables).double()
    with torch.no_grad():
        tables.arenas[0].zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = twin.gather(columns, torch.tensor([[1]])) + twin.pool(
            "user.main", Bag(torch.tensor([1]), torch.tensor([0, 1]))
        )
    assert x.dtype == torch.float64 and bool(x.abs().sum() > 0)
