"""The recipes of the comparison: backbones of about one size on the same tables, their ablations, and depths.

Sizes were chosen so that dense parameters lie within a tenth of 65,000 on each set where a figure compares systems
(`grid.py --sizes` prints them); rates, epochs and batches are the same for all, and nothing was tuned. Fields are of
width 16, on the simulated log, which has twice as many of them, of width 8: 160 numbers a row everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fullrank.features.tables import TableOptimizer
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import (
    DIN,
    HSTU,
    DCNv2,
    FieldTransformer,
    HyFormer,
    OneTrans,
    RankElastor,
    RankMixer,
    RankUp,
    TokenFormer,
    Wukong,
)
from fullrank.rankers.field_front import EmbeddingConfig

LAZY = TableOptimizer(semantics="lazy", lr=1e-3)
OF_FIELDS = ("dcnv2", "transformer", "rankmixer", "rankelastor", "rankup")  # of these Frappe's rows have enough
Recipes = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """All recipes for one set. `width`: of a field. `rankup`: width and expansion of RankUp, whose width goes by the
    number of its tokens. `windows`: of TokenFormer's upper layers; `all_windows`: where every layer has one."""

    width: int = 16
    rankup: tuple[int, int] = (18, 3)
    windows: tuple[int, ...] = (32, 16)
    all_windows: tuple[int, ...] = (64, 48, 32, 16)

    @property
    def tables(self) -> EmbeddingConfig:
        return EmbeddingConfig(width=self.width, init_std=0.01, optimizer=LAZY)

    def core(self) -> Recipes:
        tables = self.tables
        return {
            "dcnv2": DCNv2.Config(embedding=tables, num_cross_layers=2, hidden=(64, 32)),
            "din": DIN.Config(embedding=tables, attention_hidden=(64, 32), hidden=(200, 96)),
            "transformer": FieldTransformer.Config(
                embedding=tables,
                tokenizer=TokenizerConfig(mode="field", token_width=44),
                num_layers=2,
                heads=4,
                expansion=5,
            ),
            "rankmixer": self.rankmixer(),
            "rankelastor": self.rankelastor(),
            "rankup": self.rankup_with(*self.rankup),
            "tokenformer": self.tokenformer(32, 3),
        }

    def rankmixer(self) -> RankMixer.Config:
        chunk = TokenizerConfig(num_tokens=5, token_width=30)
        return RankMixer.Config(embedding=self.tables, tokenizer=chunk, num_layers=2, expansion=3)

    def rankelastor(self) -> RankElastor.Config:
        chunk = TokenizerConfig(num_tokens=5, token_width=20)
        return RankElastor.Config(embedding=self.tables, tokenizer=chunk, num_layers=2, head="mean", towers=(64,))

    def rankup_with(self, width: int, expansion: int) -> RankUp.Config:
        return RankUp.Config(
            embedding=self.tables, num_tokens=4, num_tables=2, width=width, num_layers=2, expansion=expansion
        )

    def tokenformer(self, width: int, expansion: int) -> TokenFormer.Config:
        return TokenFormer.Config(
            embedding=self.tables, width=width, heads=2, expansion=expansion, full_layers=2, windows=self.windows
        )

    def peers(self) -> Recipes:
        tables = self.tables
        return {
            # 80 units above fields of half the width: about as many weights
            "wukong": Wukong.Config(
                embedding=tables, num_layers=3, machine=8, linear=8, rank=8, hidden=(640 // self.width,)
            ),
            "hstu": HSTU.Config(embedding=tables, width=48, heads=2, num_layers=4),
            "onetrans": OneTrans.Config(embedding=tables, num_tokens=4, width=24, heads=2, expansion=2, tails=(32,)),
            "hyformer": HyFormer.Config(embedding=tables, num_tokens=4, queries=2, width=24, heads=2, num_layers=2),
        }

    def ffn(self) -> Recipes:
        """RankElastor's blocks with another mixer or network; without a gate r is 3/2 times as large: as many
        weights."""
        return {f"{mixer}, {ffn}": self._ffn(mixer, ffn) for mixer in ("full", "permute") for ffn in _EXPANSION}

    def mixing(self) -> Recipes:
        return {f"none, {ffn}": self._ffn("none", ffn) for ffn in ("glu", "gelu")} | {
            "kronecker, glu": self._ffn("kronecker", "glu")
        }

    def _ffn(self, mixer: Any, ffn: Any) -> RankElastor.Config:
        return replace(self.rankelastor(), mixer=mixer, ffn=ffn, expansion=_EXPANSION[ffn])

    def tokens(self) -> Recipes:
        """Five tokens of two fields each, but for `field`. MovieLens-1M alone."""
        mixer = self.rankmixer()
        found: Recipes = {
            "chunk": mixer,
            "semantic": replace(mixer, tokenizer=TokenizerConfig(mode="semantic", token_width=30, groups=_GROUPS)),
            "field": replace(mixer, tokenizer=TokenizerConfig(mode="field", token_width=20), towers=(128,)),
        }
        for seed in range(5):
            by_lot = TokenizerConfig(mode="permuted", num_tokens=5, token_width=30, permutation_seed=seed)
            found[f"permuted {seed}"] = replace(mixer, tokenizer=by_lot)
        return found

    def parts(self) -> Recipes:
        """RankUp's parts, each beside a control. MovieLens-1M alone: 8 tokens, 9 with one more."""
        bare = replace(self.rankup_with(24, 2), num_tables=1, global_token="none")
        longer = replace(bare, width=18, expansion=3)
        found: Recipes = {
            "bare": bare,
            "in order": replace(bare, permuted=False),
            "two tables": replace(bare, num_tables=2),
            "one table, twice as wide": replace(bare, embedding=replace(self.tables, width=2 * self.width)),
            "global token (fm)": replace(longer, global_token="fm"),
            "one more token": replace(longer, extra_tokens=1),
        }
        return found | {f"permuted {seed}": replace(bare, permutation_seed=seed) for seed in range(1, 5)}

    def streams(self) -> Recipes:
        """TokenFormers of four small layers, so that histories of 100 events stay affordable."""
        base = self.tokenformer(24, 2)
        every = replace(base, full_layers=4, windows=())
        return {
            "2 full, 2 windows": base,
            "4 full": every,
            "4 windows": replace(base, full_layers=0, windows=self.all_windows),
            "2 full, 2 windows, no gate": replace(base, gated=False),
            WITHOUT_FIELDS: every,
        }

    def depths(self) -> Recipes:
        systems = {"rankmixer": self.rankmixer(), "rankelastor": self.rankelastor()}
        return {
            f"{name}, {depth} layers": replace(config, num_layers=depth)
            for name, config in systems.items()
            for depth in (1, 2, 4, 8)
        }


WITHOUT_FIELDS = "4 full, no fields"  # of the request: events and candidates alone
_EXPANSION = {"glu": 3.0, "gelu": 4.5, "relu": 4.5}
_GROUPS = (
    ("user",), ("age", "gender", "occupation"), ("rated.item", "rated.rating", "rated.item.genres"), ("item",),
    ("genres", "year"),
)  # fmt: skip

SUITES = {
    "movielens-1m": Suite(),
    "movielens-1m/4": Suite(),
    "simulated": Suite(width=8, rankup=(24, 2), windows=(12, 6), all_windows=(24, 18, 12, 6)),
    "small": Suite(width=8, rankup=(24, 2), windows=(12, 6), all_windows=(24, 18, 12, 6)),
    "frappe": Suite(rankup=(18, 5)),
}
