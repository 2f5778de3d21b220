"""The papers' figures beside ours: a table for the page of each system (`page.py` puts it there)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from claims import ALL, BFTS, WITHOUT, by_lot, event_ranks
from stored import Lines, in_words, paired

from fullrank.evaluation.paired import PairedDifference

COLUMNS = {"MovieLens-1M": ("movielens-1m", "movielens-1m/4"), "simulated": ("simulated",)}
NOTE = """Ours are differences of test AUC, paired by seed, with 90 % intervals, of recipes of about one size on the
same rows; nothing was tuned. Systems and streams are compared on every fourth user of MovieLens-1M."""
Named = tuple[str, str]  # recipe, figure
Cell = Callable[[Lines, str], str]  # what to say of a set


@dataclass(frozen=True)
class Row:
    """`paper`: what is printed, and on what."""

    says: str
    paper: str
    figure: str
    ours: Cell


def auc(says: str, paper: str, one: Named, other: Named) -> Row:
    """How much the AUC of `one` lies above that of `other`."""
    return Row(says, paper, one[1], lambda lines, data: _seeds(lines.difference(data, one, other)))


def permutations(says: str, paper: str, figure: str, baseline: str) -> Row:
    """How much the mean over permutations lies above the baseline, and how far permutations lie apart."""

    def ours(lines: Lines, data: str) -> str:
        found, _, spread = by_lot(lines, data, figure, baseline)
        return _seeds(found) + (f", sd of permutations {spread:.4f}" if found.n > 1 else "")

    return Row(says, paper, figure, ours)


def rank(says: str, paper: str, one: str, other: str, point: str) -> Row:
    """How many times as large the rank of event tokens is."""

    def ours(lines: Lines, data: str) -> str:
        found = paired(*(event_ranks(lines, data, name, point) for name in (one, other)))
        if found.n < 2:
            return "not run"
        return "× {:.3f} [{:.3f}, {:.3f}]".format(*map(math.exp, (found.mean, found.low, found.high)))

    return Row(says, paper, "streams", ours)


def _seeds(found: PairedDifference) -> str:
    return in_words(found) + (f", {found.n} seeds" if 1 < found.n < 5 else "")


_GLU, _GELU, _RELU = ("full, glu", "ffn"), ("full, gelu", "ffn"), ("full, relu", "ffn")
_OLD_GLU, _OLD_GELU, _OLD_RELU = ("permute, glu", "ffn"), ("permute, gelu", "ffn"), ("permute, relu", "ffn")
_TOKENFORMER = ("tokenformer", "core")
SYSTEMS: dict[str, tuple[Row, ...]] = {
    "rankmixer": (
        auc("no mixing (in RankElastor's blocks, GELU)", "−.50 %, Douyin", ("none, gelu", "mixing"), _OLD_GELU),
        auc("over DCNv2", "+.51 %, Douyin (+.64 beside +.13)", ("rankmixer", "core"), ("dcnv2", "core")),
        auc(
            "4 layers over 2",
            "others' runs: −.0011, Kuaishou (UniMixer); −.0007, KuaiRand (UniRank)",
            ("rankmixer, 4 layers", "depth"),
            ("rankmixer, 2 layers", "depth"),
        ),
    ),
    "rankelastor": (
        auc("full mixing and gate, over RankMixer's of both", "+.0011 Criteo, +.0005 Avazu", _GLU, _OLD_GELU),
        auc("gate over GELU, full mixing", "+.0013, +.0004", _GLU, _GELU),
        auc("gate over GELU, RankMixer's mixing", "+.0002, +.0002", _OLD_GLU, _OLD_GELU),
        auc("GELU over ReLU, full mixing", "+.0002, +.0005", _GELU, _RELU),
        auc("GELU over ReLU, RankMixer's mixing", "+.0009, +.0004", _OLD_GELU, _OLD_RELU),
        auc("full mixing over RankMixer's, gate", "+.0007, +.0003", _GLU, _OLD_GLU),
        auc("full mixing over RankMixer's, GELU", "−.0003, +.0002", _GELU, _OLD_GELU),
    ),
    "rankup": (
        permutations("fields by lot over in order", "+.06 %, Weixin (orders)", "parts", "in order"),
        permutations("the same in RankMixer", "UniRank's run: +.0016 KuaiRand, −.0006 MerRec", "tokens", "chunk"),
        auc(
            "two tables, over one twice as wide",
            "+.21 %, together with a global token; no control",
            ("two tables", "parts"),
            ("one table, twice as wide", "parts"),
        ),
        auc(
            "a global token, over any token more",
            "(the same)",
            ("global token (fm)", "parts"),
            ("one more token", "parts"),
        ),
        auc("all, over RankMixer", "+.41 %, over what they ran before", ("rankup", "core"), ("rankmixer", "core")),
    ),
    "tokenformer": (
        auc("four windows over four full layers", "−.0364, KuaiRand-27K", ("4 windows", "streams"), (ALL, "streams")),
        auc("two full layers and two windows over four full", "+.0009", (BFTS, "streams"), (ALL, "streams")),
        auc("the gate over none", "+.0049", (BFTS, "streams"), (f"{BFTS}, no gate", "streams")),
        auc("over a Transformer", "+.0114", _TOKENFORMER, ("transformer", "core")),
        auc("over OneTrans", "+.0064", _TOKENFORMER, ("onetrans", "peers")),
        auc("over HyFormer", "+.0104", _TOKENFORMER, ("hyformer", "peers")),
        rank("rank of events: history alone over 2 + 2 layers", "× 1.136 (71.2 over 62.7)", WITHOUT, BFTS, "events.2"),
        rank("rank of events: 2 + 2 layers over 4 full", "× 1.138 (62.7 over 55.1)", BFTS, ALL, "events.2"),
    ),
}


def rows(lines: Lines, system: str) -> list[dict[str, str]]:
    """Of the table of a system."""
    found = []
    for row in SYSTEMS[system]:
        sets = lines.sets(row.figure)
        cells = {
            column: next((row.ours(lines, data) for data in of_column if data in sets), "–")
            for column, of_column in COLUMNS.items()
        }
        found.append({"difference": row.says, "the paper": row.paper, **cells})
    return found
