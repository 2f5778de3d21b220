"""Each planted effect is where its docstring says, and nowhere else."""

from dataclasses import asdict, replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.data.simulate import Effects, SimulatedLog, SimulatorConfig
from fullrank.data.simulate_config import PAST
from fullrank.data.simulate_effects import (
    RANK,
    STATIC,
    Pairs,
    StaticEffects,
    ad_latents,
    ad_vectors,
    interaction,
    turned,
)
from fullrank.data.simulate_world import DEVICES, FORMATS, SEGMENTS

ALL = Effects(**{name: 1.0 for name in asdict(Effects())})
# every category has as many ads as any other in every slot's class, so that uniform slots are uniform over categories
WORLD = SimulatorConfig(
    rows=6_000,
    users=200,
    ads=240,
    campaigns=20,
    categories=5,
    days=3,
    slots=3,
    new_keys_per_day=0.0,
    explore=1.0,
    click=ALL,
    conversion=ALL,
)
INTERACTIONS = ("fm", "three_way", "gated", "time_of_day")


def all_pairs(config: SimulatorConfig, day: int = 0, scenario: int = 0) -> Pairs:
    """Every combination of segment, category, device, format and hour once."""
    sizes = (SEGMENTS, config.categories, DEVICES, FORMATS, 24)
    segment, category, device, kind, hour = (axis.ravel() for axis in np.indices(sizes))
    n = len(segment)
    return Pairs(
        segment=segment,
        age=np.full(n, 40.0),
        user_effect_n2=np.zeros((n, 2)),
        device=device,
        hour=hour,
        day=np.full(n, day),
        scenario=np.full(n, scenario),
        ad=np.zeros(n, dtype=int),
        category=category,
        format=kind,
        price=np.full(n, np.nan),
        match=np.zeros(n),
    )


def contributions(config: SimulatorConfig, task: str = "click", **where: int) -> dict[str, np.ndarray]:
    return StaticEffects(config, task, config.ads).contributions(all_pairs(config, **where))


def of_log(log: SimulatedLog, task: str = "click") -> dict[str, np.ndarray]:
    parts = list(log.contributions(task))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def means_by(values: np.ndarray, *fields: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and number of rows in each combination of the fields' values."""
    _, group = np.unique(np.stack(fields), axis=1, return_inverse=True)
    count = np.bincount(group.ravel())
    return np.bincount(group.ravel(), weights=values) / count, count


@settings(max_examples=30)
@given(st.integers(0, 99), st.lists(st.integers(2, 9), min_size=1, max_size=3))
def test_an_interaction_has_no_part_that_fewer_fields_could_express(seed, shape):
    table = interaction(seed, "x", *shape)
    assert table.shape == tuple(shape) and table.std() == pytest.approx(1.0)
    for axis in range(len(shape)):
        assert np.abs(table.mean(axis=axis)).max() < 1e-12
    assert not interaction(seed, "x", *shape, 1).any()


@given(st.floats(0, np.pi), st.integers(0, 50))
def test_a_turned_table_has_the_cosine_as_correlation(angle, seed):
    first = interaction(seed, "a", 6, 7)
    other = turned(first, interaction(seed, "b", 6, 7), angle)
    assert (first * other).mean() == pytest.approx(np.cos(angle), abs=1e-9)
    assert other.std() == pytest.approx(1.0)


def test_strength_one_is_a_standard_deviation_of_one():
    found = contributions(replace(WORLD, drift=0.0))
    for name in ("fm", "three_way", "time_of_day"):
        assert found[name].std() == pytest.approx(1.0, abs=1e-9), name
    assert found["gated"].std() == pytest.approx(1.0, abs=1e-9)
    log = of_log(SimulatedLog(replace(WORLD, users=3_000, ads=2_400, campaigns=200, rows=60_000)))
    for name in ("additive", "item_taste"):
        assert log[name].std() == pytest.approx(1.0, abs=0.15), name


def test_which_fields_tell_of_an_effect_and_which_do_not():
    pairs, found = all_pairs(WORLD), contributions(replace(WORLD, drift=0.0))
    fields = {name: getattr(pairs, name) for name in ("segment", "category", "device", "format", "hour")}
    for name in INTERACTIONS:
        for field in fields:  # no main effects at all
            assert np.abs(means_by(found[name], fields[field])[0]).max() < 1e-9, (name, field)
    tells = {
        "fm": {("segment", "category"), ("device", "format")},
        "three_way": set(),
        "gated": {("segment", "category"), ("segment", "format"), ("category", "format")},
        "time_of_day": {("category", "hour")},
    }
    for name, telling in tells.items():
        for pair in combinations(fields, 2):
            most = np.abs(means_by(found[name], *(fields[field] for field in pair))[0]).max()
            assert (most > 0.05) == (pair in telling), (name, pair, most)
            assert most > 0.05 or most < 1e-9
    device, category, kind = fields["device"], fields["category"], fields["format"]
    cell = (category == 1) & (kind == 2)  # on the third device category × format counts, whatever the segment
    assert np.ptp(found["gated"][cell & (device == 2)]) < 1e-12 and np.ptp(found["gated"][cell & (device != 2)]) > 0.1


def test_the_marginal_effects_of_three_fields_are_nought_in_the_log():
    log = SimulatedLog(replace(WORLD, rows=90_000, users=2_000))
    rows = [part.pairs for part in log.rows()]
    triple = of_log(log)["three_way"]
    fields = {n: np.concatenate([getattr(p, n) for p in rows]) for n in ("segment", "category", "device")}
    for names in [("segment",), ("category",), ("device",), *combinations(fields, 2)]:
        mean, count = means_by(triple, *(fields[name] for name in names))
        requests = count / WORLD.slots  # the rows of a request share segment and device
        z = mean / (triple.std() / np.sqrt(requests))
        assert np.abs(z).max() < 4.5, names
    whole, _ = means_by(triple, *fields.values())
    assert np.abs(whole).max() > 1.0


@pytest.mark.parametrize("absent", [*STATIC, *PAST, "position"])
def test_removing_an_effect_leaves_the_others_as_they_were(absent):
    """Of effects of the past, fatigue stays too (what is shown does not depend on clicks); what was clicked changes."""
    whole = of_log(SimulatedLog(WORLD))
    without = of_log(SimulatedLog(replace(WORLD, click=replace(ALL, **{absent: 0.0}))))
    assert set(whole) - set(without) == {absent} - {"position"}
    for name in without:
        if name not in ("sequence", "last_event"):
            assert np.array_equal(whole[name], without[name]), name


@pytest.mark.parametrize("conflict", [0.0, 0.25, 0.5, 0.8, 1.0])
def test_task_conflict_turns_one_task_against_the_other(conflict):
    config = replace(WORLD, task_conflict=conflict)
    click, conversion = contributions(config, "click"), contributions(config, "conversion")
    for name in INTERACTIONS:
        assert np.corrcoef(click[name], conversion[name])[0, 1] == pytest.approx(np.cos(np.pi * conflict), abs=1e-6)
    large = SimulatedLog(replace(config, users=4_000, ads=2_400, campaigns=200, rows=30_000))
    click, conversion = of_log(large, "click"), of_log(large, "conversion")
    for name in ("additive", "item_taste"):
        found = np.corrcoef(click[name], conversion[name])[0, 1]
        assert found == pytest.approx(np.cos(np.pi * conflict), abs=0.2), name
    assert np.array_equal(click["match"], conversion["match"])


def test_taste_turns_with_drift_and_keeps_its_spread():
    config = replace(WORLD, categories=200, campaigns=200, ads=600, drift=0.2)
    effects, (segment, category) = StaticEffects(config, "click", 600), np.indices((SEGMENTS, 200))
    none = np.zeros_like(segment)
    taste = [effects.taste(none + day, none, segment, category).ravel() for day in range(8)]
    against_first = [np.corrcoef(taste[0], later)[0, 1] for later in taste]
    assert np.allclose(against_first, np.cos(0.2 * np.arange(8)), atol=0.15)
    assert all(abs(part.std() - 1) < 0.15 for part in taste)
    still = StaticEffects(replace(config, drift=0.0), "click", 600)
    assert np.array_equal(still.taste(none + 7, none, segment, category).ravel(), taste[0])


def test_scenarios_share_a_part_have_their_own_and_differ_in_their_base_rates():
    categories = 400
    config = replace(WORLD, scenarios=3, scenario_own=0.4, categories=categories, campaigns=400, ads=1_200)
    effects, (segment, category) = StaticEffects(config, "click", 1_200), np.indices((SEGMENTS, categories))
    none = np.zeros_like(segment)
    tastes = np.stack([effects.taste(none, none + scenario, segment, category).ravel() for scenario in range(3)])
    between = np.corrcoef(tastes)[np.triu_indices(3, 1)]
    assert np.abs(between - 0.6).max() < 0.2
    same = StaticEffects(replace(config, scenario_own=0.0), "click", 1_200)
    assert np.array_equal(same.taste(none, none, segment, category), same.taste(none, none + 2, segment, category))

    rates = replace(WORLD, rows=60_000, scenarios=3, click=Effects(), conversion=Effects())
    logit = np.concatenate([rows.p_click for rows in SimulatedLog(rates).rows()])
    scenario = np.concatenate([rows.pairs.scenario for rows in SimulatedLog(rates).rows()])
    assert all(len(np.unique(logit[scenario == s])) == 1 for s in range(3)) and len(np.unique(logit)) == 3
    shares = np.bincount(scenario) / len(scenario)
    assert np.allclose(shares, np.array([6, 3, 2]) / 11, atol=4.5 * 0.5 / np.sqrt(20_000))


def test_vectors_are_a_noisy_linear_map_of_what_ads_are_like():
    ad = np.arange(2_000)
    latents = ad_latents(0, "click", ad)
    exact = ad_vectors(replace(WORLD, vector_dim=16, vector_noise=0.0), ad)
    assert np.linalg.matrix_rank(exact, tol=1e-3) == RANK and exact.dtype == np.float32
    noisy = ad_vectors(replace(WORLD, vector_dim=16, vector_noise=0.5), ad)
    for vectors, noise in ((exact, 0.0), (noisy, 0.5)):
        fitted = latents @ np.linalg.lstsq(latents, vectors, rcond=None)[0]
        assert (vectors - fitted).std() == pytest.approx(noise, abs=4.5 * 0.5 / np.sqrt(2 * vectors.size) + 1e-5)
    assert np.array_equal(ad_vectors(replace(WORLD, vector_dim=16), ad[5:9]), noisy[5:9])


def test_the_main_effects_of_the_first_task_are_linear_in_age_and_log_price():
    pairs = all_pairs(WORLD)
    n = len(pairs.age)
    random = np.random.default_rng(0)
    pairs = replace(pairs, age=random.uniform(18, 70, n), price=np.exp(random.normal(3, 1, n)))
    found = StaticEffects(WORLD, "click", WORLD.ads).contributions(pairs)["additive"]
    one_hot = [np.eye(count)[getattr(pairs, name)] for name, count in (("device", 3), ("format", 4), ("hour", 24))]
    design = np.column_stack([*one_hot, pairs.age, np.log(pairs.price)])
    residual = found - design @ np.linalg.lstsq(design, found, rcond=None)[0]
    assert np.abs(residual).max() < 1e-9 and found.std() > 0.3
