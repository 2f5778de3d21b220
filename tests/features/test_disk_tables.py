"""Tables that live on disk learn as those in memory do, and their files never change."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fullrank.data.batch import Bag
from fullrank.features.table_updates import TableUpdater
from fullrank.features.tables import DiskTables, EmbeddingTables, TableOptimizer, TablePlan, TableSpec
from fullrank.kernels.bodies import bodies

ROWS = {"user": 50, "item": 21}
NAMES = tuple(f"{name}.main" for name in ROWS)
DISK = DiskTables(key_spaces=("user", "item"), held_rows=16, chunk_rows=8)
SEMANTICS = ["rowwise_adagrad", "lazy", "ftrl"]


def tables_of(semantics: str, disk: DiskTables | None) -> EmbeddingTables:
    optimizer = TableOptimizer(semantics=semantics, lr=0.1)  # type: ignore[arg-type]  # of SEMANTICS
    specs = (
        TableSpec(key_space=name, num_rows=rows, width=5, optimizer=optimizer, disk=disk and disk.of(name))
        for name, rows in ROWS.items()
    )
    return EmbeddingTables(TablePlan(tuple(specs)), seed=3)


def everything(tables: EmbeddingTables) -> list[Tensor]:
    return [
        tables.gather_table(name, torch.arange(rows)).detach() for name, rows in zip(NAMES, ROWS.values(), strict=True)
    ]


def saved(tables: EmbeddingTables, folder: Path) -> dict[str, tuple[int, str]]:
    (disk,) = tables.on_disk()
    written = {name: write(folder / name) for name, write in disk.writers().items()}
    return {name: (file.size, file.sha256) for name, file in written.items()}


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("body", ["reference", "compiled"])
def test_they_learn_bit_for_bit_as_in_memory(tmp_path: Path, semantics: str, body: str) -> None:
    """Whatever is held, written and read again in between; a bag and a look-up in one backward."""
    memory, disk = tables_of(semantics, None), tables_of(semantics, DISK)
    disk.begin_on_disk(tmp_path / "first")
    (rows,) = disk.on_disk()
    updaters = [TableUpdater(memory), TableUpdater(disk)]
    random = torch.Generator().manual_seed(0)
    with bodies(body):  # type: ignore[arg-type]  # of Bodies
        for step in range(12):
            ids_nF = torch.stack([torch.randint(0, num, (9,), generator=random) for num in ROWS.values()], dim=1)
            bag = Bag(torch.randint(0, 21, (6,), generator=random), torch.tensor([0, 2, 2, 6]), torch.rand(6))
            weight = torch.randn(9, 2, 5, generator=random)
            found = []
            for tables, updater in zip((memory, disk), updaters, strict=True):
                x_nFD = tables.gather(tables.columns(NAMES), ids_nF)
                pooled = tables.pool("item.main", bag)
                ((x_nFD * weight).sum() + pooled.square().sum()).backward()
                updater.step(scale=0.5)
                found.append((x_nFD.detach(), pooled.detach()))
            assert all(torch.equal(*pair) for pair in zip(*found, strict=True)), step
            if step in (4, 8):
                assert rows.full and rows.num_held > DISK.held_rows  # it grew, since nobody wrote it
                rows.load(tmp_path / str(step), saved(disk, tmp_path / str(step)))
                assert rows.num_held == 0
        assert all(map(torch.equal, everything(memory), everything(disk)))
    assert not (tmp_path / "first").exists()
    again = tables_of(semantics, DISK)
    (other,) = again.on_disk()
    other.load(tmp_path / "12", saved(disk, tmp_path / "12"))
    assert all(map(torch.equal, everything(memory), everything(again)))


def test_only_files_that_changed_are_written(tmp_path: Path) -> None:
    tables = tables_of("rowwise_adagrad", DISK)
    tables.begin_on_disk(tmp_path / "first")
    updater = TableUpdater(tables)
    entries = saved(tables, tmp_path / "a")
    (disk,) = tables.on_disk()
    disk.load(tmp_path / "a", entries)
    before = {name: (tmp_path / "a" / name).read_bytes() for name in entries}
    tables.gather_table("user.main", torch.tensor([17, 23, 0])).sum().backward()
    updater.step()
    saved(tables, tmp_path / "b")
    same = {name for name in entries if os.path.samefile(tmp_path / "a" / name, tmp_path / "b" / name)}
    assert set(entries) - same == {"rows/user.main/000002.f32"}  # rows 16..23
    assert {name: (tmp_path / "a" / name).read_bytes() for name in entries} == before
    changed = torch.from_file(str(tmp_path / "b" / "rows/user.main/000002.f32"), size=8 * 6).view(8, 6)
    first = torch.from_file(str(tmp_path / "a" / "rows/user.main/000002.f32"), size=8 * 6).view(8, 6)
    assert (changed != first).any(dim=1).nonzero().squeeze(1).tolist() == [1, 7]
    assert changed[:, 5].tolist() == [0, 1, 0, 0, 0, 0, 0, 1]  # what Adagrad keeps of a row


def test_where_files_cannot_be_linked_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EXDEV, "another file system")

    tables = tables_of("lazy", DISK)
    tables.begin_on_disk(tmp_path / "first")
    was = everything(tables)
    monkeypatch.setattr(os, "link", link)
    (disk,) = tables.on_disk()
    disk.load(tmp_path / "a", saved(tables, tmp_path / "a"))
    assert not (tmp_path / "first").exists()
    assert all(map(torch.equal, was, everything(tables)))


def test_they_begin_as_in_memory_and_nothing_is_held_until_they_learn(tmp_path: Path) -> None:
    tables = tables_of("rowwise_adagrad", DISK)
    with pytest.raises(RuntimeError, match=r"'user.main', .* live on disk and have no files yet: call `Embedding"):
        tables.gather_table("user.main", torch.tensor([1]))
    (tmp_path / "first" / "rows").mkdir(parents=True)
    (tmp_path / "first" / "rows" / "of a process that was killed").touch()
    tables.begin_on_disk(tmp_path / "first")
    assert sorted(path.name for path in (tmp_path / "first" / "rows").iterdir()) == ["item.main", "user.main"]
    assert all(map(torch.equal, everything(tables), everything(tables_of("rowwise_adagrad", None))))
    (disk,) = tables.on_disk()
    assert len(disk.held_CD) == 0
    assert tables.logical_tables() == {}
    with pytest.raises(IndexError, match=r"ids of table 'item.main' \(column 0\) in 0..20, got 21"):
        tables.gather_table("item.main", torch.tensor([20, 21]))


@pytest.mark.parametrize("rows", [50, 53, 56, 57, 90])
def test_they_grow_as_in_memory(tmp_path: Path, rows: int) -> None:
    memory, disk = tables_of("rowwise_adagrad", None), tables_of("rowwise_adagrad", DISK)
    disk.begin_on_disk(tmp_path / "first")
    updaters = [TableUpdater(memory), TableUpdater(disk)]

    def learn(ids_N: Tensor) -> None:
        for tables, updater in zip((memory, disk), updaters, strict=True):
            tables.gather_table("user.main", ids_N).square().sum().backward()
            updater.step()

    learn(torch.tensor([3, 49, 49]))
    with pytest.raises(RuntimeError, match="2 changed rows are held in memory: save a checkpoint, then grow"):
        updaters[1].grow({"user": rows})
    entries = saved(disk, tmp_path / "a")
    disk.on_disk()[0].load(tmp_path / "a", entries)
    for updater in updaters:  # twice: what was learned is still there
        updater.grow({"user": (50 + rows) // 2})
        updater.grow({"user": rows})
    every = torch.arange(rows)
    assert torch.equal(*(tables.gather_table("user.main", every) for tables in (memory, disk)))
    learn(torch.tensor([49, 3, rows - 1]))
    assert torch.equal(*(tables.gather_table("user.main", every) for tables in (memory, disk)))

    entries = saved(disk, tmp_path / "b")
    other = EmbeddingTables(disk.plan, seed=3)
    other.on_disk()[0].load(tmp_path / "b", entries)
    assert torch.equal(*(tables.gather_table("user.main", every) for tables in (memory, other)))


def test_growing_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    specs = [
        TableSpec(key_space="item", num_rows=7, width=2),
        TableSpec(key_space="user", num_rows=9, width=3, disk=DISK),
    ]
    tables = EmbeddingTables(TablePlan(tuple(specs)), seed=0)
    tables.begin_on_disk(tmp_path / "first")
    updater = TableUpdater(tables)
    tables.gather_table("user.main", torch.tensor([3])).sum().backward()
    updater.step()
    with pytest.raises(RuntimeError, match="1 changed rows are held in memory"):
        updater.grow({"item": 8, "user": 10})
    assert tables.logical_tables()["item.main"].shape == (7, 2)
    assert tables.gather_table("item.main", torch.arange(7)).shape == (7, 2)
    with pytest.raises(RuntimeError, match="save a checkpoint, then train them by another updater"):
        TableUpdater(tables)


def test_nothing_asked_for_is_nothing(tmp_path: Path) -> None:
    tables = tables_of("rowwise_adagrad", DISK)
    tables.begin_on_disk(tmp_path / "first")
    assert tables.gather(tables.columns(NAMES), torch.empty(0, 2, dtype=torch.int64)).shape == (0, 2, 5)
    none = Bag(torch.empty(0, dtype=torch.int64), torch.tensor([0, 0, 0]), None)
    assert torch.equal(tables.pool("item.main", none), torch.zeros(2, 5))


def test_their_gradient_is_that_of_a_sparse_embedding(tmp_path: Path) -> None:
    memory, disk = tables_of("rowwise_adagrad", None), tables_of("rowwise_adagrad", DISK)
    disk.begin_on_disk(tmp_path / "first")
    for tables in (memory, disk):
        tables.gather_table("user.main", torch.tensor([3, 4, 3])).sum().backward()
    (expected,), (found,) = ([weight.grad for weight in tables.parameters()] for tables in (memory, disk))
    assert torch.equal(expected.to_dense()[:50], found.to_dense()[:50]) and found.to_dense()[50:].count_nonzero() == 0
    disk.zero_grad()
    assert [weight.grad for weight in disk.parameters()] == [None]


def test_thousands_of_files_need_no_descriptors(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="limits of a process are those of POSIX")
    fine = DiskTables(key_spaces=("user", "item"), chunk_rows=1)
    tables = tables_of("rowwise_adagrad", fine)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (os.open(os.devnull, os.O_RDONLY) + 20, limits[1]))
    try:
        tables.begin_on_disk(tmp_path / "first")  # 71 files
        tables.begin_on_disk(tmp_path / "first")  # and again, into the same folder
        assert all(map(torch.equal, everything(tables), everything(tables_of("rowwise_adagrad", None))))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_what_they_cannot_do_is_said(tmp_path: Path) -> None:
    for optimizer in (TableOptimizer(semantics="dense"), TableOptimizer(semantics="lazy", weight_decay=0.1)):
        with pytest.raises(ValueError, match=r"'user.main' is to live on disk.*Use 'rowwise_adagrad'"):
            TableSpec(key_space="user", num_rows=50, width=5, optimizer=optimizer, disk=DISK)
    with pytest.raises(ValueError, match="chunk_rows to be a power of two, got 6"):
        DiskTables(chunk_rows=6)
    with pytest.raises(ValueError, match="held_rows >= 1, got 0"):
        DiskTables(held_rows=0)
    tables = tables_of("lazy", DISK)
    tables.begin_on_disk(tmp_path / "first")
    (disk,) = tables.on_disk()
    entries = saved(tables, tmp_path / "a")
    with pytest.raises(ValueError, match=r"000003.f32 with rows 24..31 of table 'user.main' .*, got nothing there"):
        disk.load(tmp_path / "a", {n: e for n, e in entries.items() if n != "rows/user.main/000003.f32"})
    wider = tables_of("rowwise_adagrad", DISK).on_disk()[0]
    with pytest.raises(ValueError, match=r"rows 0..7 of table 'user.main' \(192 bytes\), got 480 bytes"):
        wider.load(tmp_path / "a", entries)
