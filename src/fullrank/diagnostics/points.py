"""Effective ranks at a named point of a model, in the four forms that answer different questions.

Legend: B rows · T tokens · D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from fullrank.diagnostics.spectrum import RankKind, effective_rank, rank_of, singular_values
from fullrank.schema import did_you_mean

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
        """`share_of`: comparable between points of other sizes."""
        return share_of(self.mean, self.most)


def share_of(rank: float, most: int) -> float:
    """Where a rank lies between the least there can be, 1 (0 for a matrix of zeros), and the most: 0 to 1."""
    return max(0.0, rank - 1) / (most - 1) if most > 1 else float(rank > 0)


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
    that matters (and no fewer than 2). What is left of numbers that all rows have in common is rounding (1.2e-7 of them
    in float32): it counts as 0.
    """
    for form in forms:
        if form not in get_args(Form):
            raise ValueError(f"Expected forms of {get_args(Form)}, got {form!r}.{did_you_mean(form, get_args(Form))}")
    found = []
    for point, x in taps.items():
        x = x.detach()
        x = x.unsqueeze(1) if x.dim() == 2 else x
        if x.dim() != 3 or not x.numel() or point.split(".")[0] == EVENTS:
            continue
        if not x.isfinite().all():
            wrong = int((~x.isfinite()).sum())
            raise ValueError(f"Expected finite numbers at point {point!r}, got {wrong} that are not, of {x.numel()}.")
        found += [_rank(point, form, kind, x) for form in forms if x.shape[1] > 1 or form == "flat"]
    return found


def judged(ranks: Sequence[PointRank]) -> list[PointRank]:
    """Of every point the form that says whether it uses its space: `token`, or `flat` where there is one token. (What
    several tokens side by side could span grows with rows and tokens, and is no measure of one layer.)"""
    several = {one.point for one in ranks if one.form != "flat"}
    return [one for one in ranks if one.form == ("token" if one.point in several else "flat")]


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
    rounding = 0.0 if form == "sample" else torch.finfo(x_BTD.dtype).eps
    x_BTD = x_BTD.double()
    if B < 2 and form != "sample":
        raise ValueError(f"Expected at least 2 rows to centre point {point!r} ({form}), got {B}.")
    centred_BTD = x_BTD if form == "sample" else x_BTD - x_BTD.mean(0)

    def matrices(x_BTD: Tensor) -> Tensor:
        if form == "flat":
            return x_BTD.reshape(1, B, T * D)
        return x_BTD.transpose(0, 1) if form == "token" else x_BTD

    most = {"flat": min(B - 1, T * D), "token": min(B - 1, D)}.get(form, min(T, D))
    values = singular_values(matrices(centred_BTD))
    least = rounding * matrices(x_BTD).norm(dim=(-2, -1)).unsqueeze(-1)
    ranks = rank_of(torch.where(values > least, values, 0), kind)
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
