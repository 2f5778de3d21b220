"""Requests with two fields and one history, and batches of them made by hand: what rankers of streams are tried on."""

from __future__ import annotations

from dataclasses import replace

import torch

from fullrank.data.batch import Batch, Candidates, FeatureBlock, HistoryBatch, Requests
from fullrank.data.inputs import Field, HistoryInputs, Inputs, TaskInput

SPACES = {"user": 9, "place": 9, "item": 30, "kind": 5}


def categorical(*names):
    return tuple(Field(name=name, kind="categorical", key_space=name) for name in names)


EVENT = (*categorical("item", "kind"), Field(name="bought", kind="numeric", of="outcome"))
INPUTS = Inputs(
    request=categorical("user", "place"),
    candidate=categorical("item", "kind"),
    histories=(HistoryInputs(name="seen", last_n=60, fields=EVENT),),
    tasks=(TaskInput(name="click"), TaskInput(name="bought")),
)


def batch_of(lengths, rows_of_each=1, seed=0):
    draw = torch.Generator().manual_seed(seed)
    R, E, B = len(lengths), sum(lengths), len(lengths) * rows_of_each

    def ids(n, *spaces):
        return torch.stack([torch.randint(1, SPACES[space], (n,), generator=draw) for space in spaces], 1)

    bought = (torch.rand(E, 1, generator=draw) < 0.4).float()
    bought[::3] = torch.nan
    history = HistoryBatch(FeatureBlock(ids(E, "item", "kind"), bought), torch.tensor([0, *lengths]).cumsum(0))
    own = torch.arange(R)
    requests = Requests(FeatureBlock(ids(R, "user", "place"), torch.zeros(R, 0)), (history,), own, own)
    request_of_row_B = torch.arange(B) % R
    return Batch(requests, Candidates(FeatureBlock(ids(B, "item", "kind"), torch.zeros(B, 0)), request_of_row_B))


def in_double(batch):
    def block(one):
        return replace(one, numbers_nF=one.numbers_nF.double())

    histories = tuple(replace(one, events=block(one.events)) for one in batch.requests.histories)
    requests = replace(batch.requests, features=block(batch.requests.features), histories=histories)
    candidates = replace(batch.candidates, features=block(batch.candidates.features))
    return replace(batch, requests=requests, candidates=candidates)
