"""RankUp: a token set that has more directions to begin with.

Legend: R requests · B rows · N tokens · D token width · K tasks · V width of given vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from fullrank.data.batch import Candidates, FeatureBlock, Requests
from fullrank.data.inputs import Field as InputField
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables, TablePlan
from fullrank.layers.mixing import check_mixable, mix
from fullrank.layers.mlp import MLP
from fullrank.layers.per_token_glu import PerTokenGLU
from fullrank.rankers.base import Output, Ranker, Taps, check_choice, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront, FieldState, HistoryPooling, table_specs
from fullrank.rankers.rankup_tokens import (
    FieldParts,
    GlobalKind,
    RankUpTokens,
    sparse_block,
    sparse_inputs,
    split_groups,
)
from fullrank.schema import did_you_mean


class RankUpBlock(nn.Module):
    """`S = mix(LN(X)) + X`, `X' = SwiGLU_t(LN(S)) + S`; `[B, N, D] -> [B, N, D]`, N (3 k D²) + 4 D parameters.

    mix is RankMixer's permutation, SwiGLU_t a network of its own for every token, `(SiLU(x W1) ⊙ (x W2)) W3` of hidden
    width k D (k is not printed: our choice), without biases.
    """

    def __init__(self, tokens: int, width: int, expansion: int) -> None:
        super().__init__()
        check_mixable(tokens, width)
        self.mix_norm, self.ffn_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ffn = PerTokenGLU(tokens, width, expansion * width, activation="silu", skip=False)

    def mix(self, x_BND: Tensor) -> Tensor:
        return mix(self.mix_norm(x_BND)) + x_BND

    def feed(self, s_BND: Tensor) -> Tensor:
        return self.ffn(self.ffn_norm(s_BND)) + s_BND

    def forward(self, x_BND: Tensor) -> Tensor:
        return self.feed(self.mix(x_BND))


@dataclass(frozen=True)
class RankUpState:
    """`sets`: the embedded fields of the request, of each set of tables. `crossed_RV`: its given vector."""

    sets: tuple[FieldState, ...]
    crossed_RV: Tensor | None


class RankUp(Ranker):
    """Tokens [global ; sparse fields by lot, from several tables ; dense ; histories ; crossed ; tasks] → L pre-LN
    blocks of (permutation, per-token SwiGLU) → for each task a network of (its own token ; the mean of the others).

    What the paper fixes: the backbone, L = 2, fields permuted as wholes, independent tables, a global token in front,
    the crossed token `Proj(z_u ⊙ z_i)` of a pretrained retrieval model, task tokens decoupled by task, tokens of dense
    features and sequences. What it does not print and we chose: how many of each, all widths, that each set of tables
    feeds an equal share of the tokens with a permutation of its own, learned constants as task tokens, a history as
    pooled fields, and that the mean leaves task tokens out. Every part is a switch, and `extra_tokens` stands in for
    one in a control of equal size: more tokens raise the ceiling of an effective rank by themselves.

    The permutation is a function of `permutation_seed` and the number of fields, kept in the run's config: a model that
    is loaded has the one it was trained with. K sets of tables are K times the embedding parameters.

    `width` is rounded up to a multiple of all tokens (mixing needs that). With one block a task token has heard from
    1 / N of each other token: use two or more. Not without a retrieval model for the crossed token; that one must not
    have seen the time that is evaluated.

    Taps: `tokens`, `layers.L.mix`, `layers.L.ffn` [B, N, D] (tasks last) · `pooled` [B, D].

    Reference: RankUp, 2026, arXiv:2604.17878.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`num_tokens`: of sparse fields, over all table sets. `num_tables`: sets of tables. `crossed`: names of a
        vector of the request and one of the candidate, of equal width, or (). `expansion`: k of SwiGLU. `towers`:
        hidden widths of each task's network, with `dropout`."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        width: int = 64
        num_tokens: int = 4
        permuted: bool = True
        permutation_seed: int = 0
        num_tables: int = 2
        global_token: GlobalKind = "fm"
        dense_token: bool = True
        sequence_tokens: bool = True
        crossed: tuple[str, ...] = ()
        task_tokens: bool = True
        extra_tokens: int = 0
        num_layers: int = 2
        expansion: int = 2
        history: HistoryPooling = "mean"
        towers: tuple[int, ...] = (64,)
        dropout: float = 0.0

        def __post_init__(self) -> None:
            check_choice("RankUp global_token", self.global_token, GlobalKind)
            check_choice("RankUp history", self.history, HistoryPooling)
            if self.num_tables < 1 or self.num_tokens < 1 or self.num_tokens % self.num_tables:
                raise ValueError(
                    f"Expected num_tokens to be a multiple of num_tables, so that every set of tables feeds as many, "
                    f"got {self.num_tokens} and {self.num_tables}."
                )
            if len(self.crossed) not in (0, 2):
                raise ValueError(f"Expected crossed to name two vectors (request, candidate), got {self.crossed}.")

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> RankUp:
            e = self.embedding
            specs = e.specs(inputs, num_rows)
            read = sparse_inputs(inputs, self.dense_token, self.sequence_tokens)
            for name in self.names_of_sets()[1:]:
                specs += table_specs(read, num_rows, name, e.width, e.init_std, e.optimizer, e.disk)
            tables = EmbeddingTables(TablePlan(specs), seed)
            with seeded(seed):
                return RankUp(self, inputs, tables)

        def names_of_sets(self) -> tuple[str, ...]:
            return ("main", *(f"set{k}" for k in range(1, self.num_tables)))

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        embedding_width, num_tasks = config.embedding.width, len(inputs.tasks) if config.task_tokens else 0
        sparse = sparse_inputs(inputs, config.dense_token, config.sequence_tokens)
        self.fronts = nn.ModuleList(
            FieldFront(sparse if at else inputs, tables, embedding_width, config.history, config.width, name)
            for at, name in enumerate(config.names_of_sets())
        )
        front = self._front(0)
        parts = FieldParts.of(inputs, front.field_names, config.dense_token, config.sequence_tokens)
        self.crossed_at = _vectors(inputs, config.crossed)
        per_set = config.num_tokens // config.num_tables
        groups = [
            split_groups(len(parts.sparse), per_set, config.permuted, config.permutation_seed + k)
            for k in range(config.num_tables)
        ]
        others = (config.global_token != "none") + bool(parts.dense) + bool(config.crossed) + config.extra_tokens
        num_tokens = config.num_tokens + others + sum(map(bool, parts.histories)) + num_tasks
        width = -(-config.width // num_tokens) * num_tokens
        self.tokens = RankUpTokens(
            parts,
            front.num_fields,
            embedding_width,
            width,
            groups_of_sets=groups,
            global_token=config.global_token,
            crossed_width=self.crossed_at[2] if self.crossed_at else 0,
            extra=config.extra_tokens,
        )
        assert self.tokens.num_tokens + num_tasks == num_tokens
        self.tasks_KD = nn.Parameter(torch.randn(num_tasks, width) * 0.01) if num_tasks else None
        self.blocks = nn.ModuleList(RankUpBlock(num_tokens, width, config.expansion) for _ in range(config.num_layers))
        read = 2 * width if config.task_tokens else width
        self.towers = nn.ModuleList(MLP(read, config.towers, 1, config.dropout) for _ in inputs.tasks)

    def _front(self, at: int) -> FieldFront:
        front = self.fronts[at]
        assert isinstance(front, FieldFront)
        return front

    def encode_request(self, requests: Requests) -> RankUpState:
        dense, sequences = self.config.dense_token, self.config.sequence_tokens
        rest = replace(
            requests,
            features=sparse_block(requests.features, dense),
            histories=() if sequences else requests.histories,
        )
        sets = tuple(self._front(at).encode_request(rest if at else requests) for at in range(len(self.fronts)))
        crossed_RV = None if self.crossed_at is None else _vector(requests.features, self.crossed_at[0])
        return RankUpState(sets, crossed_RV)

    def score(self, state: RankUpState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        rest = replace(candidates, features=sparse_block(candidates.features, self.config.dense_token))
        sets_BFE = [self._front(at)(fields, rest if at else candidates) for at, fields in enumerate(state.sets)]
        crossed_BV = None
        if self.crossed_at is not None and state.crossed_RV is not None:
            own_BV = _vector(candidates.features, self.crossed_at[1])
            crossed_BV = state.crossed_RV.index_select(0, candidates.request_of_row_B) * own_BV
        x_BND = self.tokens(sets_BFE, crossed_BV)
        num_tasks = 0
        if self.tasks_KD is not None:
            num_tasks = len(self.tasks_KD)
            x_BND = torch.cat([x_BND, self.tasks_KD.to(x_BND.dtype).expand(len(x_BND), -1, -1)], dim=1)
        tap(taps, "tokens", x_BND)
        for index, block in enumerate(self.blocks):
            assert isinstance(block, RankUpBlock)
            s_BND = tap(taps, f"layers.{index}.mix", block.mix(x_BND))
            x_BND = tap(taps, f"layers.{index}.ffn", block.feed(s_BND))
        pooled_BD = tap(taps, "pooled", x_BND[:, : x_BND.shape[1] - num_tasks].mean(1))
        logits = {}
        for at, (task, tower) in enumerate(zip(self.inputs.task_names, self.towers, strict=True)):
            own = (x_BND[:, at - num_tasks],) if num_tasks else ()
            logits[task] = tower(torch.cat([*own, pooled_BD], dim=1)).squeeze(-1)
        return Output(logits, {}, taps if taps is not None else {})

    def frozen_for(self, task: str) -> set[str]:
        own = f"towers.{self.inputs.task_names.index(task)}."
        return {name for name, _ in self.named_parameters() if name.startswith("towers.") and not name.startswith(own)}


def _vectors(inputs: Inputs, names: tuple[str, ...]) -> tuple[int, int, int] | None:
    """Where the crossed vectors lie among the vectors of request and candidate, and their width."""
    if not names:
        return None
    found = []
    for name, fields in zip(names, (inputs.request, inputs.candidate), strict=True):
        vectors: list[InputField] = [one for one in fields if one.kind == "vector"]
        known = [one.name for one in vectors]
        if name not in known:
            near = did_you_mean(name, known)
            raise ValueError(f"Expected crossed to name one of the vectors {known}, got {name!r}.{near}")
        found.append((known.index(name), vectors[known.index(name)].dim))
    (request_at, width), (candidate_at, other) = found
    if width != other:
        raise ValueError(f"Expected crossed vectors of equal width, got {names[0]!r} {width}, {names[1]!r} {other}.")
    return request_at, candidate_at, width


def _vector(block: FeatureBlock, at: int) -> Tensor:
    """Given vectors, zeros where one is missing: its product then is, too."""
    vectors_nV = block.vectors_nD[at]
    return torch.where(vectors_nV.isnan().any(-1, keepdim=True), 0, vectors_nV)
