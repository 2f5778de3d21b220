"""Law 5: update semantics against oracles: torch's own optimizers, a step-by-step replay, a loop in Python."""

import copy
import math

import pytest
import torch
from safetensors.torch import load_file, save_file

from fullrank.data.batch import Bag
from fullrank.features.table_updates import RowGrads, TableUpdater
from fullrank.features.table_updates.row_grads import sum_duplicates
from fullrank.features.tables import EmbeddingTables, TableOptimizer, TablePlan, TableSpec
from fullrank.kernels.bodies import bodies

ADAM = TableOptimizer(semantics="dense", lr=0.03, betas=(0.8, 0.95), weight_decay=0.1)
ADAGRAD = TableOptimizer(semantics="dense", rule="adagrad", lr=0.1, eps=1e-10, weight_decay=0.1)
LAZY = TableOptimizer(semantics="lazy", lr=0.05, betas=(0.8, 0.95), weight_decay=0.5)
LAZY_PLAIN = TableOptimizer(semantics="lazy", lr=0.05)
ROWWISE = TableOptimizer(lr=0.1)
SPARSE = TableOptimizer(semantics="ftrl", lr=0.1, beta=0.5, l1=0.4, weight_decay=0.3)
ALL = [ADAM, ADAGRAD, LAZY, LAZY_PLAIN, ROWWISE, SPARSE]
USERS, ITEMS, WIDTH = 7, 9, 3


@pytest.fixture(autouse=True, params=["reference", "compiled"])
def _on_both_bodies(request):
    with bodies(request.param):
        yield


def make(optimizer: TableOptimizer, seed: int = 5, users: int = USERS) -> EmbeddingTables:
    sizes = {"user": users, "item": ITEMS}
    specs = (
        TableSpec(key_space=n, num_rows=r, width=WIDTH, init_std=1.0, optimizer=optimizer) for n, r in sizes.items()
    )
    return EmbeddingTables(TablePlan(tuple(specs)), seed)


def random_ids(generator: torch.Generator, n: int = 6) -> torch.Tensor:
    """Few distinct ids, so that duplicates and untouched rows both occur; padding among them."""
    return torch.stack(
        [torch.randint(0, 4, (n,), generator=generator), torch.randint(0, 5, (n,), generator=generator)], dim=1
    )


def loss_of(tables: EmbeddingTables, ids_nF: torch.Tensor) -> torch.Tensor:
    x_nFD = tables.gather(tables.columns(("user.main", "item.main")), ids_nF)
    return ((x_nFD.sum(1) - 1) ** 2).mean()


def train(tables: EmbeddingTables, updater: TableUpdater, steps: int, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        loss_of(tables, random_ids(generator)).backward()
        updater.step()


def whole(tables: EmbeddingTables) -> torch.Tensor:
    return torch.cat(list(tables.logical_tables().values())).clone()


@pytest.mark.parametrize("optimizer", [ADAM, ADAGRAD], ids=["adam", "adagrad"])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_dense_is_torchs_optimizer_over_the_whole_table(optimizer, micro_batches):
    tables = make(optimizer)
    updater = TableUpdater(tables)
    twin = torch.nn.Parameter(tables.arenas[0].detach().clone())
    more = {"betas": optimizer.betas} if optimizer.rule == "adam" else {}
    kind = torch.optim.Adam if optimizer.rule == "adam" else torch.optim.Adagrad
    oracle = kind([twin], lr=1.0, eps=optimizer.eps, weight_decay=optimizer.weight_decay, foreach=False, **more)
    generator = torch.Generator().manual_seed(1)
    base_F = torch.tensor([0, USERS])
    for step in range(12):
        lr_scale = 1 / (1 + step % 5)
        oracle.param_groups[0]["lr"] = optimizer.lr * lr_scale
        updater.set_lr_scale(lr_scale)
        oracle.zero_grad()
        for _ in range(micro_batches):
            ids_nF = random_ids(generator)
            loss_of(tables, ids_nF).backward()
            updater.accumulate(updater.merge())
            (((twin[ids_nF + base_F].sum(1) - 1) ** 2).mean() / micro_batches).backward()
        twin.grad[base_F] = 0  # padding does not learn
        updater.apply(1 / micro_batches)
        oracle.step()
        torch.testing.assert_close(tables.arenas[0].detach(), twin.detach(), rtol=0, atol=1e-6)
    untouched = make(optimizer).logical_tables()["item.main"][6:]
    assert bool((tables.logical_tables()["item.main"][6:] != untouched).all()), "L2 reaches untouched rows"


@pytest.mark.parametrize("optimizer", [ADAM, ADAGRAD], ids=["adam", "adagrad"])
def test_dense_has_the_very_bits_of_torchs_optimizer(optimizer):
    tables = make(optimizer)
    updater = TableUpdater(tables)
    twin = torch.nn.Parameter(tables.arenas[0].detach().clone())
    more = {"betas": optimizer.betas} if optimizer.rule == "adam" else {}
    kind = torch.optim.Adam if optimizer.rule == "adam" else torch.optim.Adagrad
    oracle = kind(
        [twin], lr=optimizer.lr, eps=optimizer.eps, weight_decay=optimizer.weight_decay, foreach=False, **more
    )
    for step in range(8):
        rows_U = torch.tensor([1, 2 + step % 3, 9])
        values_UD = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(step))
        updater.accumulate([RowGrads(rows_U, values_UD)])
        updater.apply()
        twin.grad = torch.zeros_like(twin).index_copy(0, rows_U, values_UD)
        oracle.step()
        assert torch.equal(tables.arenas[0].detach(), twin.detach())


def replay_lazy(weight, optimizer, updates):
    """Every row shrinks every step; then the touched rows' Adam, in float64."""
    weight = weight.double().clone()
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    beta1, beta2 = optimizer.betas
    for step, (rows, values, lr) in enumerate(updates, start=1):
        weight *= 1 - lr * optimizer.weight_decay
        for row, g in zip(rows.tolist(), values.double(), strict=True):
            mean[row] = beta1 * mean[row] + (1 - beta1) * g
            square[row] = beta2 * square[row] + (1 - beta2) * g * g
            m_hat, v_hat = mean[row] / (1 - beta1**step), square[row] / (1 - beta2**step)
            weight[row] -= lr * m_hat / (v_hat.sqrt() + optimizer.eps)
    return weight


@pytest.mark.parametrize("optimizer", [LAZY, LAZY_PLAIN], ids=["decay", "plain"])
def test_lazy_is_its_own_replay_with_a_changing_rate(optimizer):
    tables = make(optimizer)
    start = tables.arenas[0].detach().clone()
    updater = TableUpdater(tables)
    generator = torch.Generator().manual_seed(2)
    updates, columns = [], tables.columns(("user.main", "item.main"))
    every_row = torch.stack([torch.arange(USERS), torch.arange(USERS)], dim=1)
    for step in range(15):
        scale = 0.0 if step == 4 else 1 + math.sin(step)
        updater.set_lr_scale(scale)
        loss_of(tables, random_ids(generator)).backward()
        grads = updater.merge()
        updates.append((grads[0].rows_U, grads[0].values_UD, optimizer.lr * scale))
        updater.accumulate(grads)
        updater.apply()
        expected = replay_lazy(start, optimizer, updates)
        # A read sees the decay that no write has reached yet …
        seen = tables.gather(columns, every_row).detach().double()
        torch.testing.assert_close(seen[:, 0], expected[:USERS], rtol=0, atol=2e-6)
        bag = Bag(torch.arange(ITEMS), torch.tensor([0, 4, ITEMS]), torch.linspace(0.1, 1, ITEMS))
        pooled = tables.pool("item.main", bag, "sum").detach().double()
        weighted = expected[USERS:] * bag.weights_N.double()[:, None]
        torch.testing.assert_close(pooled, torch.stack([weighted[:4].sum(0), weighted[4:].sum(0)]), rtol=0, atol=3e-6)
    if optimizer.weight_decay:
        assert not torch.allclose(tables.arenas[0].detach().double(), expected, atol=1e-3), "decay was deferred"
    updater.flush()
    torch.testing.assert_close(tables.arenas[0].detach().double(), expected, rtol=0, atol=2e-6)
    flushed = tables.arenas[0].detach().clone()
    updater.flush()
    assert torch.equal(tables.arenas[0].detach(), flushed)


def test_deferred_decay_passes_the_gradient_of_the_row_itself():
    tables = make(LAZY)
    updater = TableUpdater(tables)
    train(tables, updater, 5)
    ids_nF = torch.tensor([[6, 8], [5, 7], [1, 1]])
    loss_of(tables, ids_nF).backward()
    tables.pool("item.main", Bag(torch.tensor([7, 8, 8]), torch.tensor([0, 3]))).sum().backward()
    deferred = updater.merge()[0]
    updater.flush()
    loss_of(tables, ids_nF).backward()
    tables.pool("item.main", Bag(torch.tensor([7, 8, 8]), torch.tensor([0, 3]))).sum().backward()
    written = updater.merge()[0]
    assert torch.equal(deferred.rows_U, written.rows_U)
    torch.testing.assert_close(deferred.values_UD, written.values_UD, rtol=1e-5, atol=1e-6)


def test_lazy_leaves_untouched_rows_and_is_not_adam():
    lazy, dense = make(LAZY_PLAIN), make(TableOptimizer(semantics="dense", lr=LAZY_PLAIN.lr))
    updaters = [TableUpdater(lazy), TableUpdater(dense)]
    for rows in ([1], [2], [1]):
        for updater in updaters:
            updater.accumulate([RowGrads(torch.tensor(rows), torch.ones(1, WIDTH))])
            updater.apply()
    start = make(LAZY_PLAIN).arenas[0]
    assert torch.equal(lazy.arenas[0][3:], start[3:])
    assert not torch.allclose(lazy.arenas[0][2], dense.arenas[0][2])


def test_rowwise_adagrad_equals_a_loop():
    tables = make(ROWWISE)
    weight = tables.arenas[0].detach().double().clone()
    acc = [0.0] * len(weight)
    updater = TableUpdater(tables)
    generator = torch.Generator().manual_seed(3)
    for step in range(10):
        loss_of(tables, random_ids(generator)).backward()
        (grads,) = updater.merge()
        updater.set_lr_scale(1 / (step + 1))
        updater.accumulate([grads])
        updater.apply(0.5)
        for row, g in zip(grads.rows_U.tolist(), 0.5 * grads.values_UD.double(), strict=True):
            acc[row] += float((g * g).mean())
            weight[row] -= ROWWISE.lr / (step + 1) * g / (math.sqrt(acc[row]) + ROWWISE.eps)
    torch.testing.assert_close(tables.arenas[0].detach().double(), weight, rtol=0, atol=1e-6)
    state = updater.state_tensors()
    got = torch.cat([state["user.main/acc"], state["item.main/acc"]]).double()
    torch.testing.assert_close(got, torch.tensor(acc, dtype=torch.float64), rtol=1e-5, atol=1e-8)


def test_ftrl_minimises_its_own_objective():
    """The weight is where sum(g - s w_then) w + sum(s) / 2 w² + l2 / 2 w² + l1 |w| is least, its history replayed."""
    tables = make(SPARSE)
    start = tables.arenas[0].detach().double()
    updater = TableUpdater(tables)
    updater.set_lr_scale(0.3)  # a schedule does not reach it
    o, weight = SPARSE, start.clone()
    linear = -(o.beta / o.lr + o.weight_decay) * start - start.sign() * o.l1  # of which the first weight is the minimum
    squares = torch.zeros_like(weight)
    generator = torch.Generator().manual_seed(3)
    for _ in range(12):
        loss_of(tables, random_ids(generator)).backward()
        (grads,) = updater.merge()
        updater.accumulate([grads])
        updater.apply(0.5)
        for row, g in zip(grads.rows_U.tolist(), 0.5 * grads.values_UD.double(), strict=True):
            curve = ((squares[row] + g * g).sqrt() - squares[row].sqrt()) / o.lr
            linear[row] += g - curve * weight[row]
            squares[row] += g * g
            quadratic = (o.beta + squares[row].sqrt()) / o.lr + o.weight_decay
            candidates = torch.stack([(s * -o.l1 - linear[row]) / quadratic * (s != 0) for s in (-1, 0, 1)])
            value = linear[row] * candidates + quadratic / 2 * candidates**2 + o.l1 * candidates.abs()
            weight[row] = candidates.gather(0, value.argmin(0, keepdim=True))[0]
    torch.testing.assert_close(tables.arenas[0].detach().double(), weight, rtol=0, atol=2e-6)
    assert bool((weight == 0).sum() > len(tables.plan.specs) * WIDTH), "l1 set something besides padding to 0"


@pytest.mark.parametrize("optimizer", ALL)
def test_three_calls_equal_the_fused_step(optimizer):
    fused, parts = make(optimizer), make(optimizer)
    fused_updater, parts_updater = TableUpdater(fused), TableUpdater(parts)
    generator = torch.Generator().manual_seed(4)
    for _ in range(6):
        ids_nF = random_ids(generator)
        loss_of(fused, ids_nF).backward()
        loss_of(parts, ids_nF).backward()
        fused_updater.step(0.7)
        grads = parts_updater.merge()
        parts_updater.accumulate(grads)
        parts_updater.apply(0.7)
    assert torch.equal(whole(fused), whole(parts))
    for name, tensor in fused_updater.state_tensors().items():
        assert torch.equal(tensor, parts_updater.state_tensors()[name])


@pytest.mark.parametrize("optimizer", ALL)
def test_accumulated_micro_batches_equal_one_batch(optimizer):
    one, split = make(optimizer), make(optimizer)
    one_updater, split_updater = TableUpdater(one), TableUpdater(split)
    generator = torch.Generator().manual_seed(5)
    for _ in range(5):
        ids_nF = random_ids(generator, 8)
        loss_of(one, ids_nF).backward()
        one_updater.step()
        for part in ids_nF.split(4):
            loss_of(split, part).backward()
            split_updater.accumulate(split_updater.merge())
        split_updater.apply(0.5)
    torch.testing.assert_close(whole(one), whole(split), rtol=0, atol=1e-5)


@pytest.mark.parametrize("optimizer", ALL)
def test_padding_rows_stay_zero(optimizer):
    tables = make(optimizer)
    updater = TableUpdater(tables)
    for _ in range(4):
        (loss_of(tables, torch.tensor([[0, 0], [0, 3], [2, 0]])) * 5).backward()
        tables.pool("item.main", Bag(torch.tensor([0, 1]), torch.tensor([0, 2]))).sum().backward()
        grads = updater.merge()
        assert not {0, USERS} & set(grads[0].rows_U.tolist())
        updater.accumulate(grads)
        updater.apply()
    for view in tables.logical_tables().values():
        assert torch.equal(view[0], torch.zeros(WIDTH))


def test_a_batch_of_padding_alone_has_no_gradient_left():
    tables = make(ROWWISE)
    updater = TableUpdater(tables)
    loss_of(tables, torch.zeros(3, 2, dtype=torch.int64)).backward()
    (grads,) = updater.merge()
    assert len(grads.rows_U) == 0 and float(grads.sq_norm) == 0


def test_merge_sums_duplicates_before_the_norm_and_clears():
    tables = make(ROWWISE)
    updater = TableUpdater(tables)
    x_ND = tables.gather_table("user.main", torch.tensor([2, 1, 2, 2]))
    x_ND.sum().backward()
    (grads,) = updater.merge()
    assert grads.rows_U.tolist() == [1, 2] and grads.rows_U.dtype == torch.int64
    assert torch.equal(grads.values_UD, torch.tensor([[1.0] * WIDTH, [3.0] * WIDTH]))
    assert float(grads.sq_norm) == pytest.approx(WIDTH * (1 + 9))
    (again,) = updater.merge()
    assert len(again.rows_U) == 0 and again.values_UD.shape == (0, WIDTH)


def test_sum_duplicates_equals_coalesce_and_repeats_its_bits():
    generator = torch.Generator().manual_seed(6)
    rows_N = torch.randint(0, 50, (400,), generator=generator)
    values_ND = torch.randn(400, 4, generator=generator)
    oracle = torch.sparse_coo_tensor(rows_N[None], values_ND, (50, 4), check_invariants=True).coalesce()
    grads = sum_duplicates(rows_N, values_ND)
    assert torch.equal(grads.rows_U, oracle.indices()[0])
    torch.testing.assert_close(grads.values_UD, oracle.values(), rtol=0, atol=1e-5)
    assert torch.equal(grads.values_UD, sum_duplicates(rows_N, values_ND).values_UD)


def test_arenas_with_different_semantics_learn_side_by_side():
    specs = tuple(
        TableSpec(key_space=f"k{at}", num_rows=5, width=2 + at % 2, init_std=1.0, optimizer=optimizer)
        for at, optimizer in enumerate(ALL)
    )
    together = EmbeddingTables(TablePlan(specs), 9)
    updater = TableUpdater(together)
    alone = [EmbeddingTables(TablePlan((spec,)), 9) for spec in specs]
    alone_updaters = [TableUpdater(tables) for tables in alone]
    ids_N = torch.tensor([1, 1, 3])
    for _ in range(3):
        sum(together.gather_table(spec.name, ids_N).square().sum() for spec in specs).backward()
        updater.step()
        for spec, tables, own in zip(specs, alone, alone_updaters, strict=True):
            tables.gather_table(spec.name, ids_N).square().sum().backward()
            own.step()
    for spec, tables in zip(specs, alone, strict=True):
        assert torch.equal(together.logical_tables()[spec.name], tables.logical_tables()[spec.name])


@pytest.mark.parametrize("optimizer", ALL)
def test_a_stored_state_goes_on_bit_for_bit(optimizer, tmp_path):
    tables = make(optimizer)
    updater = TableUpdater(tables)
    train(tables, updater, 5)
    save_file(tables.logical_tables(), tmp_path / "tables.safetensors")
    save_file(updater.state_tensors(), tmp_path / "state.safetensors")
    other = make(optimizer, seed=99)
    other_updater = TableUpdater(other)
    other.load_logical_tables(load_file(tmp_path / "tables.safetensors"))
    other_updater.load_state_tensors(load_file(tmp_path / "state.safetensors"))
    assert other_updater.step_count == 5
    train(tables, updater, 4, seed=1)
    train(other, other_updater, 4, seed=1)
    assert torch.equal(whole(tables), whole(other))


@pytest.mark.parametrize("optimizer", ALL)
def test_growing_keeps_every_bit_and_goes_on_as_a_larger_table_would(optimizer):
    grown, larger = make(optimizer), make(optimizer, users=USERS + 4)
    grown_updater, larger_updater = TableUpdater(grown), TableUpdater(larger)
    train(grown, grown_updater, 4)
    train(larger, larger_updater, 4)
    before = {name: view.clone() for name, view in {**grown.logical_tables(), **grown_updater.state_tensors()}.items()}
    grown_updater.grow({"user": USERS + 4})
    after = {**grown.logical_tables(), **grown_updater.state_tensors()}
    for name, old in before.items():
        assert torch.equal(after[name][: len(old)] if old.dim() else after[name], old)
        if name.startswith("user.main/"):
            assert after[name][USERS:].abs().sum() == 0 and len(after[name]) == USERS + 4
    # New rows are those of a larger table that has not learned.
    fresh = make(optimizer, users=USERS + 4).logical_tables()["user.main"][USERS:]
    assert torch.equal(after["user.main"][USERS:], fresh)
    if optimizer.weight_decay == 0:
        train(grown, grown_updater, 3, seed=1)
        train(larger, larger_updater, 3, seed=1)
        assert torch.equal(whole(grown), whole(larger))


def test_misuse_says_what_to_do():
    tables = make(LAZY)
    updater = TableUpdater(tables)
    with pytest.raises(RuntimeError, match=r"Nothing to apply: call accumulate\(merge\(\)\)"):
        updater.apply()
    loss_of(tables, torch.tensor([[1, 1]])).backward()
    updater.accumulate(updater.merge())
    with pytest.raises(RuntimeError, match=r"wait for apply\(\): call it before you store or load"):
        updater.state_tensors()
    with pytest.raises(RuntimeError, match=r"wait for apply\(\): call it before you grow tables"):
        updater.grow({"user": 20})
    updater.apply()
    with pytest.raises(ValueError, match=r"table state 'user\.main/exp_avg' of shape \(7, 3\), got \(6, 3\)"):
        state = updater.state_tensors()
        updater.load_state_tensors({**state, "user.main/exp_avg": state["user.main/exp_avg"][:6]})
    with pytest.raises(ValueError, match=r"lr scale >= 0, got -1"):
        updater.set_lr_scale(-1)
    with pytest.raises(ValueError, match=r"weight_decay < 1 for table 'user\.main', got 0\.05 \* 40 \* 0\.5"):
        updater.set_lr_scale(40)
    copy.deepcopy(tables).grow({"user": 20})  # without an updater this is legal
    tables.grow({"user": 20})
    with pytest.raises(RuntimeError, match=r"call TableUpdater\.grow instead"):
        updater.merge()
