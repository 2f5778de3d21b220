"""The recipes of the comparison: backbones of about one size on the same tables, their ablations, and depths.

Widths were chosen so that the dense parameters on MovieLens-1M lie within a tenth of one another where a figure says
that sizes are equal (`grid.py --sizes` prints them); tables, optimizers, epochs and batches are the same for all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fullrank.features.tables import TableOptimizer
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import DIN, DCNv2, FieldTransformer, RankElastor, RankMixer, RankUp, TokenFormer
from fullrank.rankers.field_front import EmbeddingConfig

EMBEDDING = EmbeddingConfig(width=16, init_std=0.01, optimizer=TableOptimizer(semantics="lazy", lr=1e-3))
CHUNK = TokenizerConfig(num_tokens=8, token_width=48)

DCN = DCNv2.Config(embedding=EMBEDDING, num_cross_layers=3, hidden=(256, 128))
DIN_ = DIN.Config(embedding=EMBEDDING, attention_hidden=(64, 32), hidden=(256, 128))
TRANSFORMER = FieldTransformer.Config(
    embedding=EMBEDDING, tokenizer=TokenizerConfig(mode="field", token_width=48), num_layers=2, heads=4, expansion=4
)
RANKMIXER = RankMixer.Config(embedding=EMBEDDING, tokenizer=CHUNK, num_layers=2, expansion=3)
RANKELASTOR = RankElastor.Config(
    embedding=EMBEDDING,
    tokenizer=TokenizerConfig(num_tokens=8, token_width=24),
    num_layers=2,
    head="mean",
    towers=(64,),
)
RANKUP = RankUp.Config(embedding=EMBEDDING, num_tokens=4, num_tables=2, width=48, num_layers=2, expansion=2)
TOKENFORMER = TokenFormer.Config(embedding=EMBEDDING, width=48, heads=4, expansion=4, windows=(32, 16))

CORE: dict[str, Any] = {
    "dcnv2": DCN,
    "din": DIN_,
    "transformer": TRANSFORMER,
    "rankmixer": RANKMIXER,
    "rankelastor": RANKELASTOR,
    "rankup": RANKUP,
    "tokenformer": TOKENFORMER,
}
OF_FIELDS = ("dcnv2", "transformer", "rankmixer", "rankelastor", "rankup")  # of these Frappe's rows have enough


def _ffn(mixer: str, ffn: str) -> Any:
    """A RankElastor with another mixer or network; without a gate r is 3/2 times as large: as many weights."""
    expansion = 3.0 if ffn == "glu" else 4.5
    return replace(RANKELASTOR, mixer=mixer, ffn=ffn, expansion=expansion)


FFN = {f"{mixer}, {ffn}": _ffn(mixer, ffn) for mixer in ("full", "permute") for ffn in ("glu", "gelu", "relu")}
MIXING = {f"none, {ffn}": _ffn("none", ffn) for ffn in ("glu", "gelu")} | {"kronecker, glu": _ffn("kronecker", "glu")}
GROUPS = (
    ("user",), ("gender", "age", "occupation"), ("item",), ("genres", "year"),
    ("rated.item", "rated.rating"), ("rated.age", "rated.item.genres"),
)  # fmt: skip
TOKENS = {
    "chunk": RANKMIXER,
    "field": replace(RANKMIXER, tokenizer=TokenizerConfig(mode="field", token_width=33)),
    "semantic": replace(RANKMIXER, tokenizer=TokenizerConfig(mode="semantic", token_width=48, groups=GROUPS)),
} | {
    f"permuted {seed}": replace(
        RANKMIXER, tokenizer=TokenizerConfig(mode="permuted", num_tokens=8, token_width=48, permutation_seed=seed)
    )
    for seed in range(5)
}
_BARE = replace(RANKUP, num_tables=1, global_token="none")
PARTS = {
    "bare": _BARE,
    "two tables": replace(_BARE, num_tables=2),
    "one table, twice as wide": replace(_BARE, embedding=replace(EMBEDDING, width=32)),
    "global token (fm)": replace(_BARE, global_token="fm"),
    "one more token": replace(_BARE, extra_tokens=1),
    "in order": replace(_BARE, permuted=False),
} | {f"permuted {seed}": replace(_BARE, permutation_seed=seed) for seed in range(1, 5)}
STREAMS = {
    "2 full, [32, 16]": TOKENFORMER,
    "4 full": replace(TOKENFORMER, full_layers=4, windows=()),
    "4 windows": replace(TOKENFORMER, full_layers=0, windows=(64, 48, 32, 16)),
    "2 full, [32, 16], no gate": replace(TOKENFORMER, gated=False),
}
DEPTHS = {
    f"{name}, {depth} layers": replace(CORE[name], num_layers=depth)
    for name in ("rankmixer", "rankelastor")
    for depth in (1, 2, 4, 8)
}
