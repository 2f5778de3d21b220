"""A ranker as a server holds it: frozen, its request side read once, its candidates scored in pieces that fit a cache.

Legend: R requests · B candidates · N values of all bags.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from fullrank.data.batch import Bag, Batch, Candidates, FeatureBlock, Requests, to_device
from fullrank.features.field_embedding import VectorProjection
from fullrank.features.numeric import NumericEmbedding
from fullrank.features.tokenizer import AutoTokenizer
from fullrank.kernels.pages import keep_freed_memory
from fullrank.layers.activation import Dice
from fullrank.layers.activation_unit import ActivationUnitPooling
from fullrank.layers.din_pooling import DINPooling
from fullrank.layers.mlp import MLP
from fullrank.layers.per_token_ffn import PerTokenFFN
from fullrank.layers.per_token_glu import PerTokenGLU
from fullrank.layers.per_token_linear import PerTokenLinear
from fullrank.layers.transformer_block import TransformerBlock
from fullrank.rankers import HSTU, HyFormer, OneTrans, RankElastor, Ranker, TokenFormer
from fullrank.rankers.base import TaskTowers
from fullrank.schema import did_you_mean
from fullrank.serving.finite import check_finite
from fullrank.serving.tables import ServingTables, Storage, load_for_serving, table_bytes, with_tables
from fullrank.training.run import Run

Precision = Literal["float32", "bfloat16"]
PIECE_ROWS = 1024  # rows scored at once: fewer are not worth the calls, and theirs still fit a last-level cache
SMALL = 1 << 17  # weights of a network that stays in float32: its products are quick, and narrow ones round worst

# Modules whose own parameters named `weight…` are the matrices of products, and nothing else.
_PRODUCTS = (nn.Linear, PerTokenLinear, PerTokenFFN, AutoTokenizer)
# Nothing after these makes up for what rounding inside them loses: numbers of the log, weights of attention, and the
# last network before a logit; and a product of products doubles what was rounded. Norms need no word: they read
# bfloat16 and compute in float32.
_IN_FLOAT32 = (NumericEmbedding, VectorProjection, Dice, ActivationUnitPooling, DINPooling, TaskTowers, PerTokenGLU)
# Rankers whose logits move by more than 1e-2 when their stack is rounded: full mixing, or layers of attention with
# nothing but a norm between.
_WHOLE = (RankElastor, TokenFormer, HSTU, OneTrans, HyFormer)


class Scorer:
    """Logits of candidates, `score(encode(requests), candidates)`, by a ranker that does not change any more.

    `float32`: what `ranker(batch)` gives in eval mode, within 1e-5 (products of other shapes may add in another order).
    `bfloat16`: dense weights of large products are rounded once, here, and those products' operands as they come;
    embeddings, norms, attention to a history, small networks (`SMALL`), task towers and logits stay in float32. What is
    rounded where is our choice. Logits move by about 1 % of their spread. It pays where the processor multiplies
    bfloat16 (AMX, AVX512-BF16) and the model has large products; elsewhere, and for models that are all towers and
    tables (LR, FM, SASRecPool), use `float32`. RankElastor and the rankers of streams (TokenFormer, HSTU, OneTrans,
    HyFormer) are computed in float32 in either precision: rounded, their logits move by more.

    What is computed once per request is the ranker's `encode_request`: request fields and events looked up, histories
    pooled or encoded where no candidate takes part, however many candidates follow. Of RankMixer that is all there can
    be but one thing: its first block mixes every token into every other, so from there on no number depends on the
    request alone; before it, those parts of the tokens' Linears that read request fields do. They are computed per
    row here: at 16 tokens of 128 from 28 fields of 16 wide, half of them the request's, they are 1.3 % of the products.

    A scorer can be called by many threads at once: a call changes nothing that another reads. Candidates and requests
    may lie on any device. Missing values (NaN numbers, id 1, empty bags) have finite logits as in training; a ranker
    with a weight that is not finite is refused (tables on disk are not read for that). With no candidates every task
    has an empty answer.

    `tables` says how embedding tables are kept (`ServingTables`): `bfloat16` in half, `int8` in about a third of their
    bytes; how far logits and AUC move on a run's own rows `fullrank evaluate --tables` measures. For tables of
    gigabytes; it goes with either precision.

    The dense weights are copied, the tables (in float32) are not: not for a ranker that is still trained. From the
    first scorer on, the process keeps up to 1 GB of memory that it has freed (`keep_freed_memory`): activations are
    then not given back to the system and asked for anew in every call, which took half the time.
    """

    def __init__(
        self,
        ranker: Ranker,
        *,
        precision: Precision = "float32",
        tables: Storage = "float32",
        piece_rows: int = PIECE_ROWS,
    ) -> None:
        if precision not in get_args(Precision):
            near = did_you_mean(precision, get_args(Precision))
            raise ValueError(f"Expected precision to be one of {get_args(Precision)}, got {precision!r}.{near}")
        if piece_rows < 1:
            raise ValueError(f"Expected piece_rows >= 1, the candidates scored at once, got {piece_rows}.")
        keep_freed_memory()
        frozen = with_tables(ranker, tables)
        _check_finite(frozen)
        for parameter in frozen.dense_parameters():
            parameter.requires_grad_(False)
        self._rounds = precision == "bfloat16" and not isinstance(ranker, _WHOLE)
        if self._rounds:
            _round_products(frozen)
        self.precision: Precision = precision
        self.tables: Storage = tables
        self.piece_rows = piece_rows
        self.tasks = ranker.inputs.task_names
        self.device = next((parameter.device for parameter in ranker.parameters()), torch.device("cpu"))
        self._ranker = frozen

    @staticmethod
    def of(
        run: Run, *, precision: Precision = "float32", tables: Storage = "float32", piece_rows: int = PIECE_ROWS
    ) -> Scorer:
        """The scorer of a run's weights (see `Run.load_weights`). Compact tables never lie in memory as float32 (see
        `load_for_serving`)."""
        return Scorer(load_for_serving(run, tables), precision=precision, tables=tables, piece_rows=piece_rows)

    @property
    def table_bytes(self) -> int:
        """What the tables' rows take in memory."""
        return table_bytes(self._ranker)

    @torch.inference_mode()
    def encode(self, requests: Requests) -> Any:
        """What `score` needs to know of R requests; good for any number of calls, on any thread."""
        with self._rounding():
            return self._ranker.encode_request(to_device(requests, self.device))

    @torch.inference_mode()
    def score(self, state: Any, candidates: Candidates) -> dict[str, Tensor]:
        """Task → logits, float32 `[B]`, in the order of the candidates."""
        B = candidates.num_rows
        if not B:
            return {task: torch.empty(0, device=self.device) for task in self.tasks}
        num_pieces = -(-B // self.piece_rows)
        cuts = [B * piece // num_pieces for piece in range(num_pieces + 1)]
        with self._rounding():
            pieces = [
                self._ranker.score(state, to_device(_rows(candidates, low, high), self.device)).logits
                for low, high in pairwise(cuts)
            ]
        return {task: torch.cat([logits[task] for logits in pieces]).float() for task in self.tasks}

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Task → logits, float32 `[B]`."""
        return self.score(self.encode(batch.requests), batch.candidates)

    def _rounding(self) -> torch.autocast:
        """Inside, the operands of products are made bfloat16, if that is the precision. It holds for this thread."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._rounds, cache_enabled=False)


def _rows(candidates: Candidates, low: int, high: int) -> Candidates:
    """The rows `low … high - 1`: views, but for the offsets of bags."""
    block = candidates.features
    if (low, high) == (0, block.num_owners):
        return candidates
    bags = []
    for bag in block.bags:
        first, last = int(bag.offsets[low]), int(bag.offsets[high])
        weights_N = None if bag.weights_N is None else bag.weights_N[first:last]
        bags.append(Bag(bag.ids_N[first:last], bag.offsets[low : high + 1] - first, weights_N))
    vectors = tuple(vectors_BD[low:high] for vectors_BD in block.vectors_nD)
    part = FeatureBlock(block.ids_nF[low:high], block.numbers_nF[low:high], tuple(bags), vectors)
    return Candidates(part, candidates.request_of_row_B[low:high])


def _round_products(ranker: Ranker) -> None:
    """Make the matrices that `ranker` multiplies by bfloat16, in place, and what must not be rounded immune."""
    whole: list[Any] = [module for module in ranker.modules() if isinstance(module, _IN_FLOAT32) or _is_small(module)]
    kept = {id(parameter) for module in whole for parameter in module.parameters()}
    for module in ranker.modules():
        if isinstance(module, _PRODUCTS):
            for name, parameter in module.named_parameters(recurse=False):
                if name.startswith("weight") and id(parameter) not in kept:
                    parameter.data = parameter.data.to(torch.bfloat16)
    for module in whole:
        module.forward = _in_float32(module.forward)


def _is_small(module: nn.Module) -> bool:
    return isinstance(module, (MLP, TransformerBlock)) and sum(p.numel() for p in module.parameters()) < SMALL


def _in_float32(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` of float32, whatever is being rounded around it."""

    @wraps(forward)
    def unrounded(*inputs: Any, **options: Any) -> Any:
        single = (x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)
        with torch.autocast(inputs[0].device.type, enabled=False):
            return forward(*single, **options)

    return unrounded


def _check_finite(ranker: Ranker) -> None:
    """An error that names the first table and row, or dense weight, with a number that is not finite."""
    if not isinstance(ranker.tables, ServingTables):  # those were looked at when they were packed
        for name, table_RD in ranker.tables.logical_tables().items():
            check_finite(f"table {name!r}", table_RD, first_row=0)
    dense = {id(parameter) for parameter in ranker.dense_parameters()}
    for name, parameter in ranker.named_parameters():
        if id(parameter) in dense:
            check_finite(f"dense weight {name!r}", parameter.detach())
