"""The tokens of RankUp: sparse fields by lot, and one each for what is known of a row as a whole.

Legend: B rows · F fields · E embedding width · T tokens of sparse fields · D token width · V width of given vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from fullrank.data.batch import FeatureBlock
from fullrank.data.inputs import Field, Inputs
from fullrank.features.tokenizer import permuted_groups
from fullrank.features.tokenizer_modes import GroupTokenizer
from fullrank.layers.cross import CrossStack
from fullrank.layers.factorization import pair_products
from fullrank.layers.linear import xavier_linear
from fullrank.layers.mlp import MLP

GlobalKind = Literal["none", "mlp", "fm", "dcnv2"]


@dataclass(frozen=True)
class FieldParts:
    """The positions, among a front's fields, of what makes tokens of its own: sparse fields, dense ones (numbers and
    given vectors), and the pooled fields of each history. Dense and pooled fields that get no token are sparse ones."""

    sparse: tuple[int, ...]
    dense: tuple[int, ...]
    histories: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(inputs: Inputs, field_names: tuple[str, ...], dense_token: bool, sequence_tokens: bool) -> FieldParts:
        fields = {field.name: field for field in (*inputs.request, *inputs.candidate)}
        dense: list[int] = []
        histories: dict[str, list[int]] = {history.name: [] for history in inputs.histories}
        for at, name in enumerate(field_names):
            if name not in fields:  # HISTORY.FIELD
                owner = next(history for history in histories if name.startswith(f"{history}."))
                histories[owner].append(at)
            elif fields[name].kind in ("numeric", "vector"):
                dense.append(at)
        of_histories = tuple(tuple(places) for places in histories.values()) if sequence_tokens else ()
        apart = {*(dense if dense_token else ()), *(at for places in of_histories for at in places)}
        sparse = tuple(at for at in range(len(field_names)) if at not in apart)
        return FieldParts(sparse, tuple(dense) if dense_token else (), of_histories)


def sparse_inputs(inputs: Inputs, dense_token: bool, sequence_tokens: bool) -> Inputs:
    """What a further set of tables reads: the fields of `FieldParts.sparse`, in the same order."""

    def sparse(fields: tuple[Field, ...]) -> tuple[Field, ...]:
        return tuple(one for one in fields if not dense_token or one.kind in ("categorical", "multi"))

    histories = () if sequence_tokens else inputs.histories
    return replace(inputs, request=sparse(inputs.request), candidate=sparse(inputs.candidate), histories=histories)


def sparse_block(block: FeatureBlock, dense_token: bool) -> FeatureBlock:
    """The block of such fields."""
    return replace(block, numbers_nF=block.numbers_nF[:, :0], vectors_nD=()) if dense_token else block


def split_groups(num_fields: int, num_groups: int, permuted: bool, seed: int) -> list[list[int]]:
    """The fields in groups of sizes that differ by one at most: by lot (`permuted_groups`), or in their order."""
    drawn = permuted_groups(num_fields, num_groups, seed)  # refuses more groups than fields
    if permuted:
        return drawn
    cuts = [0, *accumulate(len(group) for group in drawn)]
    return [list(range(low, high)) for low, high in pairwise(cuts)]


class GlobalToken(nn.Module):
    """One token of all fields, `[B, F, E] -> [B, D]`:

    * `mlp`: an MLP of all field vectors side by side, one hidden layer of D;
    * `fm`: `W ((Σ e)² - Σ e²) / 2 + b`;
    * `dcnv2`: `W [x_0 ; x_1] + b`, x_1 one cross layer of all field vectors side by side.

    The paper names these (and FFM, FwFM); how each reads the fields is our choice.
    """

    def __init__(self, kind: GlobalKind, num_fields: int, embedding_width: int, width: int) -> None:
        super().__init__()
        self.kind: GlobalKind = kind
        flat_width = num_fields * embedding_width
        self.mlp = MLP(flat_width, (width,), width) if kind == "mlp" else None
        self.cross = CrossStack(flat_width, 1) if kind == "dcnv2" else None
        read = {"mlp": 0, "fm": embedding_width, "dcnv2": 2 * flat_width}[kind]
        self.project = xavier_linear(read, width) if read else None

    def forward(self, x_BFE: Tensor) -> Tensor:
        if self.mlp is not None:
            return self.mlp(x_BFE.flatten(1))
        assert self.project is not None
        if self.cross is not None:
            x0_BW = x_BFE.flatten(1)
            return self.project(torch.cat([x0_BW, self.cross(x0_BW)[0]], dim=1))
        return self.project(pair_products(x_BFE.sum(1), x_BFE.square().sum(1)))


class RankUpTokens(nn.Module):
    """`forward(x_BFE of each table set, crossed_BV) -> [B, N, D]`, all fields of the first set, the sparse ones of the
    others: [global ; sparse of each table set ; dense ;
    histories ; crossed ; extra], each of the parts that are there.

    `extra` tokens read the mean of all field vectors through Linears of their own: what controls of equal size have in
    place of a part (our choice).
    """

    def __init__(
        self,
        parts: FieldParts,
        num_fields: int,
        embedding_width: int,
        width: int,
        *,
        groups_of_sets: list[list[list[int]]],
        global_token: GlobalKind,
        crossed_width: int,
        extra: int,
    ) -> None:
        super().__init__()
        self.parts = parts
        self.sparse = nn.ModuleList(
            GroupTokenizer((embedding_width,) * len(parts.sparse), groups, width, norm=False)
            for groups in groups_of_sets
        )
        self.global_token: GlobalToken | None = None
        if global_token != "none":
            self.global_token = GlobalToken(global_token, num_fields, embedding_width, width)
        apart = [places for places in (parts.dense, *parts.histories) if places]
        self.apart = [list(places) for places in apart]
        self.of_apart = nn.ModuleList(xavier_linear(len(places) * embedding_width, width) for places in apart)
        self.of_crossed = xavier_linear(crossed_width, width) if crossed_width else None
        self.of_extra = nn.ModuleList(xavier_linear(embedding_width, width) for _ in range(extra))

    @property
    def num_tokens(self) -> int:
        sparse = sum(len(module.groups) for module in self.sparse if isinstance(module, GroupTokenizer))
        others = (self.global_token is not None) + (self.of_crossed is not None)
        return sparse + others + len(self.of_apart) + len(self.of_extra)

    def forward(self, sets_BFE: list[Tensor], crossed_BV: Tensor | None) -> Tensor:
        first_BFE = sets_BFE[0]
        tokens = [] if self.global_token is None else [self.global_token(first_BFE)]
        sparse_BFE = [first_BFE[:, list(self.parts.sparse)], *sets_BFE[1:]]
        for tokenizer, x_BFE in zip(self.sparse, sparse_BFE, strict=True):
            tokens += tokenizer(x_BFE.flatten(1)).x_BTD.unbind(1)
        for linear, places in zip(self.of_apart, self.apart, strict=True):
            tokens.append(linear(first_BFE[:, places].flatten(1)))
        if self.of_crossed is not None:
            assert crossed_BV is not None
            tokens.append(self.of_crossed(crossed_BV))
        tokens += [linear(first_BFE.mean(1)) for linear in self.of_extra]
        return torch.stack(tokens, dim=1)
