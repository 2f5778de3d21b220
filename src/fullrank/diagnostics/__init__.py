"""Instruments that show whether representations use the space they are given.

spectrum          singular values and the effective ranks made of them
points            ranks at the named points of a model, in four forms
live              the same while a model learns
"""

from fullrank.diagnostics.live import RankProbe
from fullrank.diagnostics.points import PointRank, point_ranks
from fullrank.diagnostics.spectrum import RankKind, effective_rank, information_abundance, rank_of, singular_values

__all__ = [
    "PointRank",
    "RankKind",
    "RankProbe",
    "effective_rank",
    "information_abundance",
    "point_ranks",
    "rank_of",
    "singular_values",
]
