"""Wukong: stacked factorization machines.

Legend: B rows · N vectors of a layer · D width · k columns of the projection.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables
from fullrank.layers.mlp import MLP
from fullrank.rankers.base import Output, Ranker, Taps, TaskTowers, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront, FieldState


class WukongBlock(nn.Module):
    """`X' = LN([FMB(X) ; LCB(X)] + R X)`; `[B, N, D] -> [B, machine + linear, D]`.

        FMB(X) = MLP(LN(flat(X (Xᵀ Y))))    all pairs of vectors, projected to k: N k numbers, then `machine` vectors
        LCB(X) = W X                         `linear` combinations of the vectors

    With Y = I, X (Xᵀ Y) holds every pair's inner product; Y `[N, k]` is learned, and the product is taken from the
    right: `2 N k D` operations instead of `N² D`. R is the identity where the number of vectors stays, else learned.
    """

    def __init__(self, vectors: int, width: int, machine: int, linear: int, rank: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        out = machine + linear
        self.machine = machine
        self.projection_Nk = nn.Parameter(nn.init.xavier_normal_(torch.empty(vectors, rank)))
        self.norm_pairs = nn.LayerNorm(vectors * rank)
        self.of_pairs = MLP(vectors * rank, hidden, machine * width)
        self.combine_LN = nn.Parameter(nn.init.xavier_normal_(torch.empty(linear, vectors)))
        same = out == vectors
        self.residual_ON = None if same else nn.Parameter(nn.init.xavier_normal_(torch.empty(out, vectors)))
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BND: Tensor) -> Tensor:
        pairs_BNk = x_BND @ (x_BND.transpose(1, 2) @ self.projection_Nk)
        made_BMD = self.of_pairs(self.norm_pairs(pairs_BNk.flatten(1))).unflatten(1, (self.machine, -1))
        new_BOD = torch.cat([made_BMD, torch.matmul(self.combine_LN, x_BND)], dim=1)
        kept_BOD = x_BND if self.residual_ON is None else torch.matmul(self.residual_ON, x_BND)
        return self.norm(new_BOD + kept_BOD)


class Wukong(Ranker):
    """Field vectors → L blocks of (factorization machine ; linear combination) → a network per task on all vectors.

    Layer l reaches products of up to 2^l fields: for crosses of many fields at a cost that grows with F k instead of
    DCN-V2's (F D)². Fixed by the paper: the block, its norms and residual, equal blocks. Our choices: Y is learned and
    the same for all rows (the paper also makes it from X), one vector a field (it gives large fields several), all
    sizes, histories as pooled fields (`mean`).

    Not where single products of two known fields are wanted: FM and DeepFM say which.

    Taps: `fields` [B, F, D] · `layers.L` [B, machine + linear, D] · `pooled` (what the networks read).

    Reference: Zhang et al., "Wukong", 2024, arXiv:2403.02545, section 3.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Vectors a block makes by `machine` and by `linear` combination; `rank`: k; `hidden`: of the machine's MLP."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        num_layers: int = 2
        machine: int = 8
        linear: int = 8
        rank: int = 8
        hidden: tuple[int, ...] = (128,)
        towers: tuple[int, ...] = (64,)
        dropout: float = 0.0

        def __post_init__(self) -> None:
            for name in ("num_layers", "machine", "linear", "rank"):
                if getattr(self, name) < 1:
                    raise ValueError(f"Expected Wukong {name} >= 1, got {getattr(self, name)}.")

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> Wukong:
            tables = self.embedding.build(inputs, num_rows, seed)
            with seeded(seed):
                return Wukong(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        width, out = config.embedding.width, config.machine + config.linear
        self.front = FieldFront(inputs, tables, width, "mean")
        self.blocks = nn.ModuleList(
            WukongBlock(vectors, width, config.machine, config.linear, config.rank, config.hidden)
            for vectors in (self.front.num_fields, *[out] * (config.num_layers - 1))
        )
        self.towers = TaskTowers(inputs.task_names, out * width, config.towers, config.dropout)

    def encode_request(self, requests: Requests) -> FieldState:
        return self.front.encode_request(requests)

    def score(self, state: FieldState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        x_BND = tap(taps, "fields", self.front(state, candidates))
        for index, block in enumerate(self.blocks):
            x_BND = tap(taps, f"layers.{index}", block(x_BND))
        pooled_BP = tap(taps, "pooled", x_BND.flatten(1))
        return Output(self.towers(pooled_BP), {}, taps if taps is not None else {})

    def frozen_for(self, task: str) -> set[str]:
        return self.towers.names_of_others(task, "towers")
