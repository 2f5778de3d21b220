"""DCN-V2: explicit feature crosses beside or below an MLP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables
from fullrank.layers.cross import CrossStack
from fullrank.layers.mlp import MLP
from fullrank.rankers.base import Output, Ranker, Taps, TaskTowers, check_choice, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront, FieldState

Structure = Literal["parallel", "stacked"]


class DCNv2(Ranker):
    """x_0 = all field vectors, flat; `x_{l+1} = x_0 ⊙ (W_l x_l + b_l) + x_l`; then a Linear per task on

        parallel: [x_L ; MLP(x_0)]          stacked: MLP(x_L)

    One vector for all tasks, and histories as mean-pooled fields (see `FieldFront`), are our choices: the paper has
    neither. W_l is full rank. Each cross layer costs (F · D)² parameters: with several hundred fields take fewer
    fields or a smaller width.

    Taps: `fields` [B, F, D] · `cross.L` [B, F · D] · `mlp` · `pooled` (what the task Linears read).

    Reference: Wang et al., "DCN V2", 2021, arXiv:2008.13535, eq. 1 and section 3 (structures).
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`hidden`: widths of the MLP, with `dropout` and, if `batch_norm`, BatchNorm after every Linear."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        structure: Structure = "parallel"
        num_cross_layers: int = 3
        hidden: tuple[int, ...] = (256, 128)
        dropout: float = 0.0
        batch_norm: bool = False

        def __post_init__(self) -> None:
            check_choice("DCNv2 structure", self.structure, Structure)

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> DCNv2:
            tables = self.embedding.build(inputs, num_rows, seed)
            with seeded(seed):
                return DCNv2(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        self.front = FieldFront(inputs, tables, config.embedding.width, "mean")
        flat_width = self.front.num_fields * config.embedding.width
        self.cross = CrossStack(flat_width, config.num_cross_layers)
        self.mlp = MLP(flat_width, config.hidden, dropout=config.dropout, batch_norm=config.batch_norm)
        width = self.mlp.width + (flat_width if config.structure == "parallel" else 0)
        self.towers = TaskTowers(inputs.task_names, width, hidden=())

    def encode_request(self, requests: Requests) -> FieldState:
        return self.front.encode_request(requests)

    def score(self, state: FieldState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        x0_BW = x_BW = tap(taps, "fields", self.front(state, candidates)).flatten(1)
        for index, crossed_BW in enumerate(self.cross(x0_BW)):
            x_BW = tap(taps, f"cross.{index}", crossed_BW)
        if self.config.structure == "parallel":
            parts = (x_BW, tap(taps, "mlp", self.mlp(x0_BW)))
        else:
            parts = (tap(taps, "mlp", self.mlp(x_BW)),)
        if taps is not None:
            pooled_BP = tap(taps, "pooled", torch.cat(parts, dim=1))
            widths = [part.shape[1] for part in parts]
            parts = tuple(part.contiguous() for part in pooled_BP.split(widths, dim=1))  # as they are without taps
        return Output(self.towers(*parts), {}, taps if taps is not None else {})

    def frozen_for(self, task: str) -> set[str]:
        return self.towers.names_of_others(task, "towers")
