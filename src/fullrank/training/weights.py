"""A ranker's weights as named tensors: `dense` (parameters and buffers) and `tables` (logical tables)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fullrank.features.disk_rows import WriteFile
from fullrank.features.tables import EmbeddingTables, copy_named
from fullrank.training.checkpoint import Checkpoint


def tables_of(ranker: nn.Module) -> EmbeddingTables:
    """The one `EmbeddingTables` of a ranker, its attribute `tables`."""
    tables = getattr(ranker, "tables", None)
    if not isinstance(tables, EmbeddingTables):
        raise TypeError(f"Expected {type(ranker).__name__} to have EmbeddingTables as `tables`, got {tables!r}.")
    return tables


def file_writers(ranker: nn.Module) -> dict[str, WriteFile]:
    """What writes the files of tables that live on disk into a checkpoint, beside `weight_tensors`."""
    return {name: write for disk in tables_of(ranker).on_disk() for name, write in disk.writers().items()}


def read_from(ranker: nn.Module, checkpoint: Checkpoint) -> None:
    """From now on, read the tables that live on disk from this checkpoint's files; what was held of them in memory is
    forgotten."""
    entries = {name: (entry.size, entry.sha256) for name, entry in checkpoint.files.items()}
    tables_of(ranker).read_files(checkpoint.path, entries, grows=checkpoint.grows)


def weight_tensors(ranker: nn.Module) -> dict[str, dict[str, Tensor]]:
    """The two parts of a checkpoint that a ranker is read from. Views, not copies."""
    return {"dense": dense_tensors(ranker), "tables": tables_of(ranker).logical_tables()}


@torch.no_grad()
def load_weights(ranker: nn.Module, checkpoint: Checkpoint, *, averaged: bool = False) -> None:
    """Copy a checkpoint's weights into a ranker built from the same config; every name and shape must be the same.
    Tables that live on disk are not copied: they are read where they are.
    `averaged`: to be used, not trained on: the dense weights' average where the checkpoint has one."""
    dense = checkpoint.tensors("dense")
    if averaged and checkpoint.has("average"):
        dense |= checkpoint.tensors("average")
    copy_named(dense_tensors(ranker), dense, what=f"{type(ranker).__name__} weight")
    tables_of(ranker).load_logical_tables(checkpoint.tensors("tables"))
    read_from(ranker, checkpoint)


def dense_tensors(ranker: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers that are not tables, by name: the tensors themselves, detached."""
    arenas = {id(parameter) for parameter in tables_of(ranker).parameters()}
    state = ranker.state_dict(keep_vars=True)
    return {name: tensor.detach() for name, tensor in state.items() if id(tensor) not in arenas}
