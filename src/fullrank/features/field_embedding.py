"""The fields of a block as vectors of one width, in the order they were asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fullrank.data.batch import FeatureBlock
from fullrank.data.inputs import Field
from fullrank.features.numeric import NumericEmbedding
from fullrank.features.tables import EmbeddingTables


class VectorProjection(nn.Module):
    """x = W v + b for a given vector v of `dim`; an owner whose vector holds a NaN gets a learned vector instead."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, width)
        self.missing_D = nn.Parameter(torch.randn(width) * 0.01)

    def forward(self, vectors_nV: Tensor) -> Tensor:
        missing_n1 = vectors_nV.isnan().any(-1, keepdim=True)
        return torch.where(missing_n1, self.missing_D, self.linear(torch.where(missing_n1, 0, vectors_nV)))


class FieldEmbedding(nn.Module):
    """`forward(block) -> x_nFD`: one vector of `width` for each of `fields`, in their order.

    categorical: a row of table `{key_space}.{set}`, one gather for all fields of an arena · multi: the (weighted) mean
    of its values' rows, zeros if it has none · numeric: `NumericEmbedding` · vector: `VectorProjection`.

    The tables are referred to, not registered: the model that made them registers them once, so that several
    `FieldEmbedding`s (request, candidate, each history) can read the same rows.
    """

    tables: EmbeddingTables

    def __init__(self, fields: tuple[Field, ...], tables: EmbeddingTables, width: int, set: str = "main") -> None:
        super().__init__()
        if not fields:
            raise ValueError("Expected at least one field to embed, got none.")
        object.__setattr__(self, "tables", tables)  # past nn.Module, which would register them here too
        self.fields = fields
        self.width = width
        table_of = {field.name: f"{field.key_space}.{set}" for field in fields if field.key_space}
        for field in fields:
            if field.key_space and tables.plan.place(table_of[field.name])[2].width != width:
                got = tables.plan.place(table_of[field.name])[2].width
                raise ValueError(f"Expected table {table_of[field.name]!r} of width {width}, got {got}.")

        by_arena: dict[int, list[int]] = {}
        categorical = [at for at, field in enumerate(fields) if field.kind == "categorical"]
        for column, at in enumerate(categorical):
            by_arena.setdefault(tables.plan.place(table_of[fields[at].name])[0], []).append(column)
        self.gathers = [
            (tables.columns(tuple(table_of[fields[categorical[column]].name] for column in group)), group)
            for group in by_arena.values()
        ]
        numeric = [at for at, field in enumerate(fields) if field.kind == "numeric"]
        multi = [at for at, field in enumerate(fields) if field.kind == "multi"]
        vector = [at for at, field in enumerate(fields) if field.kind == "vector"]
        self.bag_tables = tuple(table_of[fields[at].name] for at in multi)
        self.numeric = NumericEmbedding(len(numeric), width) if numeric else None
        self.vectors = nn.ModuleList(VectorProjection(fields[at].dim, width) for at in vector)
        # Positions of the fields in the order the parts come out of forward; `order` undoes it.
        made = [categorical[column] for group in by_arena.values() for column in group] + numeric + multi + vector
        self.order = None if made == sorted(made) else sorted(range(len(made)), key=made.__getitem__)

    def forward(self, block: FeatureBlock) -> Tensor:
        whole = len(self.gathers) == 1
        parts = [
            self.tables.gather(columns, block.ids_nF if whole else block.ids_nF[:, group])
            for columns, group in self.gathers
        ]
        if self.numeric is not None:
            parts.append(self.numeric(block.numbers_nF))
        for table, bag in zip(self.bag_tables, block.bags, strict=True):
            parts.append(self.tables.pool(table, bag).unsqueeze(1))
        for projection, vectors_nV in zip(self.vectors, block.vectors_nD, strict=True):
            parts.append(projection(vectors_nV).unsqueeze(1))
        if self.order is not None:
            pieces = [piece for part in parts for piece in part.unbind(1)]
            return torch.stack([pieces[at] for at in self.order], dim=1)
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
