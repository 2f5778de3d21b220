"""Instruments that show whether representations use the space they are given.

spectrum          singular values and the effective ranks made of them
points            ranks at the named points of a model, in four forms
live              the same while a model learns
collapse          all that a run's tables and points show
plots, pictures   its pictures, and how each is read
page              all of them on one page
"""

from fullrank.diagnostics.collapse import CollapseReport, collapse_report, linear_cka
from fullrank.diagnostics.live import Probe
from fullrank.diagnostics.points import PointRank, event_ranks, point_ranks
from fullrank.diagnostics.spectrum import RankKind, effective_rank, information_abundance, rank_of, singular_values

__all__ = [
    "CollapseReport",
    "PointRank",
    "Probe",
    "RankKind",
    "collapse_report",
    "effective_rank",
    "event_ranks",
    "information_abundance",
    "linear_cka",
    "point_ranks",
    "rank_of",
    "singular_values",
]
