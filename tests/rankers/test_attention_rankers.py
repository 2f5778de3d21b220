"""SASRecPool and FieldTransformer: what they are made of, what is done once, and what padding may not do."""

import itertools
from dataclasses import replace

import pytest
import torch
from row_by_row import INPUTS, OFFSETS, REQUEST_OF_ROW, Vectors, batch, built, count, relu_mlp
from torch import nn

from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import FieldTransformer, SASRecPool
from fullrank.rankers.field_front import EmbeddingConfig

WIDTH, D = 3, 8
EMBEDDING = EmbeddingConfig(width=WIDTH, init_std=0.5)
SASREC = SASRecPool.Config(embedding=EMBEDDING, width=D, num_blocks=2, towers=(5,))
TRANSFORMER = FieldTransformer.Config(
    embedding=EMBEDDING, tokenizer=TokenizerConfig(mode="field", token_width=D), num_layers=2, heads=2, expansion=3
)
FRONT = (3 + 2 + 2) * WIDTH  # numeric and vector field
no_histories = replace(INPUTS, histories=())


def test_sasrec_reads_the_newest_state_beside_the_fields():
    ranker = built(SASREC)
    logits = ranker(batch()).logits
    vectors = Vectors(ranker, ranker.front)
    for b, r in enumerate(REQUEST_OF_ROW):
        events = [torch.cat(event) for event in vectors.of_events(r)]
        state = torch.zeros(D)
        if events:  # this history alone; the encoder itself is held against torch's attention in its own tests
            offsets = torch.tensor([0, len(events)])
            state = ranker.encoders[0].states(torch.stack(events), offsets)[0, -1]
        x = torch.cat([*vectors.of_request(r), *vectors.of_candidate(b), state])
        for k, task in enumerate(INPUTS.task_names):
            torch.testing.assert_close(logits[task][b], relu_mlp(ranker.towers.of_task[k], x).squeeze())


def test_sasrec_encodes_a_history_once_per_request(monkeypatch):
    ranker = built(SASREC)
    state = ranker.encode_request(batch().requests)
    assert state.histories_RD[0].shape == (3, D) and not state.front.events_EW
    whole = ranker(batch()).logits
    for encoder in ranker.encoders:
        monkeypatch.setattr(encoder, "forward", None)
    again = ranker.score(state, batch().candidates).logits
    assert all(torch.equal(again[task], whole[task]) for task in whole)


def test_sasrec_parameter_count():
    encoder = 9 * D + 4 * D + 2 * D + 2 * (5 * D**2 + 6 * D)
    towers = 2 * ((5 * WIDTH + D) * 5 + 5 + 6)
    assert count(built(SASREC)) == FRONT + encoder + towers


def by_torch(ranker, b):
    """Logits of row b: its tokens without any padding, through torch's Transformer."""
    vectors, r = Vectors(ranker, ranker.front), REQUEST_OF_ROW[b]
    fields = torch.cat([*vectors.of_request(r), *vectors.of_candidate(b)])
    tokens = [*ranker.tasks_KD, *ranker.tokenizer(fields.unsqueeze(0)).x_BTD[0]]
    events, made = vectors.of_events(r), ranker.events[0]
    for place, event in enumerate(events):
        tokens.append(made.linear(torch.cat(event)) + made.places_SD[len(events) - 1 - place])
    x = torch.stack(tokens).unsqueeze(0)
    for block in ranker.blocks:
        layer = nn.TransformerEncoderLayer(D, 2, 3 * D, 0.0, "gelu", batch_first=True, norm_first=True)
        with torch.no_grad():
            layer.self_attn.in_proj_weight.copy_(block.attention.project.weight)
            layer.self_attn.out_proj.weight.copy_(block.attention.out.weight)
            nn.init.zeros_(layer.self_attn.in_proj_bias)
            nn.init.zeros_(layer.self_attn.out_proj.bias)
        layer.norm1.load_state_dict(block.attend_norm.norm.state_dict())
        layer.norm2.load_state_dict(block.feed_norm.norm.state_dict())
        layer.linear1.load_state_dict(block.feed[0].state_dict())
        layer.linear2.load_state_dict(block.feed[2].state_dict())
        x = layer(x)
    return [ranker.norm(x[0, k]) @ ranker.out_KD[k] + ranker.out_bias_K[k] for k in range(len(ranker.inputs.tasks))]


def test_the_transformer_is_that_of_torch_on_each_rows_own_tokens():
    ranker = built(TRANSFORMER)
    taps = {}
    logits = ranker(batch(), taps=taps).logits
    longest = max(end - start for start, end in itertools.pairwise(OFFSETS))
    assert taps["tokens"].shape == (4, 2 + 5 + longest, D)
    for b in range(4):
        for task, expected in zip(INPUTS.task_names, by_torch(ranker, b), strict=True):
            torch.testing.assert_close(logits[task][b], expected)


def test_the_transformer_without_histories():
    ranker = built(TRANSFORMER, no_histories)
    bare = replace(batch(), requests=replace(batch().requests, histories=()))
    taps = {}
    ranker(bare, taps=taps)
    assert taps["tokens"].shape == (4, 2 + 5, D)


@pytest.mark.parametrize("inputs", [INPUTS, no_histories], ids=["history", "none"])
def test_the_transformers_parameter_count(inputs):
    tokens = 5 * (WIDTH * D + D) + 2 * D
    events = (9 * D + D + 4 * D) if inputs.histories else 0
    stack = 2 * (4 * D**2 + 2 * 3 * D**2 + 3 * D + D + 4 * D) + 2 * D
    assert count(built(TRANSFORMER, inputs)) == FRONT + tokens + events + stack + 2 * (D + 1)
