"""Inputs with every kind of field, a batch of them, and the field vectors of a row written out one by one."""

import torch
from torch import nn

from fullrank.data.batch import Bag, Batch, Candidates, FeatureBlock, HistoryBatch, Requests
from fullrank.data.inputs import Field, HistoryInputs, Inputs, TaskInput

ITEM = Field(name="item", kind="categorical", key_space="item")
EVENT = (
    Field(name="action", kind="categorical", key_space="action"),
    ITEM,
    Field(name="item.tags", kind="multi", key_space="tag"),
)
TASKS = (TaskInput(name="click"), TaskInput(name="buy"))
INPUTS = Inputs(
    request=(
        Field(name="user", kind="categorical", key_space="user"),
        Field(name="hour", kind="numeric"),
        Field(name="profile", kind="vector", dim=2),
    ),
    candidate=(Field(name="tags", kind="multi", key_space="tag"), ITEM),
    histories=(HistoryInputs(name="seen", last_n=4, fields=EVENT),),
    tasks=TASKS,
)
NUM_ROWS = {"user": 7, "item": 9, "tag": 8, "action": 5}
OFFSETS = (0, 2, 2, 5)
REQUEST_OF_ROW = (2, 0, 1, 2)
HOURS = (0.5, float("nan"), -2.0)
PROFILES = ((1.0, 2.0), (0.3, -1.0), (float("nan"), 1.0))
USERS, ITEMS = (2, 3, 5), (7, 6, 2, 7)
TAGS = ((2, 3), (), (4,), (5, 5, 6))
EVENT_ACTIONS, EVENT_ITEMS = (2, 3, 4, 2, 2), (3, 4, 8, 8, 2)
EVENT_TAGS = ((2,), (3, 4), (), (7,), (2, 6, 7))


def _bag(values):
    offsets = torch.tensor([0, *map(len, values)]).cumsum(0)
    return Bag(torch.tensor([v for value in values for v in value], dtype=torch.int64), offsets)


def _ids(*columns):
    return torch.tensor(columns, dtype=torch.int64).T


def batch():
    numbers = torch.tensor([HOURS]).T
    events = FeatureBlock(_ids(EVENT_ACTIONS, EVENT_ITEMS), torch.zeros(5, 0), (_bag(EVENT_TAGS),))
    requests = Requests(
        FeatureBlock(_ids(USERS), numbers, (), (torch.tensor(PROFILES),)),
        (HistoryBatch(events, torch.tensor(OFFSETS)),),
        torch.zeros(3),
        torch.zeros(3),
    )
    candidates = FeatureBlock(_ids(ITEMS), torch.zeros(4, 0), (_bag(TAGS),))
    return Batch(requests, Candidates(candidates, torch.tensor(REQUEST_OF_ROW)))


def built(config, inputs=INPUTS, seed=3):
    """A ranker in evaluation whose weights are all far from zero."""
    ranker = config.build(inputs, NUM_ROWS, seed).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in ranker.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.4)
    return ranker


def mean(vectors, width):
    return torch.stack(vectors).mean(0) if vectors else torch.zeros(width)


class Vectors:
    """The field vectors of single rows, requests and events, from the tables of `set` and the weights of a front."""

    def __init__(self, ranker, front, set="main"):
        tables = ranker.tables.logical_tables()
        self.table = {space: tables[f"{space}.{set}"] for space in NUM_ROWS}
        self.width = front.width
        self.numeric = front.request.numeric
        self.projection = front.request.vectors[0]

    def of_request(self, r):
        hour, profile = torch.tensor(HOURS[r]), torch.tensor(PROFILES[r])
        number = hour * self.numeric.weight_FD[0] + self.numeric.bias_FD[0]
        given = self.projection.linear.weight @ profile + self.projection.linear.bias
        return [
            self.table["user"][USERS[r]],
            self.numeric.missing_FD[0] if hour.isnan() else number,
            self.projection.missing_D if profile.isnan().any() else given,
        ]

    def of_candidate(self, b):
        return [mean([self.table["tag"][tag] for tag in TAGS[b]], self.width), self.table["item"][ITEMS[b]]]

    def of_events(self, r):
        """The fields of each event of a request, in the order of `EVENT`."""
        return [
            [
                self.table["action"][EVENT_ACTIONS[e]],
                self.table["item"][EVENT_ITEMS[e]],
                mean([self.table["tag"][tag] for tag in EVENT_TAGS[e]], self.width),
            ]
            for e in range(OFFSETS[r], OFFSETS[r + 1])
        ]

    def of_row(self, b):
        """All fields of row b in the order of a front that pools histories by their mean."""
        r = REQUEST_OF_ROW[b]
        events = self.of_events(r)
        pooled = [mean([event[f] for event in events], self.width) for f in range(len(EVENT))]
        return [*self.of_request(r), *pooled, *self.of_candidate(b)]


def count(module):
    """Numbers in parameters that are not of tables."""
    return sum(parameter.numel() for parameter in module.dense_parameters())


def relu_mlp(mlp, x):
    """An MLP of Linears and ReLUs alone, layer by layer."""
    linears = [step for step in mlp.steps if isinstance(step, nn.Linear)]
    for linear in linears[:-1]:
        x = torch.relu(linear.weight @ x + linear.bias)
    return linears[-1].weight @ x + linears[-1].bias
