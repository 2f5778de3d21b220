"""Effective ranks at a named point of a model, in the four forms that answer different questions.

Legend: B rows · T tokens · D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fullrank.diagnostics.spectrum import RankKind, effective_rank

Form = Literal["sample", "centred", "token", "flat"]
EVENTS = "events"  # what points of a stream's events are called (`events.1`: after layer 1): padded to the longest
FORMS: tuple[Form, ...] = ("sample", "centred", "token", "flat")


@dataclass(frozen=True, kw_only=True)
class PointRank:
    """The rank of one form at one point: its mean, least and most over `count` matrices, and what it could be."""

    point: str
    form: Form
    kind: RankKind
    mean: float
    low: float
    high: float
    count: int
    most: int

    @property
    def share(self) -> float:
        """Of the most that there could be; comparable between points of other sizes."""
        return self.mean / self.most


def point_ranks(
    taps: Mapping[str, Tensor], kind: RankKind = "entropy", forms: tuple[Form, ...] = FORMS
) -> list[PointRank]:
    """The ranks of what a model wrote into `taps` for one batch; points that are no vectors of rows have none, nor
    have those of a stream's events (`events…`), which are padded.

    * `sample`: a row's tokens, `[T, D]`, averaged over rows. What RankUp and RankElastor draw over depth. Offsets that
      are the same for every row count as directions: a constant with 1 % of noise has nearly full rank.
    * `centred`: the same of `x - mean over rows`: what differs between rows.
    * `token`: for each token its vectors of all rows, `[B, D]`, centred: whether one token varies in many directions.
    * `flat`: all tokens side by side, `[B, T D]`, centred: what the network behind can tell rows apart by.

    A point `[B, D]` has the last form alone. Centred forms of B rows have at most B - 1 directions: take more rows than
    that matters (and no fewer than 2).
    """
    found = []
    for point, x in taps.items():
        x = x.detach().double()
        if x.dim() == 2:
            x = x.unsqueeze(1)
        if x.dim() != 3 or not x.numel() or point.split(".")[0] == EVENTS:
            continue
        found += [_rank(point, form, kind, x) for form in forms if x.shape[1] > 1 or form == "flat"]
    return found


def event_ranks(taps: Mapping[str, Tensor]) -> dict[str, tuple[float, float]]:
    """For each point of a stream's events (`events…`) the entropy rank of a row's event tokens, `[events, D]`, and what
    it could be at most, both as means over the rows with at least two events; nothing if there are none."""
    if f"{EVENTS}.length" not in taps:
        return {}
    lengths = taps[f"{EVENTS}.length"].tolist()
    known = [(row, length) for row, length in enumerate(lengths) if length >= 2]
    found = {}
    for name, x_BLD in taps.items():
        if known and name.split(".")[0] == EVENTS and name != f"{EVENTS}.length":
            ranks = [float(effective_rank(x_BLD[row, :length])) for row, length in known]
            most = [min(length, x_BLD.shape[2]) for _, length in known]
            found[name] = sum(ranks) / len(known), sum(most) / len(known)
    return found


def _rank(point: str, form: Form, kind: RankKind, x_BTD: Tensor) -> PointRank:
    B, T, D = x_BTD.shape
    if B < 2 and form != "sample":
        raise ValueError(f"Expected at least 2 rows to centre point {point!r} ({form}), got {B}.")
    centred_BTD = x_BTD if form == "sample" else x_BTD - x_BTD.mean(0)
    if form in ("sample", "centred"):
        matrices, most = centred_BTD, min(T, D)
    elif form == "token":
        matrices, most = centred_BTD.transpose(0, 1), min(B - 1, D)
    else:
        matrices, most = centred_BTD.reshape(1, B, T * D), min(B - 1, T * D)
    ranks = effective_rank(matrices, kind)
    low, high = torch.aminmax(ranks)
    return PointRank(
        point=point,
        form=form,
        kind=kind,
        mean=float(ranks.mean()),
        low=float(low),
        high=float(high),
        count=len(ranks),
        most=most,
    )
