"""How many directions a matrix uses: its singular values, and four numbers made of them.

Legend: N rows · D columns · K = min(N, D).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from fullrank.schema import did_you_mean

RankKind = Literal["entropy", "stable", "abundance", "rankme"]
RANKME_EPS = 1e-7  # what RankMe adds to every share: the paper's, for float32


def singular_values(x: Tensor) -> Tensor:
    """`[..., N, D] -> [..., K]`, descending, float64.

    Square roots of the eigenvalues of the smaller Gram matrix (X Xᵀ or Xᵀ X) in double precision: hundreds of tokens'
    matrices at once cost what their products cost. Values below 1.5e-8 √K of the largest are beyond it and count as 0,
    as they do in all four ranks.

    Raises: ValueError for less than two axes, an empty matrix, or numbers that are not finite; TypeError for anything
    but a dense tensor of real numbers.
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"Expected a tensor, got {type(x).__module__}.{type(x).__qualname__}: try torch.as_tensor(x).")
    if x.is_complex() or x.layout != torch.strided:
        raise TypeError(f"Expected a dense tensor of real numbers, got {x.dtype}, {x.layout}.")
    if x.dim() < 2 or not x.shape[-1] or not x.shape[-2]:
        raise ValueError(
            f"Expected a matrix [..., rows, columns] with at least one of each, got {tuple(x.shape)}."
            + (" One vector is x.unsqueeze(0)." if x.dim() == 1 else "")
        )
    x = x.detach().double()
    if not x.isfinite().all():
        raise ValueError(f"Expected finite numbers, got {int((~x.isfinite()).sum())} that are not, of {x.numel()}.")
    scale = x.abs().amax((-2, -1), keepdim=True)  # squares of tiny or huge numbers would not be doubles
    x = x / torch.where(scale > 0, scale, 1)
    gram = x @ x.mT if x.shape[-2] <= x.shape[-1] else x.mT @ x
    squares = torch.linalg.eigvalsh(gram).flip(-1)
    floor = squares[..., :1] * gram.shape[-1] * torch.finfo(torch.float64).eps
    return torch.where(squares > floor, squares, 0).clamp_min(0).sqrt() * scale.squeeze(-1)


def rank_of(values: Tensor, kind: RankKind = "entropy") -> Tensor:
    """`effective_rank` of a matrix with these singular values, `[..., K] -> [...]`."""
    if kind not in get_args(RankKind):
        near = did_you_mean(kind, get_args(RankKind))
        raise ValueError(f"Expected a rank of kind {get_args(RankKind)}, got {kind!r}.{near}")
    values = values.double()
    if not values.shape[-1:].numel() or not bool((values >= 0).all()):
        raise ValueError(f"Expected singular values, none below 0, got {values.tolist() if values.dim() else values}.")
    largest = values.amax(-1)
    values = values / torch.where(largest > 0, largest, 1).unsqueeze(-1)  # squares of huge numbers would not be doubles
    largest, total = values.amax(-1), values.sum(-1)
    none = total == 0
    if kind == "stable":
        found = values.square().sum(-1) / largest.square()
    elif kind == "abundance":
        found = total / largest
    else:
        share = values / total.unsqueeze(-1) + (RANKME_EPS if kind == "rankme" else 0.0)
        found = torch.special.entr(share).sum(-1).exp()
    return torch.where(none, 0.0, found)


def effective_rank(x: Tensor, kind: RankKind = "entropy") -> Tensor:
    """How many directions X uses, `[..., N, D] -> [...]`, of its singular values σ₁ ≥ σ₂ ≥ …:

    * `entropy`: `exp(-Σ p ln p)`, p = σ / Σσ. Roy & Vetterli, 2007. What RankUp and RankElastor's code report.
    * `stable`: `Σσ² / σ₁²`. RankElastor's paper, equation 1.
    * `abundance`: `Σσ / σ₁`, information abundance. Guo et al., ICML 2024, arXiv:2310.04400, for embedding tables.
    * `rankme`: as `entropy` of p + 1e-7. Garrido et al., 2023, arXiv:2210.02885, for [rows, columns] of embeddings.

    All but rankme lie between 1 and min(N, D) and do not change when X is multiplied by a number; stable ≤ abundance ≤
    rank. Kinds are not comparable with one another: white noise of 16 × 64 has an entropy rank of 15.4 and a stable
    rank of 7.8. A matrix of zeros has rank 0. Nothing is subtracted: centre first where the mean is no information.
    """
    return rank_of(singular_values(x), kind)


def information_abundance(x: Tensor) -> Tensor:
    """`Σσ / σ₁` of `[..., N, D]`: `effective_rank` of kind `abundance`, by its name for embedding tables."""
    return effective_rank(x, "abundance")
