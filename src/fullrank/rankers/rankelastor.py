"""RankElastor: learned mixing that expands, gated networks that do not shrink.

Legend: B rows · T tokens · D token width · W flat width of all fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.layers.norm import RMSNorm
from fullrank.rankers.base import Output, Ranker, Taps, TaskTowers, check_choice, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront, FieldState, HistoryPooling
from fullrank.rankers.rankelastor_block import EPS, FFN, Form, Mixer, RankElastorBlock

SharedKind = Literal["matrix", "vector", "none"]
Tokens = Literal["linear", "matrix", "vector", "none"]
Head = Literal["flatten", "mean"]


class SharedTokens(nn.Module):
    """The repository's tokenizers, `[B, W] -> [B, T, D]`, after one RMSNorm of the flat vector:

    * `matrix`: T equal chunks, all through one MLP (W / T -> `hidden` -> D);
    * `vector`: the whole through one MLP (W -> `hidden` -> T D);
    * `none`: W = T D numbers, cut.

    The MLP is Linear, RMSNorm (with `norm`), ReLU, dropout, Linear.
    """

    def __init__(
        self, kind: SharedKind, flat_width: int, tokens: int, width: int, hidden: int, norm: bool, dropout: float
    ) -> None:
        super().__init__()
        if kind == "matrix" and flat_width % tokens:
            raise ValueError(f"Expected a number of tokens that divides the {flat_width} field numbers, got {tokens}.")
        if kind == "none" and flat_width != tokens * width:
            raise ValueError(f"Without a tokenizer the {flat_width} field numbers must be {tokens} tokens x {width}.")
        self.shape = (tokens, width)
        self.kind: SharedKind = kind
        self.norm = RMSNorm(flat_width, EPS)
        self.mlp: nn.Module | None = None
        if kind != "none":
            first = nn.Linear(flat_width // tokens if kind == "matrix" else flat_width, hidden)
            last = nn.Linear(hidden, width if kind == "matrix" else tokens * width)
            for linear in (first, last):
                nn.init.xavier_normal_(linear.weight)
                nn.init.zeros_(linear.bias)
            inside = [RMSNorm(hidden, EPS)] if norm else []
            self.mlp = nn.Sequential(first, *inside, nn.ReLU(), nn.Dropout(dropout), last)

    def forward(self, x_BW: Tensor) -> Tensor:
        x_BW = self.norm(x_BW)
        if self.kind == "matrix":
            x_BW = x_BW.unflatten(1, (self.shape[0], -1))
        made = x_BW if self.mlp is None else self.mlp(x_BW)
        return made.reshape(len(x_BW), *self.shape)


class RankElastor(Ranker):
    """Field vectors → T tokens → L blocks of (mixing, gated network per token) → one network per task over all tokens.

    Where RankMixer's permutation moves parts of tokens, a full matrix mixes every number with every other, and where
    its GELU networks fold directions away, gated ones keep them: the paper's account of why effective rank swings, ever
    less, over a deep RankMixer. Read beside it what the printed ablations say: gating is the main gain, and full mixing
    pays only together with it.

    `form` is what the paper prints or what its repository runs (`RankElastorBlock` has both). Fixed by the paper:
    mixer, gate, W_r, LayerNorm, r = 3, 2 blocks. By the repository: its norms, units, tokenizers (`tokens`), and the
    head (flatten, one hidden layer of 2 T D, ReLU). Our choices: RankMixer's tokenizer (`linear`) as default, so that
    both differ in blocks alone; towers per task; a history as pooled fields; the kronecker mixer and `mean` head.

    Not for many or wide tokens with `full`: T · D of at most 2,048. `permute` and `kronecker` need D a multiple of T.

    Taps: `tokens`, `layers.L.mix`, `layers.L.ffn` [B, T, D] · `pooled` [B, T D] (or [B, D], head `mean`).

    Reference: "Expand More, Shrink Less", 2026, arXiv:2605.23191.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`mixer`: full, kronecker, RankMixer's permutation, segments (the repository's fast mixing), or none. `ffn`:
        gated, or GELU or ReLU alone. `units`: widths of the repository's networks, () for one of the token width.
        `tokens`: `linear` is `tokenizer`; else its numbers of tokens and their width are read of it, by an MLP with
        `tokens_hidden` units (with RMSNorm if `tokens_norm`). `towers`: hidden widths of each task's MLP, None for
        twice the width of what they read. `dropout` acts on the hidden units of towers and of `tokens`."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        tokenizer: TokenizerConfig = field(default_factory=lambda: TokenizerConfig(num_tokens=8, token_width=64))
        form: Form = "paper"
        mixer: Mixer = "full"
        segments: int = 1
        ffn: FFN = "glu"
        expansion: float = 3.0
        units: tuple[int, ...] = ()
        num_layers: int = 2
        history: HistoryPooling = "mean"
        tokens: Tokens = "linear"
        tokens_hidden: int = 500
        tokens_norm: bool = True
        head: Head = "flatten"
        towers: tuple[int, ...] | None = None
        dropout: float = 0.0

        def __post_init__(self) -> None:
            check_choice("RankElastor form", self.form, Form)
            check_choice("RankElastor mixer", self.mixer, Mixer)
            check_choice("RankElastor ffn", self.ffn, FFN)
            check_choice("RankElastor history", self.history, HistoryPooling)
            check_choice("RankElastor tokens", self.tokens, Tokens)
            check_choice("RankElastor head", self.head, Head)
            if self.units and self.form == "paper":
                raise ValueError(f"Stacked units are of the repository's form, got {self.units} with the paper's.")
            if self.tokens != "linear" and self.tokenizer.num_tokens is None:
                raise ValueError(f"Tokens of kind {self.tokens!r} need tokenizer.num_tokens, got None.")

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> RankElastor:
            tables = self.embedding.build(inputs, num_rows, seed)
            with seeded(seed):
                return RankElastor(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        embedding_width, width = config.embedding.width, config.tokenizer.token_width
        self.front = FieldFront(inputs, tables, embedding_width, config.history, attention_width=width)
        if config.tokens == "linear":
            widths = (embedding_width,) * self.front.num_fields
            self.tokenizer = config.tokenizer.build(widths, self.front.field_names)
            tokens = self.tokenizer.num_tokens
        else:
            tokens = config.tokenizer.num_tokens
            assert tokens is not None  # held by the config
            flat_width = self.front.num_fields * embedding_width
            self.tokenizer = SharedTokens(
                config.tokens, flat_width, tokens, width, config.tokens_hidden, config.tokens_norm, config.dropout
            )
        self.blocks = nn.ModuleList(
            RankElastorBlock(
                tokens,
                width,
                form=config.form,
                mixer=config.mixer,
                ffn=config.ffn,
                expansion=config.expansion,
                units=config.units or (width,),
                segments=config.segments,
            )
            for _ in range(config.num_layers)
        )
        out_width = tokens * width if config.head == "flatten" else width
        towers = (2 * out_width,) if config.towers is None else config.towers
        self.towers = TaskTowers(inputs.task_names, out_width, towers, config.dropout)

    def encode_request(self, requests: Requests) -> FieldState:
        return self.front.encode_request(requests)

    def score(self, state: FieldState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        made = self.tokenizer(self.front(state, candidates).flatten(1))
        x_BTD = tap(taps, "tokens", made if isinstance(made, Tensor) else made.x_BTD)
        for index, block in enumerate(self.blocks):
            assert isinstance(block, RankElastorBlock)
            m_BTD = tap(taps, f"layers.{index}.mix", block.mix(x_BTD))
            x_BTD = tap(taps, f"layers.{index}.ffn", block.feed(m_BTD))
        pooled_BP = tap(taps, "pooled", x_BTD.flatten(1) if self.config.head == "flatten" else x_BTD.mean(1))
        return Output(self.towers(pooled_BP), {}, taps if taps is not None else {})

    def frozen_for(self, task: str) -> set[str]:
        return self.towers.names_of_others(task, "towers")
