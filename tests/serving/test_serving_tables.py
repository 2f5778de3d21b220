"""Tables as they are served, against float32 tables that hold the rounded numbers: the same bits from every look-up."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fullrank.data.batch import Bag, Batch
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByTime
from fullrank.evaluation.auc import auc
from fullrank.features.table_updates.updater import TableUpdater
from fullrank.features.tables import DiskTables, EmbeddingTables, TableOptimizer, TablePlan, TableSpec
from fullrank.kernels.bodies import bodies
from fullrank.rankers import HSTU, DCNv2, Ranker
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.rankers.load import load_ranker
from fullrank.recipes.train import Trained, train_ranker
from fullrank.serving import tables as serving_tables
from fullrank.serving.scorer import Scorer
from fullrank.serving.tables import ServingTables, Storage, load_for_serving, table_bytes, with_tables
from fullrank.training.config import TrainConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "laws"))
from ranker_cases import CASES, INPUTS, NUM_ROWS, lively, random_batch

COMPACT: tuple[Storage, ...] = ("bfloat16", "int8")
LOG = SimulatedLog(SimulatorConfig(rows=6_000, users=150, ads=160, campaigns=20, days=3, seed=5))
SPECS = (
    TableSpec(key_space="item", num_rows=30, width=16, init_std=0.3),
    TableSpec(key_space="user", num_rows=20, width=16, init_std=3.0),
    TableSpec(key_space="item", set="linear", num_rows=30, width=1),
    TableSpec(key_space="item", set="odd", num_rows=30, width=5),
)
every_storage = pytest.mark.parametrize("storage", COMPACT)
both_bodies = pytest.mark.parametrize("body", ["reference", "compiled"])


def rounded(table_RD: Tensor, storage: Storage) -> Tensor:
    """What a served table reads as, written anew."""
    if storage == "bfloat16" or table_RD.shape[1] <= 4:
        return table_RD.bfloat16().float()
    scale_R1 = table_RD.abs().max(1, keepdim=True).values / 127
    return torch.where(scale_R1 > 0, (table_RD / scale_R1).round() * scale_R1, 0.0)


def rounded_tables(tables: EmbeddingTables, storage: Storage) -> EmbeddingTables:
    """Float32 tables of the rounded numbers."""
    other = EmbeddingTables(tables.plan, seed=99)
    other.load_logical_tables({name: rounded(t, storage) for name, t in tables.logical_tables().items()})
    return other


def packed(tables: EmbeddingTables, storage: Storage) -> ServingTables:
    served = ServingTables(tables.plan, storage)
    served.load_logical_tables(tables.logical_tables())
    return served


def logits_of(scorer: Scorer, batch: Batch) -> Tensor:
    return torch.stack(list(scorer(batch).values()), dim=1)


@every_storage
@both_bodies
def test_every_look_up_reads_the_rounded_numbers(storage: Storage, body: Any) -> None:
    tables = EmbeddingTables(TablePlan(SPECS), seed=1)
    served, expected = packed(tables, storage), rounded_tables(tables, storage)
    draw = torch.Generator().manual_seed(0)
    ids_nF = torch.randint(0, 20, (40, 3), generator=draw)
    names = ("item.main", "user.main", "item.main")
    bag = Bag(torch.tensor([1, 2, 2, 0, 19, 1]), torch.tensor([0, 3, 3, 4, 6]), torch.tensor([0.5, 2, -1, 3, 1, -1]))
    empty = Bag(torch.empty(0, dtype=torch.int64), torch.tensor([0, 0, 0]))
    with bodies(body):
        found_nFD = served.gather(served.columns(names), ids_nF)
        assert torch.equal(found_nFD, expected.gather(expected.columns(names), ids_nF))
        assert found_nFD[ids_nF != 0].std() > 0.1 and not found_nFD[ids_nF == 0].any()
        for name in tables.plan.places:
            assert torch.equal(served.gather_table(name, ids_nF), expected.gather_table(name, ids_nF))
            for mode in ("mean", "sum"):
                for each in (bag, Bag(bag.ids_N, bag.offsets), empty):
                    assert torch.equal(served.pool(name, each, mode), expected.pool(name, each, mode))


@pytest.mark.parametrize("config", [config for _, config in CASES], ids=[name for name, _ in CASES])
@every_storage
def test_every_ranker_scores_with_them(config: Any, storage: Storage) -> None:
    ranker, batch = lively(config), random_batch(1)
    scorer = Scorer(ranker, tables=storage)
    found, whole = logits_of(scorer, batch), logits_of(Scorer(ranker), batch)
    change = (found - whole).abs().max()
    most = 0.2 if isinstance(config, HSTU.Config) else 0.06  # TokenFormer .054; HSTU norms what it reads, however small
    assert 0 < change < most * whole.std()
    ranker.tables.load_logical_tables({name: rounded(t, storage) for name, t in ranker.tables.logical_tables().items()})
    assert torch.equal(found, logits_of(Scorer(ranker), batch))
    assert scorer.tables == storage and scorer.table_bytes <= table_bytes(ranker) / 2


def test_bytes_are_those_of_the_rows() -> None:
    tables = EmbeddingTables(TablePlan(SPECS), seed=1)
    assert packed(tables, "bfloat16").nbytes == 2 * (50 * 16 + 30 * 1 + 30 * 5)
    assert packed(tables, "int8").nbytes == 50 * (16 + 4) + 30 * 2 + 30 * (5 + 4)  # one number a row: bfloat16


@every_storage
def test_decay_that_rows_still_lack_is_written_first(storage: Storage) -> None:
    optimizer = TableOptimizer(semantics="lazy", lr=0.1, weight_decay=0.5)
    ranker = DCNv2.Config().build(INPUTS, {name: 9 for name in INPUTS.key_spaces()}, 0)
    tables = EmbeddingTables(TablePlan((TableSpec(key_space="item", num_rows=9, width=8, optimizer=optimizer),)), 0)
    updater, ids_nF = TableUpdater(tables), torch.arange(9).unsqueeze(-1)
    columns = tables.columns(("item.main",))
    for _ in range(3):
        tables.gather(columns, ids_nF[1:3]).sum().backward()
        updater.step()
    shown_nFD = tables.gather(columns, ids_nF).detach()
    ranker.tables = tables
    served = with_tables(ranker, storage).tables
    assert torch.equal(served.gather(columns, ids_nF).squeeze(1), rounded(shown_nFD.squeeze(1), storage))
    assert shown_nFD.abs().max() > 0


@every_storage
def test_ids_and_bags_outside_a_table_are_errors_as_ever(storage: Storage) -> None:
    tables = EmbeddingTables(TablePlan(SPECS), seed=1)
    served = packed(tables, storage)
    with pytest.raises(IndexError, match=r"ids of table 'user\.main' \(column 1\) in 0\.\.19, got 20\. Ids of a later"):
        served.gather(served.columns(("item.main", "user.main")), torch.tensor([[1, 2], [3, 20]]))
    with pytest.raises(IndexError, match=r"ids of table 'item\.odd' \(column 0\) in 0\.\.29, got -1"):
        served.pool("item.odd", Bag(torch.tensor([3, -1]), torch.tensor([0, 2])))


@every_storage
def test_what_is_not_finite_is_refused_by_its_row(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    ranker = lively(DCNv2.Config())
    monkeypatch.setattr(serving_tables, "PIECE", 64)  # the row is not in the first piece
    ranker.tables.logical_tables()["item.main"][17, 3] = torch.nan
    expected = r"finite weights to serve, got nan in table 'item\.main', row 17\. Its training has failed"
    with pytest.raises(ValueError, match=expected):
        Scorer(ranker, tables=storage)
    with torch.no_grad():
        ranker.tables.logical_tables()["item.main"][17, 3] = 0.0
        ranker.get_parameter("cross.1.linear.bias")[5] = torch.inf
    with pytest.raises(ValueError, match=r"got inf in dense weight 'cross\.1\.linear\.bias' at \(5,\)"):
        Scorer(ranker, tables=storage)


@every_storage
def test_they_are_packed_piece_by_piece(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is made at once than a piece, and where pieces end changes nothing."""
    ranker, batch = lively(DCNv2.Config()), random_batch(1)
    expected, sizes = logits_of(Scorer(ranker, tables=storage), batch), []
    monkeypatch.setattr(serving_tables, "PIECE", 100)
    for rows in (serving_tables.Bfloat16Rows, serving_tables.Int8Rows):
        write = rows.write
        monkeypatch.setattr(
            rows, "write", lambda own, at, piece, write=write: (sizes.append(piece.numel()), write(own, at, piece))
        )
    assert torch.equal(logits_of(Scorer(ranker, tables=storage), batch), expected)
    assert max(sizes) <= 100 and sum(sizes) == sum(p.numel() for p in ranker.tables.parameters())


def test_tables_that_are_served_are_not_trained() -> None:
    ranker = lively(DCNv2.Config())
    served = with_tables(ranker, "int8")
    read_only = r"can be trained and saved, got tables kept as int8 to be served.*load_ranker"
    for what in (
        lambda: TableUpdater(served.tables),
        served.tables.logical_tables,
        lambda: served.tables.grow({"item": 99}),
        lambda: with_tables(served, "float32"),
        lambda: with_tables(served, "bfloat16"),
    ):
        with pytest.raises(ValueError, match=read_only):
            what()
    assert with_tables(served, "int8").tables is served.tables
    assert with_tables(ranker, "float32").tables is ranker.tables
    assert not list(served.tables.parameters()) and not served.tables.state_dict()


@every_storage
def test_tables_on_disk_are_packed_as_those_in_memory(storage: Storage, tmp_path: Path) -> None:
    """Of a ranker, rows it holds among them, and of a checkpoint's files."""
    disk = DiskTables(key_spaces=("user", "item"), chunk_rows=16)
    rankers = [
        DCNv2.Config(embedding=EmbeddingConfig(disk=each)).build(INPUTS, NUM_ROWS, 0) for each in (DiskTables(), disk)
    ]
    rankers[1].tables.begin_on_disk(tmp_path / "first")
    batch = random_batch(seed=4)
    for ranker in rankers:
        updater = TableUpdater(ranker.tables)
        ranker(batch).logits["click"].square().sum().backward()
        updater.step()
    in_memory, on_disk = rankers
    expected, found = (Scorer(ranker, tables=storage) for ranker in rankers)
    assert found.table_bytes >= expected.table_bytes
    assert all(map(torch.equal, expected(batch).values(), found(batch).values()))

    (rows,) = on_disk.tables.on_disk()
    assert rows.num_held
    files = {name: write(tmp_path / "a" / name) for name, write in rows.writers().items()}
    packed = ServingTables(on_disk.tables.plan, storage)
    packed.load_logical_tables(on_disk.tables.logical_tables())
    packed.read_files(tmp_path / "a", {name: (file.size, file.sha256) for name, file in files.items()})
    ids_N = torch.arange(NUM_ROWS["user"])
    whole = with_tables(in_memory, storage).tables
    assert torch.equal(packed.gather_table("user.main", ids_N), whole.gather_table("user.main", ids_N))


def test_bad_settings_are_named() -> None:
    ranker = lively(DCNv2.Config())
    wrong: Any = "int4"
    with pytest.raises(ValueError, match=r"tables to be kept as one of .*got 'int4'\. Did you mean 'int8'"):
        Scorer(ranker, tables=wrong)
    with pytest.raises(ValueError, match="serve as bfloat16 or int8: those in float32 are EmbeddingTables"):
        ServingTables(ranker.tables.plan, "float32")
    tables = ranker.tables.logical_tables()
    with pytest.raises(ValueError, match=r"every table and no other: missing \['item\.main'\]"):
        ServingTables(ranker.tables.plan, "int8").load_logical_tables(
            {name: table for name, table in tables.items() if name != "item.main"}
        )
    with pytest.raises(ValueError, match=r"table 'item\.main' of shape \(60, 16\), got \(59, 16\)"):
        ServingTables(ranker.tables.plan, "int8").load_logical_tables(tables | {"item.main": tables["item.main"][:-1]})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Batch]:
    """A trained run with averaged weights, whose newest checkpoint stores changed rows alone, and the test rows."""
    folder = tmp_path_factory.mktemp("served")
    prepare(LOG, folder / "data", split=ByTime(valid=0.0, test=0.3))
    data = PreparedData.open(folder / "data")
    training = TrainConfig(
        epochs=5, batch_size=256, ema_decay=0.9, checkpoint_every_steps=40, full_checkpoint_every=100
    )
    trained = train_ranker(DCNv2.Config(hidden=(64, 32)), data, folder / "run", training, last_n=8)
    return trained, next(iter(Loader(data, trained.run.record.inputs, "test", batch_size=10_000).epoch(0)))


@every_storage
def test_a_run_is_packed_out_of_its_checkpoint(
    world: tuple[Trained, Batch], storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, batch = world
    expected = logits_of(Scorer(load_ranker(trained.run), tables=storage), batch)
    made: list[int] = []
    zeros = "fullrank.features.tables.zeros"
    monkeypatch.setattr(zeros, lambda rows, width: made.append(rows) or torch.zeros(rows, width))
    scorer = Scorer.of(trained.run, tables=storage)
    assert torch.equal(logits_of(scorer, batch), expected)
    assert sum(made) == len(trained.ranker.tables.plan.specs)  # a row a table, and never its own
    assert scorer.table_bytes * (2 if storage == "bfloat16" else 3.2) == table_bytes(trained.ranker)


def test_auc_stays(world: tuple[Trained, Batch]) -> None:
    trained, batch = world
    assert batch.labels is not None
    ranker: Ranker = load_ranker(trained.run)
    whole = logits_of(Scorer(ranker), batch)
    changes: dict[str, tuple[float, float]] = {}
    for storage in COMPACT:
        found = logits_of(Scorer(ranker, tables=storage), batch)
        known_B = batch.labels.known_BK[:, 0]
        label_B = batch.labels.values_BK[known_B, 0].numpy()
        before, after = (auc(label_B, logits[known_B, 0].numpy()) for logits in (whole, found))
        assert before > 0.58  # else there is nothing to lose
        changes[storage] = abs(after - before), float((found - whole).abs().max())
    assert changes["int8"][0] <= 1e-3 and changes["bfloat16"][0] <= 1e-4
    assert 0 < changes["bfloat16"][1] < changes["int8"][1] < 0.05


@every_storage
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_threads_read_at_once(world: tuple[Trained, Batch], storage: Storage, precision: Any) -> None:
    trained, batch = world
    scorer = Scorer.of(trained.run, tables=storage, precision=precision, piece_rows=300)
    expected = logits_of(scorer, batch)
    with bodies("compiled"), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: logits_of(scorer, batch), range(8)))
    assert all(torch.equal(logits, expected) for logits in found)


def test_float32_is_loaded_as_it_is(world: tuple[Trained, Batch]) -> None:
    trained, batch = world
    ranker = load_for_serving(trained.run)
    assert type(ranker.tables) is EmbeddingTables and not ranker.training
    assert torch.equal(logits_of(Scorer(ranker), batch), logits_of(Scorer.of(trained.run), batch))
