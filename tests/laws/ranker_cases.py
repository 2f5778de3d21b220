"""Small inputs with every kind of field, batches of them made by hand, and cuts of batches.

Shared by the laws of rankers. Nothing here reads a data set: batches are random and known to the bit from a seed.
"""

from dataclasses import replace

import torch
from torch import nn

from fullrank.data.batch import Bag, Batch, Candidates, FeatureBlock, HistoryBatch, Requests
from fullrank.data.inputs import Field, HistoryInputs, Inputs, TaskInput
from fullrank.features.table_plan import TableOptimizer
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import (
    DIN,
    FM,
    HSTU,
    LR,
    RANKERS,
    DCNv2,
    DeepFM,
    FieldTransformer,
    HyFormer,
    OneTrans,
    RankElastor,
    RankMixer,
    RankUp,
    TokenFormer,
    Wukong,
    ranker_name,
)
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.rankers.linear_part import LinearConfig

NUM_ROWS = {"user": 40, "item": 60, "tag": 12, "slot": 6, "action": 5, "not_asked_for": 9}

INPUTS = Inputs(
    request=(
        Field(name="hour", kind="numeric"),
        Field(name="user", kind="categorical", key_space="user"),
        Field(name="interests", kind="multi", key_space="tag"),
        Field(name="profile", kind="vector", dim=3),
    ),
    candidate=(
        Field(name="item", kind="categorical", key_space="item"),
        Field(name="price", kind="numeric"),
        Field(name="tags", kind="multi", key_space="tag"),
        Field(name="slot", kind="categorical", key_space="slot"),
    ),
    histories=(
        HistoryInputs(
            name="clicks",
            last_n=6,
            fields=(
                Field(name="item", kind="categorical", key_space="item"),
                Field(name="action", kind="categorical", key_space="action"),
                Field(name="bought", kind="numeric", of="outcome"),
                Field(name="age", kind="numeric"),
                Field(name="item.tags", kind="multi", key_space="tag"),
            ),
        ),
        HistoryInputs(name="views", last_n=4, fields=(Field(name="item", kind="categorical", key_space="item"),)),
    ),
    tasks=(TaskInput(name="click"), TaskInput(name="conversion.7d")),
)

# Beside its default, each ranker is tested in these settings. A ranker that is not here is tested in its default.
VARIANTS = {
    DCNv2: (DCNv2.Config(structure="stacked", hidden=(32,), dropout=0.1, batch_norm=True),),
    RankMixer: (
        RankMixer.Config(norm="pre", history="din", dropout=0.1),
        RankMixer.Config(tokenizer=TokenizerConfig(mode="field", token_width=28, norm=True)),
        RankMixer.Config(tokenizer=TokenizerConfig(num_tokens=4, token_width=16), num_layers=1, experts=3),
        RankMixer.Config(
            num_layers=1,
            tokenizer=TokenizerConfig(
                mode="semantic",
                token_width=32,
                groups=(
                    ("item", "slot", "views.item", "clicks.item"),
                    ("hour", "price", "clicks.age"),
                    ("user", "profile", "clicks.action", "clicks.bought"),
                    ("interests", "tags", "clicks.item.tags"),
                ),
            ),
        ),
    ),
    RankElastor: (
        RankElastor.Config(mixer="kronecker", ffn="relu", history="din", head="mean", towers=(16,), dropout=0.1),
        RankElastor.Config(
            form="repository",
            embedding=EmbeddingConfig(width=8),
            tokenizer=TokenizerConfig(num_tokens=7, token_width=14),
            tokens="matrix",
            tokens_hidden=20,
            mixer="permute",
            units=(10, 14),
            num_layers=1,
        ),
    ),
    RankUp: (
        RankUp.Config(num_tables=1, num_tokens=3, permuted=False, global_token="dcnv2", task_tokens=False, dropout=0.1),
        RankUp.Config(
            num_tokens=4,
            width=20,
            global_token="mlp",
            dense_token=False,
            sequence_tokens=False,
            history="din",
            extra_tokens=1,
            num_layers=3,
        ),
    ),
    TokenFormer: (
        TokenFormer.Config(width=32, full_layers=1, windows=(3, 2), gated=False, form="unirank", dropout=0.1),
        TokenFormer.Config(width=32, full_layers=2, windows=(4,), regime="every", towers=()),
    ),
    Wukong: (Wukong.Config(num_layers=3, machine=3, linear=2, rank=4, hidden=(), towers=(), dropout=0.1),),
    HSTU: (HSTU.Config(width=32, heads=2, num_layers=2, positions=3, dropout=0.1),),
    OneTrans: (
        OneTrans.Config(num_tokens=3, width=32, tails=(5, 2), towers=(), dropout=0.1),
        OneTrans.Config(num_tokens=1, width=32, tails=(1,)),
    ),
    HyFormer: (HyFormer.Config(num_tokens=2, queries=1, width=30, heads=2, num_layers=2, towers=(), dropout=0.1),),
    DeepFM: (DeepFM.Config(hidden=(32,), dropout=0.1, batch_norm=True),),
    DIN: (DIN.Config(attention_hidden=(12,), attention_activation="prelu", activation="dice", dropout=0.1),),
    FieldTransformer: (
        FieldTransformer.Config(
            tokenizer=TokenizerConfig(mode="permuted", num_tokens=3, token_width=24, permutation_seed=2),
            num_layers=1,
            dropout=0.1,
        ),
    ),
}

# All that these hold stands in tables of weights, which the default rate moves by .4 in a hundred steps at most.
QUICK_LINEAR = LinearConfig(optimizer=TableOptimizer(semantics="dense", lr=0.3))

CASES = [
    (f"{ranker_name(ranker)}-{index}", config)
    for ranker in RANKERS
    for index, config in enumerate((ranker.Config(), *VARIANTS.get(ranker, ())))
]


def quick(config):
    """The same ranker at a rate at which a hundred steps are enough to learn something by heart."""
    return replace(config, linear=QUICK_LINEAR) if isinstance(config, (LR.Config, FM.Config)) else config


def offsets_of(lengths):
    return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])


def random_block(fields, n, generator):
    """A block of n owners with ids of every row but padding, some missing numbers and vectors, some empty bags."""
    draw = {"generator": generator}

    def numbers(*shape):
        values = torch.randn(*shape, **draw)
        return torch.where(torch.rand(*shape, **draw) < 0.2, torch.nan, values)

    ids = [torch.randint(1, NUM_ROWS[f.key_space], (n,), **draw) for f in fields if f.kind == "categorical"]
    bags = []
    for field in fields:
        if field.kind == "multi":
            offsets = offsets_of(torch.randint(0, 4, (n,), **draw))
            values = torch.randint(1, NUM_ROWS[field.key_space], (int(offsets[-1]),), **draw)
            weights = torch.rand(len(values), **draw) + 0.1 if field.name == "interests" else None
            bags.append(Bag(values, offsets, weights))
    vectors = []
    for field in fields:
        if field.kind == "vector":
            missing = torch.rand(n, 1, **draw) < 0.2
            vectors.append(torch.where(missing, torch.nan, torch.randn(n, field.dim, **draw)))
    return FeatureBlock(
        torch.stack(ids, 1) if ids else torch.zeros(n, 0, dtype=torch.int64),
        numbers(n, sum(f.kind == "numeric" for f in fields)),
        tuple(bags),
        tuple(vectors),
    )


def random_batch(seed, num_requests=7, num_rows=20):
    """Rows in no particular order of requests; every third request has no events, and a request may have no rows."""
    generator = torch.Generator().manual_seed(seed)
    histories = []
    for history in INPUTS.histories:
        lengths = torch.randint(1, history.last_n + 1, (num_requests,), generator=generator)
        lengths[::3] = 0
        events = random_block(history.fields, int(lengths.sum()), generator)
        histories.append(HistoryBatch(events, offsets_of(lengths)))
    requests = Requests(
        random_block(INPUTS.request, num_requests, generator),
        tuple(histories),
        torch.arange(num_requests),
        torch.arange(num_requests),
    )
    request_of_row = torch.randint(0, num_requests, (num_rows,), generator=generator)
    return Batch(requests, Candidates(random_block(INPUTS.candidate, num_rows, generator), request_of_row))


def spans(offsets, index):
    """The positions of the segments `index`, one after another, and their offsets."""
    pieces = [torch.arange(int(offsets[i]), int(offsets[i + 1])) for i in index.tolist()]
    lengths = torch.tensor([len(piece) for piece in pieces], dtype=torch.int64)
    return torch.cat([torch.zeros(0, dtype=torch.int64), *pieces]), offsets_of(lengths)


def take_block(block, index):
    """The owners `index`, in that order."""
    bags = []
    for bag in block.bags:
        at, offsets = spans(bag.offsets, index)
        bags.append(Bag(bag.ids_N[at], offsets, None if bag.weights_N is None else bag.weights_N[at]))
    vectors = tuple(v[index] for v in block.vectors_nD)
    return FeatureBlock(block.ids_nF[index], block.numbers_nF[index], tuple(bags), vectors)


def take_requests(requests, index):
    histories = []
    for history in requests.histories:
        at, offsets = spans(history.offsets, index)
        histories.append(HistoryBatch(take_block(history.events, at), offsets))
    features = take_block(requests.features, index)
    return Requests(features, tuple(histories), requests.user_R[index], requests.time_R[index])


def take_rows(candidates, index):
    return Candidates(take_block(candidates.features, index), candidates.request_of_row_B[index])


def own_request_each(batch, rows):
    """The named rows, each with a copy of its request: R = B."""
    requests = take_requests(batch.requests, batch.candidates.request_of_row_B[rows])
    return Batch(requests, replace(take_rows(batch.candidates, rows), request_of_row_B=torch.arange(len(rows))))


def without_events(batch):
    nothing = torch.zeros(0, dtype=torch.int64)
    histories = tuple(
        HistoryBatch(take_block(h.events, nothing), torch.zeros_like(h.offsets)) for h in batch.requests.histories
    )
    return replace(batch, requests=replace(batch.requests, histories=histories))


def touched_ids(batch):
    """Key space -> every id above padding that the batch holds, of any owner."""
    blocks = [(INPUTS.request, batch.requests.features), (INPUTS.candidate, batch.candidates.features)]
    blocks += [(h.fields, b.events) for h, b in zip(INPUTS.histories, batch.requests.histories, strict=True)]
    found = {}
    for fields, block in blocks:
        columns = iter(block.ids_nF.unbind(1))
        bags = iter(block.bags)
        for field in fields:
            if field.kind in ("categorical", "multi"):
                ids = next(columns) if field.kind == "categorical" else next(bags).ids_N
                found.setdefault(field.key_space, set()).update(ids.tolist())
    return {space: ids - {0} for space, ids in found.items()}


def build(config, seed=0):
    return config.build(INPUTS, NUM_ROWS, seed)


def lively(config, seed=0):
    """A ranker in eval mode whose logits differ clearly from row to row: first weights leave them near zero."""
    ranker = build(config, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in ranker.parameters():
            wide = (32 / max(32, parameter.shape[-1])) ** 0.5 if parameter.dim() else 1.0  # sums of many stay near 1
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.15 * wide)
        for module in ranker.modules():
            if isinstance(module, nn.BatchNorm1d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 2.0, generator=generator)
    return ranker.eval()


def logits_of(output):
    """`[B, K]`, in the order of the tasks."""
    assert tuple(output.logits) == INPUTS.task_names
    return torch.stack(list(output.logits.values()), 1)
