"""Target attention for a CPU: passes over the pairs (`attention_bodies.py`), and what is summed between them.

Forward: [moments of h_1] → h_2, [its moments] → weights and their sums. Backward: [sums of the second gate] → all
gradients → [correction of the first layer's]. Those in brackets are for gates whose mean and variance are those of the
pairs. Kept for the backward: h_2 and the weights; h_1 costs less to make again than to write and read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fullrank.kernels.cpu import attention_bodies as bodies
from fullrank.kernels.parts import even_cuts, in_parts
from fullrank.kernels.target_attention import Gate

CHUNK = 4096  # pairs


@dataclass(frozen=True)
class Plan:
    """Rows in the order of their requests (see `attention_bodies`), cut into chunks of about equally many pairs."""

    rows: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    cuts: np.ndarray
    pairs_C: np.ndarray

    @property
    def num_pairs(self) -> int:
        return int(self.pairs_C.sum())


def plan_of(offsets: Tensor, request_of_row_B: Tensor, whole_requests: bool) -> Plan:
    """`whole_requests`: no cut inside a request, since its rows add to the gradients of the same events."""
    request, starts = request_of_row_B.numpy(), offsets.numpy()
    order = np.arange(len(request))
    if (request[1:] < request[:-1]).any():
        order = np.argsort(request, kind="stable")
        request = request[order]
    begin, end = starts[request], starts[request + 1]
    pair = np.zeros(len(request) + 1, dtype=np.int64)
    np.cumsum(end - begin, out=pair[1:])
    places = np.flatnonzero(request[1:] != request[:-1]) + 1 if whole_requests else np.arange(1, len(request))
    chunk = pair[places] // CHUNK
    cuts = np.concatenate([[0], places[np.diff(chunk, prepend=0) > 0], [len(request)]])
    return Plan((order, begin, end, pair), cuts, np.diff(pair[cuts]))


class TargetAttention(torch.autograd.Function):
    """(pooled `[B, W]`), of a plan, two gates and float32 tensors as in `Unit`; query and product are W wide."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, gates: tuple[Gate, Gate], *tensors: Tensor) -> Tensor:
        query, events, bias, base, product, _, _, bias2, _, weight3, bias3 = map(_flat, tensors)
        (num_rows, W), (H, A) = tensors[0].shape, tensors[6].shape
        P, C, smooth = plan.num_pairs, len(plan.pairs_C), gates[0].mean_A is not None
        inputs, first, third = (query, events), (base, product, bias), (weight3, bias3)
        constants1 = _begun(gates[0])
        if gates[0].of_pairs:
            sums = np.zeros((C, 3, A), np.float32)
            _run(plan, bodies.first_moments(W, A), inputs, first, sums.reshape(-1))
            _of_pairs(gates[0], constants1, plan, sums)
        h_PH, weight_P = torch.empty(P, H), torch.empty(P)
        sums = np.zeros((C, 3, H), np.float32)
        second = (_flat(tensors[6].T), bias2)
        run = bodies.second_layer(W, A, H, smooth)
        _run(plan, run, inputs, first, constants1.reshape(-1), second, _flat(h_PH), sums.reshape(-1))
        constants2 = _begun(gates[1])
        if gates[1].of_pairs:
            _of_pairs(gates[1], constants2, plan, sums)
        out_BW = torch.zeros(num_rows, W)
        saved = (events, _flat(h_PH), constants2.reshape(-1), third, weight_P.numpy(), _flat(out_BW))
        _run(plan, bodies.pool(W, H, smooth), *saved)
        ctx.save_for_backward(*tensors, h_PH, weight_P)
        ctx.plan, ctx.gates, ctx.constants = plan, gates, (constants1, constants2)
        return out_BW

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BW: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, h_PH, weight_P = ctx.saved_tensors
        plan, gates, (constants1, constants2) = ctx.plan, ctx.gates, ctx.constants
        query, events, bias, base, product, _, weight2, _, _, weight3, bias3 = map(_flat, tensors)
        W, (H, A) = tensors[0].shape[1], tensors[6].shape
        P, C, smooth, of_pairs = plan.num_pairs, len(plan.pairs_C), gates[0].mean_A is not None, gates[0].of_pairs
        grad, gate1 = _flat(grad_BW.contiguous()), constants1.reshape(-1)
        if of_pairs:
            sums2 = np.zeros((C, 4, H), np.float32)
            saved = (events, grad, _flat(h_PH), constants2.reshape(-1), (weight3, bias3), sums2.reshape(-1))
            _run(plan, bodies.second_sums(W, H), *saved)
            constants2 = _with_statistics(constants2, _total(sums2), P)
        found = [torch.empty_like(tensors[0]), torch.zeros_like(tensors[1]), torch.empty_like(tensors[2])]
        partial = [torch.zeros(C, *shape) for shape in ((W, A), (W, A), (4, A), (4, H), (A, H), (H,), (1,))]
        grads = tuple(map(_flat, (*found, *partial[:2])))
        turned = (_flat(tensors[3].T), _flat(tensors[4].T))
        saved = (_flat(h_PH), weight_P.numpy(), grad)
        _run(
            plan,
            bodies.backward(W, A, H, smooth),
            (query, events),
            (base, product, bias),
            turned,
            gate1,
            weight2,
            constants2.reshape(-1),
            weight3,
            saved,
            grads,
            tuple(map(_flat, partial[2:])),
        )
        if of_pairs:
            corrected = _with_statistics(constants1, _total(partial[2].numpy()), P).reshape(-1)
            run = bodies.first_correction(W, A)
            _run(plan, run, (query, events), (base, product, bias), turned, corrected, grads)
        base_WA, product_WA, sums1, sums2, weight2_AH, weight3_H, bias3_1 = (
            torch.from_numpy(_total(part.numpy()).astype(np.float32)) for part in partial
        )
        return (
            None,
            None,
            *found,
            base_WA,
            product_WA,
            sums1[0],
            weight2_AH.T,
            sums2[3],
            sums2[0],
            weight3_H.unsqueeze(0),
            bias3_1,
        )


def _run(plan: Plan, body: Any, *arguments: Any) -> None:
    in_parts(body, even_cuts(len(plan.pairs_C), 1), plan.cuts, plan.rows, *arguments)


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy().reshape(-1)


def _total(parts: np.ndarray) -> np.ndarray:
    return parts.sum(0, dtype=np.float64)


def _begun(gate: Gate) -> np.ndarray:
    """`[5, A]`: mean, 1 / deviation, alpha, and two of the backward, still 0."""
    alpha_A = gate.alpha_A.detach().numpy()
    constants = np.zeros((5, len(alpha_A)), np.float32)
    constants[2] = alpha_A
    if gate.mean_A is not None and gate.var_A is not None:
        constants[0] = gate.mean_A.numpy()
        constants[1] = 1 / np.sqrt(gate.var_A.double().numpy() + gate.eps)
    return constants


def _of_pairs(gate: Gate, constants: np.ndarray, plan: Plan, sums_C3A: np.ndarray) -> None:
    """Mean and deviation out of the chunks' moments, into `constants` and the running ones."""
    assert gate.mean_A is not None and gate.var_A is not None
    first, off, square = np.moveaxis(sums_C3A[plan.pairs_C > 0].astype(np.float64), 1, 0)
    pairs_C1, P = plan.pairs_C[plan.pairs_C > 0, None], plan.num_pairs
    mean_CA = first + off / pairs_C1
    mean_A = (pairs_C1 * mean_CA).sum(0) / P
    squares_A = (square - off * off / pairs_C1 + pairs_C1 * (mean_CA - mean_A) ** 2).sum(0)
    constants[0] = mean_A
    constants[1] = 1 / np.sqrt(squares_A / P + gate.eps)
    gate.mean_A.lerp_(torch.from_numpy(mean_A).to(gate.mean_A), gate.momentum)
    gate.var_A.lerp_(torch.from_numpy(squares_A / (P - 1)).to(gate.var_A), gate.momentum)


def _with_statistics(constants: np.ndarray, sums_4A: np.ndarray, P: int) -> np.ndarray:
    """The constants of a gate, with p and r: h moves mean and deviation, and they every s = (h - mean) / deviation.

    `d_h += - (S + s T) / (P deviation)` with S the sum of the gradients of s and T that of those times s; `p + r h`.
    """
    mean_A, inverse_A = constants[0].astype(np.float64), constants[1].astype(np.float64)
    full = constants.copy()
    full[4] = -inverse_A * inverse_A * sums_4A[2] / P
    full[3] = -inverse_A * sums_4A[1] / P + inverse_A * inverse_A * mean_A * sums_4A[2] / P
    return full
