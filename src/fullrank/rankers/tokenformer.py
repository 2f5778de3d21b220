"""TokenFormer: fields, history and candidate in one stream of tokens.

Legend: R requests · B rows · N tokens of all streams · E events · D token width · K tasks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.data.batch import Candidates, Requests
from fullrank.data.inputs import Inputs
from fullrank.features.tables import EmbeddingTables
from fullrank.layers.gated_stream_block import GatedStreamBlock, StreamForm
from fullrank.layers.jagged import pad_segments
from fullrank.layers.mlp import MLP
from fullrank.layers.stream_attention import Streams, full_attention, window_attention
from fullrank.layers.stream_targets import target_attention
from fullrank.rankers.base import Output, Ranker, Taps, TaskTowers, check_choice, seeded, tap
from fullrank.rankers.field_front import EmbeddingConfig, FieldFront
from fullrank.rankers.stream_tokens import EventToken, Regime, StreamTokens


@dataclass(frozen=True)
class TokenFormerState:
    """Of each layer the keys and values that targets read and their streams; `position_R`: of the targets. `every`: the
    mean loss of all positions, in regime "every" while training. `histories`: for each layer input (and for the last
    output, where it is made) the events' tokens of the first history, and how many there are of each request."""

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    streams: tuple[Streams, ...]
    position_R: Tensor
    every: Tensor | None
    histories: tuple[Tensor, ...]
    counts_R: Tensor | None


class TokenFormer(Ranker):
    """[request fields ; <sep> ; events ; <sep>] and a token of the candidate behind it, through layers of gated causal
    attention: `full_layers` that see all before them, then one a width in `windows` that see so many tokens, themselves
    among them, and no field any more (Bottom-Full-Top-Sliding). The candidate's token is read by one network per task.

    As attention is causal nothing before the candidate knows it: the stream runs once per request, and a candidate
    reads its keys and values. In the windows fields are dropped altogether, and the last layer makes no stream.

    Regimes: `newest` learns from the rows alone. `every` also predicts, at every event, its outcomes from what came
    before (binary cross-entropy where they are known); events then are two tokens, the second of which knows them. A
    task's network predicts the outcome of its name, other outcomes have one of their own; the mean of these losses is
    `Output.aux["every"]`.

    Fixed by the paper: stream, positions, gate, BFTS, target read-out, depth 4 as 2 + [32, 16] in its ablations. Not
    printed, and our choices: all widths, the expansion, heads, several histories in one stream, the request's fields as
    the static tokens (those of a pair join the candidate's token), one token a candidate, that a candidate does not see
    another. `form` "unirank" is the public implementation's (see `GatedStreamBlock`).

    Not with windows alone: the fields are then read by nobody (what the paper's ablation loses 36 per mille by).

    Taps: `candidate`, `layers.L` [B, D] (the candidate's token) · `events`, `events.L` [B, longest, D] (those of the
    first history before and after layer L, zeros behind them) and `events.length` [B] · `pooled` [B, D].

    Reference: TokenFormer, 2026, arXiv:2604.13737.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """`windows`: one layer each. `gated`: NLIR. `towers`: hidden widths of each task's MLP, with `dropout`."""

        embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
        width: int = 64
        heads: int = 4
        expansion: int = 4
        full_layers: int = 2
        windows: tuple[int, ...] = (32, 16)
        gated: bool = True
        form: StreamForm = "paper"
        regime: Regime = "newest"
        towers: tuple[int, ...] = (64,)
        dropout: float = 0.0

        def __post_init__(self) -> None:
            check_choice("TokenFormer form", self.form, StreamForm)
            check_choice("TokenFormer regime", self.regime, Regime)
            if self.full_layers < 0 or any(window < 1 for window in self.windows):
                raise ValueError(f"Expected layers >= 0 and windows >= 1, got {self.full_layers} and {self.windows}.")
            if not self.full_layers and not self.windows:
                raise ValueError("Expected at least one layer, got full_layers=0 and no windows.")

        def build(self, inputs: Inputs, num_rows: dict[str, int], seed: int) -> TokenFormer:
            tables = self.embedding.build(inputs, num_rows, seed)
            with seeded(seed):
                return TokenFormer(self, inputs, tables)

    def __init__(self, config: Config, inputs: Inputs, tables: EmbeddingTables) -> None:
        super().__init__()
        self.config, self.inputs, self.tables = config, inputs, tables
        embedding_width, width = config.embedding.width, config.width
        self.front = FieldFront(inputs, tables, embedding_width, None)
        self.stream = StreamTokens(
            len(inputs.request), inputs.histories, embedding_width, width, config.regime, config.form
        )
        self.candidate = EventToken(len(inputs.candidate) * embedding_width, width, config.form)
        self.windows: tuple[int | None, ...] = (None,) * config.full_layers + config.windows
        self.blocks = nn.ModuleList(
            GatedStreamBlock(width, config.heads, config.expansion, form=config.form, gated=config.gated)
            for _ in self.windows
        )
        self.towers = TaskTowers(inputs.task_names, width, config.towers, config.dropout)
        self.outcomes = [
            (h, column, one.name)
            for h, history in enumerate(inputs.histories)
            for column, one in enumerate(f for f in history.fields if f.kind == "numeric")
            if one.of == "outcome" and config.regime == "every"
        ]
        if config.regime == "every" and not self.outcomes:
            raise ValueError("Regime 'every' predicts outcomes of events: expected a history that has some, got none.")
        others = dict.fromkeys(name for *_, name in self.outcomes if name not in inputs.task_names)
        self.of_outcome = nn.ModuleDict({_key(name): MLP(width, config.towers, 1, config.dropout) for name in others})

    @property
    def _first(self) -> GatedStreamBlock:
        block = self.blocks[0]
        assert isinstance(block, GatedStreamBlock)
        return block

    def encode_request(self, requests: Requests) -> TokenFormerState:
        front = self.front.encode_request(requests)
        stream = self.stream(front)
        x_ND, streams, own = stream.x_ND, stream.streams, list(stream.event_tokens)
        makes_last = self.config.regime == "every" and self.training
        keys, values, of_layers, histories = [], [], [], []
        turned = self._first.rotation(streams.positions_N, x_ND)
        for index, (window, block) in enumerate(zip(self.windows, self.blocks, strict=True)):
            assert isinstance(block, GatedStreamBlock)
            if window is not None and streams is stream.streams and stream.static:
                kept, streams = stream.without_static()
                x_ND = x_ND[kept]
                moved = kept.new_zeros(stream.streams.num_tokens).index_copy(0, kept, torch.arange(len(kept)).to(kept))
                own = [moved[at] for at in own]
                turned = block.rotation(streams.positions_N, x_ND)
            histories += [x_ND[own[0]]] if own else []
            q, k, v, gate = block.heads(x_ND, turned)
            keys.append(k)
            values.append(v)
            of_layers.append(streams)
            if index + 1 < len(self.windows) or makes_last:
                seen = (q, k, v, streams)
                read = full_attention(*seen) if window is None else window_attention(*seen, window)
                x_ND = block.merge(x_ND, read, gate)
        every = self._every(x_ND, own, requests) if makes_last else None
        counts_R = stream.event_counts[0] if own else None
        return TokenFormerState(
            tuple(keys), tuple(values), tuple(of_layers), stream.target_position_R, every, tuple(histories), counts_R
        )

    def score(self, state: TokenFormerState, candidates: Candidates, *, taps: Taps | None = None) -> Output:
        request_B = candidates.request_of_row_B
        x_BD = tap(taps, "candidate", self.candidate(self.front.candidate_fields(candidates).flatten(1)))
        turned = self._first.rotation(state.position_R[request_B], x_BD)
        for index, (window, block) in enumerate(zip(self.windows, self.blocks, strict=True)):
            assert isinstance(block, GatedStreamBlock)
            seen = state.keys[index], state.values[index], state.streams[index]
            *own_Bhd, gate_BD = block.heads(x_BD, turned)
            read_B1hd = target_attention(*(part.unsqueeze(1) for part in own_Bhd), *seen, request_B, window)
            x_BD = tap(taps, f"layers.{index}", block.merge(x_BD, read_B1hd.squeeze(1), gate_BD))
        pooled_BD = tap(taps, "pooled", x_BD)
        if taps is not None:
            _tap_histories(taps, state, request_B)
        aux = {} if state.every is None else {"every": state.every}
        return Output(self.towers(pooled_BD), aux, taps if taps is not None else {})

    def _every(self, x_ND: Tensor, own: list[Tensor], requests: Requests) -> Tensor:
        """The mean cross-entropy of the outcomes that are known, over all events; 0 where none is."""
        losses = []
        for h, column, name in self.outcomes:
            label_E = requests.histories[h].events.numbers_nF[:, column]
            known_E = ~label_E.isnan()
            x_ED = x_ND[own[h]]
            if name in self.inputs.task_names:
                logit_E = self.towers.of_task[self.inputs.task_names.index(name)](x_ED).squeeze(-1)
            else:
                logit_E = self.of_outcome[_key(name)](x_ED).squeeze(-1)
            labels = torch.where(known_E, label_E, 0).clamp(0, 1)  # counts and amounts: whether there was any
            loss_E = F.binary_cross_entropy_with_logits(logit_E.float(), labels, reduction="none")
            losses.append((loss_E * known_E).sum() / known_E.sum().clamp_min(1))
        return torch.stack(losses).mean()

    def frozen_for(self, task: str) -> set[str]:
        frozen = self.towers.names_of_others(task, "towers")
        for *_, name in self.outcomes:  # the tower of a task that is an outcome, too, learns from every position
            if name in self.inputs.task_names:
                frozen -= self.towers.names_of_others(task, "towers") - self.towers.names_of_others(name, "towers")
        return frozen


def _key(name: str) -> str:
    """A module's name has no points."""
    return name.replace(".", "_")


def _tap_histories(taps: Taps, state: TokenFormerState, request_B: Tensor) -> None:
    if state.counts_R is None or not state.histories:
        return
    counts_R = state.counts_R
    offsets = torch.cat([counts_R.new_zeros(1), counts_R.cumsum(0)])
    for index, x_ED in enumerate(state.histories):
        taps["events" if not index else f"events.{index - 1}"] = pad_segments(x_ED, offsets)[request_B]
    taps["events.length"] = counts_R[request_B]
