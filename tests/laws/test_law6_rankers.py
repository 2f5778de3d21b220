"""Law 6: the contract of every ranker. A class that joins `RANKERS` is tested the day it does."""

from dataclasses import FrozenInstanceError, fields, is_dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from ranker_cases import (
    CASES,
    INPUTS,
    NUM_ROWS,
    build,
    lively,
    logits_of,
    own_request_each,
    quick,
    random_batch,
    take_requests,
    take_rows,
    touched_ids,
    without_events,
)
from safetensors.torch import load, save

from fullrank.data.batch import Batch, map_tensors
from fullrank.features.table_updates.updater import TableUpdater
from fullrank.rankers import RANKERS, Ranker, ranker_name, ranker_named

every_ranker = pytest.mark.parametrize("config", [config for _, config in CASES], ids=[name for name, _ in CASES])
every_task = pytest.mark.parametrize("task", INPUTS.task_names)
BATCH = random_batch(1)


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)


def loss_of(output, task, labels_B):
    return F.binary_cross_entropy_with_logits(output.logits[task], labels_B)


@every_ranker
@torch.no_grad()
def test_permuting_rows_permutes_outputs(config):
    ranker = lively(config)
    expected = logits_of(ranker(BATCH))
    assert expected.std(0).min() > 0.05  # else the laws here would hold of a constant
    rows = torch.randperm(BATCH.num_rows, generator=torch.Generator().manual_seed(3))
    close(logits_of(ranker(replace(BATCH, candidates=take_rows(BATCH.candidates, rows)))), expected[rows])


@every_ranker
@torch.no_grad()
def test_a_row_alone_scores_as_in_company(config):
    ranker = lively(config)
    expected = logits_of(ranker(BATCH))
    for row in range(BATCH.num_rows):
        close(logits_of(ranker(own_request_each(BATCH, torch.tensor([row])))), expected[row : row + 1])


@every_ranker
@torch.no_grad()
def test_permuting_requests_changes_nothing(config):
    ranker = lively(config)
    order = torch.randperm(BATCH.requests.num_requests, generator=torch.Generator().manual_seed(4))
    candidates = replace(
        BATCH.candidates, request_of_row_B=order.argsort()[BATCH.candidates.request_of_row_B]
    )
    close(logits_of(ranker(Batch(take_requests(BATCH.requests, order), candidates))), logits_of(ranker(BATCH)))


@every_ranker
@torch.no_grad()
def test_shared_requests_score_as_copied_ones(config):
    ranker = lively(config)
    copied = own_request_each(BATCH, torch.arange(BATCH.num_rows))
    assert copied.requests.num_requests > BATCH.requests.num_requests
    close(logits_of(ranker(copied)), logits_of(ranker(BATCH)))


@every_ranker
@torch.no_grad()
def test_a_request_is_encoded_once_and_scored_in_parts(config):
    ranker = lively(config)
    one = take_requests(BATCH.requests, torch.tensor([1]))
    candidates = replace(BATCH.candidates, request_of_row_B=torch.zeros(BATCH.num_rows, dtype=torch.int64))
    expected = logits_of(ranker(Batch(one, candidates)))
    state = ranker.encode_request(one)
    close(logits_of(ranker.score(state, candidates)), expected)
    halves = [take_rows(candidates, half) for half in torch.arange(BATCH.num_rows).split(7)]
    close(torch.cat([logits_of(ranker.score(state, half)) for half in halves]), expected)


@every_ranker
def test_the_state_is_frozen_and_reads_nothing_of_candidates(config):
    state = lively(config).encode_request(BATCH.requests)
    assert is_dataclass(state)
    with pytest.raises(FrozenInstanceError):
        setattr(state, fields(state)[0].name, None)


@every_ranker
@torch.no_grad()
def test_saved_and_loaded_is_bit_identical(config):
    ranker = lively(config)
    other = build(config, seed=99).eval()
    assert not torch.equal(logits_of(other(BATCH)), logits_of(ranker(BATCH)))
    other.load_state_dict(load(save(ranker.state_dict())))
    assert torch.equal(logits_of(other(BATCH)), logits_of(ranker(BATCH)))


@every_ranker
def test_built_from_the_seed_alone(config):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = build(config, seed=7).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, other = build(config, seed=7).state_dict(), build(config, seed=8).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@every_ranker
@pytest.mark.parametrize("row", [0, 1, 2], ids=["padding", "missing", "unknown"])
@torch.no_grad()
def test_ids_without_a_row_of_their_own_score_finite(config, row):
    def to_row(tensor):
        return torch.full_like(tensor, row) if tensor.dtype == torch.int64 else tensor

    def rewritten(block):
        bags = tuple(replace(bag, ids_N=to_row(bag.ids_N)) for bag in block.bags)
        return replace(block, ids_nF=to_row(block.ids_nF), bags=bags)

    histories = tuple(replace(h, events=rewritten(h.events)) for h in BATCH.requests.histories)
    requests = replace(BATCH.requests, features=rewritten(BATCH.requests.features), histories=histories)
    candidates = replace(BATCH.candidates, features=rewritten(BATCH.candidates.features))
    assert logits_of(lively(config)(Batch(requests, candidates))).isfinite().all()


@every_ranker
@torch.no_grad()
def test_a_batch_of_which_every_number_is_missing_scores_finite(config):
    def missing(tensor):
        is_value = tensor.is_floating_point() and tensor.dim() == 2  # numbers and vectors, not weights of bags
        return torch.full_like(tensor, torch.nan) if is_value else tensor

    assert logits_of(lively(config)(map_tensors(BATCH, missing))).isfinite().all()


@every_ranker
@torch.no_grad()
def test_no_events_at_all_scores_finite_and_like_any_request_without(config):
    ranker = lively(config)
    empty = logits_of(ranker(without_events(BATCH)))
    assert empty.isfinite().all()
    without = (BATCH.candidates.request_of_row_B % 3) == 0  # random_batch gives these requests no events
    assert without.any() and not without.all()
    full = logits_of(ranker(BATCH))
    close(full[without], empty[without])
    assert ((full - empty)[~without].abs() > 1e-3).any()


@every_ranker
@torch.no_grad()
def test_taps_are_kept_when_asked_for_and_change_nothing(config):
    ranker = lively(config)
    taps = {}
    output = ranker(BATCH, taps=taps)
    assert output.taps is taps and "pooled" in taps and len(taps) > 3
    assert all(tensor.shape[0] == BATCH.num_rows for tensor in taps.values())
    without = ranker(BATCH)
    assert without.taps == {}
    assert torch.equal(logits_of(without), logits_of(output))


@every_ranker
@every_task
def test_a_gradient_reaches_every_parameter_not_declared_frozen(config, task):
    ranker = lively(config).train()
    labels = (torch.arange(BATCH.num_rows) % 2).float()
    output = ranker(BATCH)
    (loss_of(output, task, labels) + sum(output.aux.values(), start=torch.zeros(()))).backward()
    frozen = ranker.frozen_for(task)
    names = {name for name, _ in ranker.named_parameters()}
    assert frozen <= names and len(frozen) < len(names) / 2
    for name, parameter in ranker.named_parameters():
        if name in frozen:
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            gradient = parameter.grad.coalesce().values() if parameter.grad.is_sparse else parameter.grad
            assert gradient.isfinite().all() and gradient.any(), name


@every_ranker
def test_gradients_of_tables_are_sparse_and_reach_every_row_of_the_batch(config):
    ranker = lively(config)
    used = take_requests(BATCH.requests, BATCH.candidates.request_of_row_B.unique())
    remap = torch.full((BATCH.requests.num_requests,), -1)
    remap[BATCH.candidates.request_of_row_B.unique()] = torch.arange(used.num_requests)
    candidates = replace(BATCH.candidates, request_of_row_B=remap[BATCH.candidates.request_of_row_B])
    batch = Batch(used, candidates)
    logits_of(ranker(batch)).sum().backward()
    every, own, touched = touched_ids(batch), touched_ids(without_events(batch)), {}
    for arena, base, spec in ranker.tables.plan.places.values():
        ids_of = own if spec.set.startswith("set") else every  # RankUp's further sets may read no histories
        touched.setdefault(arena, set()).update(base + i for i in ids_of[spec.key_space])
    assert len(touched) == len(list(ranker.tables.arenas))
    for arena, rows in touched.items():
        grad = ranker.tables.arenas[arena].grad
        assert grad is not None and grad.is_sparse
        grad = grad.coalesce()
        reached = set(grad.indices()[0][grad.values().ne(0).any(1)].tolist())
        assert rows <= reached
        assert len(reached) < grad.shape[0]


@every_ranker
def test_arenas_and_dense_parameters_are_all_there_is(config):
    ranker = build(config)
    dense = {id(parameter) for parameter in ranker.dense_parameters()}
    arenas = {id(parameter) for parameter in ranker.tables.parameters()}
    assert not dense & arenas and dense and arenas
    assert dense | arenas == {id(parameter) for parameter in ranker.parameters()}
    assert isinstance(ranker, Ranker) and ranker.config is config and ranker.inputs is INPUTS


@every_ranker
def test_a_missing_key_space_names_the_nearest(config):
    with pytest.raises(ValueError, match=r"num_rows of key space 'item'.*Did you mean 'items'"):
        config.build(INPUTS, {**{k: v for k, v in NUM_ROWS.items() if k != "item"}, "items": 60}, 0)


def test_names_derive_from_the_tuple():
    assert len({ranker_name(ranker) for ranker in RANKERS}) == len(RANKERS)
    assert all(ranker_named(ranker_name(ranker)) is ranker for ranker in RANKERS)
    with pytest.raises(ValueError, match=r"No ranker 'rankmixr'.*Did you mean 'rankmixer'"):
        ranker_named("rankmixr")


@every_ranker
def test_sixty_four_rows_with_random_labels_are_learnt_by_heart(config):
    batch = random_batch(2, num_requests=16, num_rows=64)
    labels_BK = torch.randint(0, 2, (64, len(INPUTS.tasks)), generator=torch.Generator().manual_seed(0)).float()
    ranker = build(quick(config))
    dense, tables = torch.optim.Adam(ranker.dense_parameters(), lr=3e-3), TableUpdater(ranker.tables)
    with torch.random.fork_rng():
        torch.manual_seed(0)  # dropout
        for _ in range(100):
            dense.zero_grad()
            loss = F.binary_cross_entropy_with_logits(logits_of(ranker(batch)), labels_BK)
            if loss < 0.03:
                break
            loss.backward()
            dense.step()
            tables.step()
    with torch.no_grad():
        loss = F.binary_cross_entropy_with_logits(logits_of(ranker.eval()(batch)), labels_BK)
    assert loss < 0.05
