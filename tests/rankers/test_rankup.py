"""RankUp's tokens: who reads what, what is saved, and which logit a task token reaches."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fullrank.data.batch import Batch, Candidates, FeatureBlock, Requests
from fullrank.data.inputs import Field, Inputs, TaskInput
from fullrank.diagnostics.points import point_ranks
from fullrank.features.tokenizer import TokenizerConfig, permuted_groups
from fullrank.rankers import RankUp
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.rankers.rankup_tokens import GlobalToken, split_groups

FIELDS = 8
ROWS = {f"c{at}": 9 for at in range(FIELDS)}
PLAIN = RankUp.Config(
    embedding=EmbeddingConfig(width=4, init_std=1.0),
    num_tokens=4,
    num_tables=1,
    global_token="none",
    task_tokens=False,
    width=16,
)
REQUEST = 3  # of the fields; the others are the candidate's


def inputs_of(tasks=("click", "buy"), vectors=False):
    def fields(low, high):
        return tuple(Field(name=f"c{at}", kind="categorical", key_space=f"c{at}") for at in range(low, high))

    of_user = (Field(name="user_vector", kind="vector", dim=3),) if vectors else ()
    of_item = (Field(name="item_vector", kind="vector", dim=3),) if vectors else ()
    named = tuple(TaskInput(name=task) for task in tasks)
    return Inputs(
        request=fields(0, REQUEST) + of_user, candidate=fields(REQUEST, FIELDS) + of_item, histories=(), tasks=named
    )


def batch_of(rows=6, seed=0, vectors=False):
    draw = torch.Generator().manual_seed(seed)

    def block(num):
        given = (torch.randn(rows, 3, generator=draw),) if vectors else ()
        return FeatureBlock(torch.randint(1, 9, (rows, num), generator=draw), torch.zeros(rows, 0), (), given)

    own = torch.arange(rows)
    return Batch(Requests(block(REQUEST), (), own, own), Candidates(block(FIELDS - REQUEST), own))


def built(config, seed=0, **options):
    return config.build(inputs_of(**options), ROWS, seed).eval()


def tokens_of(ranker, batch):
    taps = {}
    with torch.no_grad():
        ranker(batch, taps=taps)
    return taps["tokens"]


def test_u1_the_permutation_moves_every_field_once():
    for seed in range(20):
        groups = permuted_groups(FIELDS, 4, seed)
        assert sorted(at for group in groups for at in group) == list(range(FIELDS))
    assert len({str(permuted_groups(FIELDS, 4, seed)) for seed in range(20)}) > 10


def test_u1_another_process_with_another_seed_has_the_same_permutation():
    words = "from fullrank.features.tokenizer import permuted_groups; print(permuted_groups(30, 7, 5))"
    told = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == str(permuted_groups(30, 7, 5))


def test_u1_predictions_are_those_of_the_saved_model(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    config = replace(PLAIN, permutation_seed=3)
    ranker, other = built(config, seed=1), built(config, seed=2)
    save_file({name: value.contiguous() for name, value in ranker.state_dict().items()}, tmp_path / "weights")
    other.load_state_dict(load_file(tmp_path / "weights"))
    with torch.no_grad():
        before, after = ranker(batch_of()).logits, other(batch_of()).logits
    assert all(torch.equal(before[task], after[task]) for task in before)


def test_u2_without_a_permutation_it_is_the_chunk_tokenizer():
    ranker = built(replace(PLAIN, permuted=False))
    chunk = TokenizerConfig(num_tokens=4, token_width=16).build((4,) * FIELDS)
    (linear,) = ranker.tokens.sparse[0].tokens.linears
    chunk.linear.load_state_dict(linear.state_dict())
    batch = batch_of()
    with torch.no_grad():
        state = ranker.encode_request(batch.requests)
        x_BFE = ranker.fronts[0](state.sets[0], batch.candidates)
        assert torch.equal(tokens_of(ranker, batch), chunk(x_BFE.flatten(1)).x_BTD)
    assert split_groups(FIELDS, 3, False, 9) == [[0, 1, 2], [3, 4, 5], [6, 7]]


@pytest.mark.parametrize("global_token", ["none", "fm", "mlp", "dcnv2"])
@pytest.mark.parametrize("num_tables", [1, 2])
def test_u3_a_field_reaches_one_token_of_each_table_set_and_the_global_one(global_token, num_tables):
    ranker = built(replace(PLAIN, global_token=global_token, num_tables=num_tables))
    batch = batch_of()
    before = tokens_of(ranker, batch)
    extra = global_token != "none"
    for at in range(FIELDS - REQUEST):
        ids = batch.candidates.features.ids_nF.clone()
        ids[:, at] = ids[:, at] % 8 + 1
        changed = replace(batch.candidates, features=replace(batch.candidates.features, ids_nF=ids))
        moved = (tokens_of(ranker, replace(batch, candidates=changed)) != before).any(-1)
        assert (moved[:, extra:].sum(1) == num_tables).all()
        assert not extra or moved[:, 0].all()


def test_u4_one_table_is_the_base_and_k_are_k_times_the_rows():
    one, three = (built(replace(PLAIN, num_tokens=6, num_tables=k)) for k in (1, 3))
    again = built(replace(PLAIN, num_tokens=6))
    assert {name: value.shape for name, value in one.state_dict().items()} == {
        name: value.shape for name, value in again.state_dict().items()
    }
    first, others = one.tables.logical_tables(), three.tables.logical_tables()
    assert sum(x.numel() for x in others.values()) == 3 * sum(x.numel() for x in first.values())
    for space in ROWS:
        sets = [others[f"{space}.{name}"][1:] for name in ("main", "set1", "set2")]
        for left, right in ((0, 1), (0, 2), (1, 2)):
            cosine = torch.nn.functional.cosine_similarity(sets[left], sets[right])
            assert cosine.abs().max() < 1 - 1e-3


def test_u5_the_fm_token_and_the_number_of_tokens():
    token = GlobalToken("fm", 3, 2, 2)
    with torch.no_grad():
        token.project.weight.copy_(torch.eye(2))
    x_BFE = torch.tensor([[[1.0, 2.0], [3.0, -1.0], [0.5, 4.0]]])
    expected = [1 * 3 + 1 * 0.5 + 3 * 0.5, 2 * -1 + 2 * 4 + -1 * 4]
    assert token(x_BFE)[0].tolist() == pytest.approx(expected)
    ranker = built(replace(PLAIN, global_token="fm"))
    assert tokens_of(ranker, batch_of()).shape == (6, 4 + 1, 20)  # 16 rounded up to a multiple of 5


def test_u6_a_task_token_reaches_its_own_logit_alone():
    ranker = built(replace(PLAIN, task_tokens=True))
    taps = {}
    with torch.no_grad():
        logits = ranker(batch_of(), taps=taps).logits
        x_BND, pooled_BD = taps["layers.1.ffn"], taps["pooled"]
        for at, task in enumerate(("click", "buy")):
            own = x_BND[:, at - 2]
            found = ranker.towers[at](torch.cat([own, pooled_BD], 1)).squeeze(-1)
            torch.testing.assert_close(found, logits[task])
            without = ranker.towers[at](torch.cat([0 * own, pooled_BD], 1)).squeeze(-1)
            assert not torch.allclose(without, logits[task])
        assert torch.equal(pooled_BD, x_BND[:, :-2].mean(1))


def test_u7_ranks_of_all_stages_with_and_without_each_part_beside_what_they_could_be():
    whole = replace(PLAIN, num_tables=2, global_token="fm", task_tokens=True)
    parts = {
        "all": whole,
        "one table": replace(whole, num_tables=1),
        "no global token": replace(whole, global_token="none"),
        "no task tokens": replace(whole, task_tokens=False),
        "in order": replace(whole, permuted=False),
    }
    for name, config in parts.items():
        taps = {}
        with torch.no_grad():
            built(config)(batch_of(rows=40), taps=taps)
        found = {one.point: one for one in point_ranks(taps, forms=("sample",))}
        stages = ["tokens", "layers.0.mix", "layers.0.ffn", "layers.1.mix", "layers.1.ffn"]
        assert list(found) == stages, name
        tokens = 4 + (config.global_token != "none") + 2 * config.task_tokens
        assert all(one.most == tokens and 1 <= one.mean <= tokens and one.share <= 1 for one in found.values())


def test_the_crossed_token_is_the_product_of_both_vectors():
    config = replace(PLAIN, crossed=("user_vector", "item_vector"), dense_token=False)
    ranker, batch = built(config, vectors=True), batch_of(vectors=True)
    token = tokens_of(ranker, batch)[:, 4]
    z_B3 = batch.requests.features.vectors_nD[0] * batch.candidates.features.vectors_nD[0]
    torch.testing.assert_close(token, ranker.tokens.of_crossed(z_B3))
    missing = replace(batch.requests.features, vectors_nD=(torch.full((6, 3), torch.nan),))
    token = tokens_of(ranker, replace(batch, requests=replace(batch.requests, features=missing)))[:, 4]
    assert torch.equal(token, ranker.tokens.of_crossed.bias.expand(6, -1))


def test_what_is_refused():
    with pytest.raises(ValueError, match="multiple of num_tables"):
        RankUp.Config(num_tokens=3, num_tables=2)
    with pytest.raises(ValueError, match="two vectors"):
        RankUp.Config(crossed=("user_vector",))
    with pytest.raises(ValueError, match="Did you mean 'user_vector'"):
        built(replace(PLAIN, crossed=("user_vectr", "item_vector")), vectors=True)
    with pytest.raises(ValueError, match="at most 8"):
        built(replace(PLAIN, num_tokens=9))
