"""The rows of an arena: a parameter whose look-ups note their gradients instead of adding sparse tensors.

Shape suffixes: n gradients · N values (rows looked up) · R rows of the arena (0 where it lives on disk) · D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from fullrank.features.deferred_decay import DeferredDecay
from fullrank.features.disk_rows import DiskRows
from fullrank.kernels.gather import checked_rows, gather

_GRAD: Any = torch.Tensor.grad  # the slot that torch keeps a gradient in


@dataclass(frozen=True)
class LookUpGrad:
    """What one look-up got in backward: row `rows_N[i]` the gradient `grads_nD[sources_N[i]]` (None: `grads_nD[i]`)."""

    rows_N: Tensor
    grads_nD: Tensor
    sources_N: Tensor | None = None

    def values_ND(self) -> Tensor:
        """The gradient of every row of `rows_N`."""
        return self.grads_nD if self.sources_N is None else self.grads_nD.index_select(0, self.sources_N)


class ArenaWeight(nn.Parameter):
    """`[R, D]` rows, read by `gather` and `bag_sum`.

    torch would make a sparse tensor of every look-up's gradient and add one to the next, which copies the sum each
    time. Here backward only notes what each look-up got, and `take` hands the notes to who merges them. To everyone
    else `grad` is that of a sparse embedding: None, or the (sparse, uncoalesced) sum of what backward left, made when
    it is read, forgotten by `grad = None` and so by the `zero_grad()` of any module above. Copies have no gradient.

    Not for `torch.autograd.grad` with respect to this parameter, hooks on its gradient, or second derivatives: they
    find none. Copy the rows into a parameter of your own for those.

    The rows of an arena that lives on `disk` are there, and none here; copies read the same ones.
    """

    _lookups: list[LookUpGrad]
    disk: DiskRows | None

    def __new__(cls, data: Tensor, requires_grad: bool = True) -> ArenaWeight:
        weight_RD = super().__new__(cls, data, requires_grad)
        weight_RD._lookups = []
        weight_RD.disk = None
        return weight_RD

    def __reduce_ex__(self, protocol: Any) -> Any:
        if self.disk is not None:
            raise TypeError("Tables on disk can't be pickled: their rows are in files. Save a checkpoint, load that.")
        return ArenaWeight, (self.data, self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> ArenaWeight:
        memo[id(self)] = copied = ArenaWeight(self.data.clone(), self.requires_grad)
        copied.disk = self.disk
        return copied

    def gather(self, ids_nF: Tensor, base_F: Tensor, num_rows_F: Tensor, decay: DeferredDecay | None) -> Tensor:
        """x_nFD: row `base_F[f] + ids_nF[n, f]` of every id, less the decay that it still lacks; an id outside its
        table is an `IdOutOfRange`. The gradient is that of the product: what a row lacks is not part of the model."""
        return _Gather.apply(self, ids_nF, base_F, num_rows_F, decay)

    def bag_sum(self, rows_N: Tensor, offsets: Tensor, weights_N: Tensor | None, decay: DeferredDecay | None) -> Tensor:
        """sum(w * row) over each bag, `[n, D]`; bag i holds `[offsets[i], offsets[i + 1])`, w is 1 without weights.
        Decay and gradient are as in `gather`; weights get none."""
        return _BagSum.apply(self, rows_N, offsets, weights_N, decay)

    def take(self) -> list[LookUpGrad]:
        """What backward left since the last `take`, in its order; `grad` is None afterwards."""
        before = _GRAD.__get__(self)
        lookups = [] if before is None else [LookUpGrad(before._indices()[0], before._values())]
        lookups += self._lookups
        self.grad = None
        return lookups

    @property
    def grad(self) -> Tensor | None:
        if self._lookups:
            lookups = self._lookups if self.disk is not None else self.take()
            rows_N = torch.cat([lookup.rows_N for lookup in lookups])
            values_ND = torch.cat([lookup.values_ND() for lookup in lookups])
            shape = self.shape if self.disk is None else (self.disk.arena.num_rows, self.shape[1])
            sum_RD = torch.sparse_coo_tensor(rows_N[None], values_ND, shape, check_invariants=False)
            if self.disk is not None:  # torch keeps no gradient of another shape: the notes stay
                return sum_RD
            self.grad = sum_RD
        return _GRAD.__get__(self)

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        self._lookups.clear()
        _GRAD.__set__(self, value)


class _Gather(Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight_RD: ArenaWeight,
        ids_nF: Tensor,
        base_F: Tensor,
        num_rows_F: Tensor,
        decay: DeferredDecay | None,
    ) -> Tensor:
        if weight_RD.disk is None:
            x_nFD, rows_nF = gather(weight_RD, ids_nF, base_F, num_rows_F)
        else:
            rows_nF = checked_rows(ids_nF, base_F, num_rows_F)
            x_nFD = weight_RD.disk.read(rows_nF.reshape(-1)).view(*rows_nF.shape, weight_RD.shape[1])
        ctx.lookups = weight_RD._lookups
        ctx.save_for_backward(rows_nF)
        return x_nFD if decay is None else x_nFD.mul_(decay.factor(rows_nF, x_nFD.dtype).unsqueeze(-1))

    @staticmethod
    def backward(ctx: Any, grad_nFD: Tensor) -> tuple[None, None, None, None, None]:
        (rows_nF,) = ctx.saved_tensors
        ctx.lookups.append(LookUpGrad(rows_nF.reshape(-1), grad_nFD.reshape(-1, grad_nFD.shape[-1])))
        return None, None, None, None, None


class _BagSum(Function):
    @staticmethod
    def forward(
        ctx: Any,
        weight_RD: ArenaWeight,
        rows_N: Tensor,
        offsets: Tensor,
        weights_N: Tensor | None,
        decay: DeferredDecay | None,
    ) -> Tensor:
        ctx.lookups = weight_RD._lookups
        ctx.save_for_backward(rows_N, offsets, weights_N)
        factor_N = None if decay is None else decay.factor(rows_N, weight_RD.dtype)
        share_N = weights_N if factor_N is None else factor_N if weights_N is None else weights_N * factor_N
        source_RD: Tensor = weight_RD
        if weight_RD.disk is not None:
            source_RD, rows_N = weight_RD.disk.read(rows_N), torch.arange(len(rows_N))
        return F.embedding_bag(
            rows_N, source_RD, offsets, mode="sum", per_sample_weights=share_N, include_last_offset=True
        )

    @staticmethod
    def backward(ctx: Any, grad_nD: Tensor) -> tuple[None, None, None, None, None]:
        rows_N, offsets, weights_N = ctx.saved_tensors
        owner_N = torch.repeat_interleave(offsets.diff(), output_size=len(rows_N))
        if weights_N is None:
            ctx.lookups.append(LookUpGrad(rows_N, grad_nD, owner_N))
        else:
            ctx.lookups.append(LookUpGrad(rows_N, grad_nD.index_select(0, owner_N).mul_(weights_N.unsqueeze(-1))))
        return None, None, None, None, None
