"""What users saw and clicked before acts on them as said, and what comes later does not."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullrank.data.simulate import Auction, Effects, SimulatedLog, SimulatorConfig
from fullrank.data.simulate_effects import interaction
from fullrank.data.simulate_past import DECAY, TIRING, affinity_vectors, rounds

PAST = Effects(additive=0.5, sequence=2.0, last_event=1.5, repeated_exposure=1.0, position=0.2)
CONFIG = SimulatorConfig(
    rows=2_503, users=40, ads=120, campaigns=20, categories=5, days=3, slots=3, click=PAST, click_logit=-1.0, seed=5
)


def table(log: SimulatedLog) -> pa.Table:
    return pa.Table.from_batches([chunk.records for chunk in log.chunks()])


def of_log(log: SimulatedLog, task: str = "click") -> dict[str, np.ndarray]:
    parts = list(log.contributions(task))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_the_past_is_that_of_the_log_row_by_row():
    """By a loop over the rows of the log as it was written, in their order, that has no state but what it has read."""
    rows = table(SimulatedLog(CONFIG)).to_pylist()
    vectors = affinity_vectors(CONFIG.seed, 5).astype(float)
    after = interaction(CONFIG.seed, "last event", 5, 5)
    found = of_log(SimulatedLog(CONFIG))
    seen: list[dict] = []
    for i, row in enumerate(rows):
        if i and rows[i - 1]["request"] != row["request"]:
            seen = rows[:i]
        mine = [other for other in seen if other["user"] == row["user"]]
        category = int(row["category"][-4:])
        clicked = [int(other["category"][-4:]) for other in mine if other["click"]]
        weights = (1 - DECAY) * DECAY ** np.arange(len(clicked))[::-1]
        mean = (weights[:, None] * vectors[clicked]).sum(axis=0) @ vectors[category] if clicked else 0.0
        kinds = [int(o["category"][-4:]) for o in mine if o["click"] and o["format"] == row["format"]]
        count = sum(other["category"] == row["category"] for other in mine)
        assert found["sequence"][i] == pytest.approx(mean, abs=1e-4), i
        assert found["last_event"][i] == pytest.approx(after[kinds[-1], category] if kinds else 0.0, abs=1e-5), i
        assert found["repeated_exposure"][i] == pytest.approx(-count / (count + TIRING), abs=1e-6), i
    assert min(np.abs(found[name]).max() for name in ("sequence", "last_event")) > 0.5
    assert found["repeated_exposure"].min() < -0.7


def test_the_past_acts_on_the_second_task_as_strongly_as_said():
    config = replace(CONFIG, conversion=Effects(sequence=1.5))
    rows = table(SimulatedLog(config))
    click, conversion = of_log(SimulatedLog(config)), of_log(SimulatedLog(config), "conversion")
    assert set(conversion) == {"sequence"} and np.array_equal(click["sequence"], conversion["sequence"])
    given_click = rows["p_conversion"].to_numpy() / rows["p_click"].to_numpy()
    logit = np.log(given_click / (1 - given_click))
    assert np.allclose(logit, -1.5 + 1.5 * conversion["sequence"], atol=1e-6)
    only_second = replace(config, click=Effects(additive=0.5))
    assert only_second.remembers() and np.abs(of_log(SimulatedLog(only_second), "conversion")["sequence"]).max() > 0.5


@pytest.mark.parametrize("auction", [Auction(), Auction(bidders=4, budget=3.0, settle_requests=50)])
def test_a_log_with_a_memory_is_the_same_however_it_is_read(auction):
    """Whole, day by day in any order, or shuffled: the same rows, bit by bit."""
    config = replace(CONFIG, auction=auction)
    whole = table(SimulatedLog(config))
    day = whole["time"].to_numpy() // 86_400
    log = SimulatedLog(config)
    for number in (2, 0, 1, 2):
        part = whole.filter(pa.array(day == day[0] + number))
        for one in (log.day(number), SimulatedLog(config, number)):
            today = table(one)
            for name in set(whole.column_names) - {"conversion", "conversion_time"}:
                assert today[name].equals(part[name]), name
    shuffled = SimulatedLog(replace(config, sorted_by_time=False))
    first, again = table(shuffled), table(shuffled)
    assert first.equals(again) and not first["request"].equals(whole["request"])
    assert first.sort_by("impression").equals(whole)
    assert table(shuffled.day(1)).sort_by("impression")["p_click"].equals(table(log.day(1))["p_click"])


def test_only_effects_of_the_past_make_a_log_remember():
    assert CONFIG.remembers() and SimulatorConfig().remembers()
    for name in ("sequence", "last_event", "repeated_exposure"):
        alone = replace(CONFIG, click=Effects(**{name: 1.0}), conversion=Effects())
        assert alone.remembers() and set(of_log(SimulatedLog(alone))) == {name}
    assert not replace(CONFIG, click=Effects(fm=1.0, position=1.0), conversion=Effects(gated=1.0)).remembers()


@given(st.lists(st.integers(0, 6)))
def test_rounds_hold_every_place_once_every_user_once_a_round_in_the_users_order(users):
    user = np.array(users, dtype=np.int64)
    parts = rounds(user)
    assert sorted(np.concatenate([*parts, np.zeros(0, int)]).tolist()) == list(range(len(users)))
    turn = {int(place): number for number, part in enumerate(parts) for place in part}
    for part in parts:
        assert len(part) and len(set(user[part].tolist())) == len(part)
        assert (np.diff(part) > 0).all()
    for key in set(users):
        turns = [turn[place] for place in np.flatnonzero(user == key)]
        assert turns == list(range(len(turns)))


def test_showings_are_counted_to_the_end_of_the_counter_and_stay_there():
    from fullrank.data.simulate_past import Past

    past = Past(0, 1, 2, frozenset({"repeated_exposure"}))
    past.shown_UC[0] = np.iinfo(np.uint16).max - 1
    column = np.zeros((3, 1), dtype=np.int64)
    past.go(np.zeros(3, int), column, column, column * 0.0, column * 0.0, column + 2.0, Effects())
    assert past.shown_UC.tolist() == [[65_535, 65_534]]


def test_affinity_is_of_mean_nought_and_deviation_one():
    vectors = affinity_vectors(3, 12).astype(float)
    affinity = vectors @ vectors.T
    assert np.abs(affinity.mean(axis=0)).max() < 1e-5 and affinity.std() == pytest.approx(1.0, abs=1e-5)
    assert np.diag(affinity).min() > 0
