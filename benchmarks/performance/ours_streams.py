"""TokenFormer's layers on ragged streams as we run them, and padded to the longest with the same weights.

Modes: `fp32`, `bf16` (autocast), `padded, fp32`, `padded, bf16`: a whole training step. About: `apart`,
the largest difference of their float32 logits; `tokens`, the share of padded tokens that are real.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from ours_dcnv2 import labels_of, stepper
from torch.nn import functional as F
from worker import Mode, serve

import fullrank
from fullrank.data.batch import Batch, Candidates, FeatureBlock, HistoryBatch, Requests
from fullrank.data.inputs import Field, HistoryInputs, Inputs, TaskInput
from fullrank.kernels.pages import keep_freed_memory
from fullrank.layers.gated_stream_block import GatedStreamBlock
from fullrank.layers.rope import Rotation
from fullrank.layers.stream_attention import stream_mask
from fullrank.rankers import TokenFormer
from fullrank.rankers.base import Output
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.training.config import TrainConfig
from fullrank.training.objectives import ObjectiveConfig
from fullrank.training.optimizers import RankerOptimizer


def ranker_of(sizes: dict[str, Any]) -> TokenFormer:
    def fields(*names: str) -> tuple[Field, ...]:
        return tuple(Field(name=name, kind="categorical", key_space=name) for name in names)

    inputs = Inputs(
        request=fields(*(f"field{n}" for n in range(sizes["fields"]))),
        candidate=fields("item", "kind"),
        histories=(HistoryInputs(name="past", last_n=sizes["longest"], fields=fields("item", "kind")),),
        tasks=(TaskInput(name="click"),),
    )
    config = TokenFormer.Config(
        embedding=EmbeddingConfig(width=sizes["embedding"], init_std=0.1),
        width=sizes["width"],
        heads=sizes["heads"],
        expansion=sizes["expansion"],
        full_layers=sizes["full_layers"],
        windows=tuple(sizes["windows"]),
    )
    spaces = {"item": sizes["items"], "kind": 50, **{f"field{n}": 1000 for n in range(sizes["fields"])}}
    return config.build(inputs, spaces, seed=0).train()


def batches(sizes: dict[str, Any]) -> list[Batch]:
    draw = torch.Generator().manual_seed(0)
    rows = sizes["rows"]

    def block(n: int, *most: int) -> FeatureBlock:
        ids_nF = torch.stack([torch.randint(1, one, (n,), generator=draw) for one in most], dim=1)
        return FeatureBlock(ids_nF, torch.empty(n, 0))

    made = []
    for _ in range(sizes["steps"]):
        normal_B = torch.randn(rows, generator=draw)
        lengths_B = (sizes["median"] * (sizes["sigma"] * normal_B).exp()).clamp(1, sizes["longest"]).long()
        offsets = torch.cat([lengths_B.new_zeros(1), lengths_B.cumsum(0)])
        past = HistoryBatch(block(int(offsets[-1]), sizes["items"], 50), offsets)
        own_B = torch.arange(rows)
        requests = Requests(block(rows, *[1000] * sizes["fields"]), (past,), own_B, own_B)
        labels = labels_of((torch.rand(rows, generator=draw) < 0.25).float())
        made.append(Batch(requests, Candidates(block(rows, sizes["items"], 50), own_B), labels))
    return made


class Padded:
    """The layers of a ranker on `[B, S, D]`: a row's fields, separators, events and candidate, then padding."""

    def __init__(self, ranker: TokenFormer, longest: int) -> None:
        static = len(ranker.inputs.request)
        most = static + 2 + longest + 1
        self.ranker = ranker
        self.masks = [None if window is None else stream_mask(most, static, window) for window in ranker.windows]

    def __call__(self, batch: Batch) -> Output:
        ranker = self.ranker
        front = ranker.front.encode_request(batch.requests)
        stream = ranker.stream(front)
        own_BD = ranker.candidate(ranker.front.candidate_fields(batch.candidates).flatten(1))
        lengths_B, offsets = stream.streams.lengths, stream.streams.offsets
        B, S = len(lengths_B), int(lengths_B.max()) + 1
        row_N = torch.repeat_interleave(torch.arange(B), lengths_B)
        at_N = row_N, torch.arange(len(row_N)) - offsets[:-1][row_N]
        last_B = torch.arange(B), lengths_B
        x_BSD = stream.x_ND.new_zeros(B, S, own_BD.shape[1]).index_put(at_N, stream.x_ND)
        x_BSD = x_BSD.index_put(last_B, own_BD.to(x_BSD.dtype))
        place_BS = torch.zeros(B, S, dtype=torch.int64).index_put(at_N, stream.streams.positions_N)
        place_BS = place_BS.index_put(last_B, stream.target_position_R)
        turned = Rotation.of(place_BS, ranker.config.width, ranker.config.heads, x_BSD.dtype)
        blocks = [block for block in ranker.blocks if isinstance(block, GatedStreamBlock)]
        for block, mask_SS in zip(blocks[:-1], self.masks, strict=False):
            *own, gate = block.heads(x_BSD, turned)
            q, k, v = (part.transpose(1, 2) for part in own)
            if mask_SS is None:
                read = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            else:
                read = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_SS[:S, :S])
            x_BSD = block.merge(x_BSD, read.transpose(1, 2), gate)
        # the last layer makes the candidate alone, which reads all
        last = self.masks[-1]
        seen_BS = (stream_mask(S, 0) if last is None else last[:S, :S])[lengths_B]
        _, k, v, _ = blocks[-1].heads(x_BSD, turned)
        q, _, _, gate = blocks[-1].heads(x_BSD[last_B], replace(turned, place_S=turned.place_S[last_B]))
        q, k, v = (part.transpose(1, 2) for part in (q.unsqueeze(1), k, v))
        read = F.scaled_dot_product_attention(q, k, v, attn_mask=seen_BS[:, None, None])
        return Output(ranker.towers(blocks[-1].merge(x_BSD[last_B], read.squeeze(2), gate)), {}, {})


def main() -> None:
    keep_freed_memory()  # as `train` does
    sizes = json.loads((Path(sys.argv[1]) / "sizes.json").read_text())
    torch.set_num_threads(sizes["threads"])
    ranker, made = ranker_of(sizes), batches(sizes)
    padded = Padded(ranker, sizes["longest"])

    optimizer = RankerOptimizer(ranker, TrainConfig(batch_size=sizes["rows"], lr=1e-3))
    objective = ObjectiveConfig().build(ranker.inputs.tasks)

    def mode(model: Callable[[Batch], Output], bf16: bool) -> Mode:
        return Mode(stepper(model, optimizer, objective, cycle(made), bf16))

    with torch.no_grad():
        both = [(ranker(batch).logits["click"], padded(batch).logits["click"]) for batch in made]
        apart = max(float((one - other).abs().max()) for one, other in both)
    real, most = 0, 0
    for batch in made:
        lengths_B = batch.requests.histories[0].offsets.diff() + len(ranker.inputs.request) + 3
        real, most = real + int(lengths_B.sum()), most + int(lengths_B.max()) * len(lengths_B)
    modes = {"fp32": mode(ranker, False), "bf16": mode(ranker, True)}
    modes |= {"padded, fp32": mode(padded, False), "padded, bf16": mode(padded, True)}
    serve(modes, fullrank=fullrank.__version__, apart=str(apart), tokens=str(real / most))


if __name__ == "__main__":
    main()
