import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullrank.data.columns import Ragged
from fullrank.evaluation.full_ranking import metrics_of_ranks, rank_of_positives
from fullrank.evaluation.ranking import ranking_metrics

ITEMS = 8


def ragged(lists):
    return Ragged(
        np.array([i for own in lists for i in own], np.int32), np.cumsum([0, *(len(own) for own in lists)])
    )


query = st.tuples(
    st.lists(st.integers(0, 3), min_size=ITEMS, max_size=ITEMS),  # scores: ties are the rule
    st.sets(st.integers(0, ITEMS - 1), max_size=4),  # positives
    st.sets(st.integers(0, ITEMS - 1), max_size=5),  # excluded, perhaps a positive
)
queries = st.lists(query, max_size=6)


def blocks(scores, size):
    return [scores[start : start + size] for start in range(0, len(scores), size)]


def parts(log):
    scores = np.array([scores for scores, _, _ in log], np.float32).reshape(-1, ITEMS)
    return scores, ragged([sorted(own) for _, own, _ in log]), ragged([sorted(out) for _, _, out in log])


@given(queries, st.integers(1, 4))
def test_counts_by_two_loops_whatever_the_blocks(log, size):
    scores, positives, exclude = parts(log)
    before = scores.copy()
    got = rank_of_positives(blocks(scores, size), positives, exclude)
    above, tied = [], []
    for row, own, out in log:
        others = [i for i in range(ITEMS) if i not in own and i not in out]
        for item in sorted(own):
            above.append(sum(row[i] > row[item] for i in others))
            tied.append(sum(row[i] == row[item] for i in others))
    assert (got.above_P.tolist(), got.tied_P.tolist()) == (above, tied)
    np.testing.assert_array_equal(scores, before)  # the caller's scores are left alone


@given(queries)
def test_metrics_are_those_of_the_rows_that_may_be_ranked(log):
    """The other way: every allowed (query, item) as a row."""
    scores, positives, exclude = parts(log)
    got = metrics_of_ranks(rank_of_positives([scores], positives, exclude), [1, 2, 5])
    rows = [
        (item in own, row[item], query)
        for query, (row, own, out) in enumerate(log)
        for item in range(ITEMS)
        if item in own or item not in out
    ]
    labels, values, groups = (np.array(c) for c in zip(*rows, strict=True)) if rows else (np.zeros(0, int),) * 3
    expected = ranking_metrics(labels, values, groups, [1, 2, 5])
    assert got.groups == expected.groups
    assert got.groups + got.skipped == len(log)
    for name in ("ndcg", "hit_rate", "recall", "precision", "mrr"):
        one, two = getattr(got, name), getattr(expected, name)
        np.testing.assert_allclose(list(one.values()), list(two.values()), rtol=1e-12, atol=1e-15)


def test_one_positive_of_a_catalogue_without_ties():
    random = np.random.default_rng(0)
    scores = random.normal(size=(200, 500)).astype(np.float32)
    target = random.integers(0, 500, 200)
    ranks = rank_of_positives(blocks(scores, 64), Ragged(target, np.arange(201)))
    place = (np.argsort(-scores, axis=1) == target[:, None]).argmax(axis=1)
    assert not ranks.tied_P.any()
    np.testing.assert_array_equal(ranks.above_P, place)
    got = metrics_of_ranks(ranks, [10])
    assert got.hit_rate[10] == got.recall[10] == (place < 10).mean()
    assert got.ndcg[10] == pytest.approx(np.where(place < 10, 1 / np.log2(place + 2), 0).mean(), rel=1e-12)
    assert got.mrr[10] == pytest.approx(np.where(place < 10, 1 / (place + 1), 0).mean(), rel=1e-12)


def test_padding_at_minus_infinity_ranks_last():
    scores = np.array([[-np.inf, 1.0, 0.0]])
    got = rank_of_positives([scores], ragged([[2]]))
    assert (got.above_P.tolist(), got.tied_P.tolist()) == ([1], [0])


def test_no_queries():
    got = metrics_of_ranks(rank_of_positives([], ragged([])), [3])
    assert (got.groups, got.skipped) == (0, 0) and np.isnan(got.ndcg[3])


ONES = np.ones((2, 4))
TWO = ragged([[1], [2]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rank_of_positives([ONES], ragged([[1], [4]])), r"positive items in 0 .. 3, got 4 in query 1"),
        (lambda: rank_of_positives([ONES], TWO, ragged([[-1], []])), r"excluded items in 0 .. 3, got -1 in query 0"),
        (lambda: rank_of_positives([ONES], TWO, ragged([[0]])), r"for every query \(2\), got those of 1"),
        (lambda: rank_of_positives([ONES, ONES], TWO), "scores of 2 queries, got 4 or more"),
        (lambda: rank_of_positives([ONES[:1]], TWO), "scores of 2 queries, got 1"),
        (lambda: rank_of_positives([ONES[:1], ONES[:1] * np.nan], TWO), "every item, got nan in query 1"),
        (lambda: rank_of_positives([ONES], ragged([[1], [3, 3]])), "item 3 twice in query 1"),
        (lambda: rank_of_positives([ONES.astype(int)], TWO), r"float scores \[queries, items\], got int64"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
