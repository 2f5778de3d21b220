"""Products of all pairs of vectors in linear time. Legend: B rows · F vectors · D width."""

from __future__ import annotations

from torch import Tensor


def pair_products(sum_BD: Tensor, squares_BD: Tensor) -> Tensor:
    """`Σ_{i<j} v_i * v_j = ((Σ v_i)² - Σ v_i²) / 2`, `[B, D]`, of `sum_BD = Σ v_i` and `squares_BD = Σ v_i²`.

    Its sum over D is `Σ_{i<j} <v_i, v_j>`. Linear in the number of vectors, and both sums can be made in parts.

    Reference: Rendle, "Factorization Machines", ICDM 2010, lemma 3.1.
    """
    return (sum_BD.square() - squares_BD) / 2
