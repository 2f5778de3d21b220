"""Scalers: what they compute, and that nothing depends on how the rows came."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.data import scalers as module
from fullrank.data.columns import Ragged
from fullrank.data.keys import splitmix64
from fullrank.data.normalised import Normalised
from fullrank.data.scalers import ScalerFitter, Scalers, ScalersFitter
from fullrank.schema import EventFeature, Feature, History, Roles, Schema

NAN = np.float32(np.nan)
float32s = st.floats(width=32, allow_nan=False, allow_infinity=False)


def fit(scale, values, chunks=1, order=None):
    values = np.asarray(values, dtype=np.float32)
    hashes = splitmix64(np.arange(len(values), dtype=np.uint64))
    order = np.arange(len(values)) if order is None else order
    fitter = ScalerFitter(scale)
    for part in np.array_split(order, chunks):
        fitter.add(values[part], hashes[part])
    return fitter.finish()


@given(st.lists(st.one_of(st.just(float("nan")), float32s), max_size=30), st.integers(1, 5), st.randoms())
@settings(max_examples=60, deadline=None)
def test_fitting_knows_neither_order_nor_chunks(values, chunks, random):
    order = list(range(len(values)))
    random.shuffle(order)
    for scale in ("standard", "log", "quantile"):
        assert fit(scale, values) == fit(scale, values, chunks, np.array(order, dtype=np.int64))


def test_moments_are_those_of_numpy():
    values = np.random.default_rng(0).normal(3, 2, 10_000).astype(np.float32)
    scaler = fit("standard", values, 7)
    assert scaler.mean == pytest.approx(values.mean(dtype=np.float64), rel=1e-14)
    assert scaler.sd == pytest.approx(values.std(dtype=np.float64), rel=1e-12)
    scaled = scaler.apply(values)
    assert (
        scaled.dtype == np.float32
        and abs(scaled.mean()) < 1e-6
        and scaled.std() == pytest.approx(1, abs=1e-6)
    )


def test_moments_where_floats_would_lose_everything():
    scaler = fit("standard", [3e38, 1.0, -3e38, 1e-45])
    assert scaler.mean == (1.0 + float(np.float32(1e-45))) / 4
    far = np.float32(2**24) + np.arange(4, dtype=np.float32) * 2
    assert fit("standard", far).sd == pytest.approx(5**0.5)


def test_log_scales_the_symmetric_logarithm():
    values = np.array([-7, 0, 7, 1e6], dtype=np.float32)
    z = np.sign(values) * np.log1p(np.abs(values.astype(np.float64)))
    np.testing.assert_allclose(
        fit("log", values).apply(values), (z - z.mean()) / z.std(), rtol=1e-6, atol=1e-7
    )


def test_quantile_levels_are_the_share_below():
    values = np.random.default_rng(1).exponential(size=5_000).astype(np.float32)
    scaled = fit("quantile", values).apply(values)
    rank = np.argsort(np.argsort(values)) / (len(values) - 1)
    assert np.abs(scaled - rank).max() < 2e-3 and scaled.min() == 0 and scaled.max() == 1
    ties = np.array([1, 2, 2, 2, 3], dtype=np.float32)
    assert fit("quantile", ties).apply(ties).tolist() == [0, 0.5, 0.5, 0.5, 1]
    assert fit("quantile", ties).apply(np.array([-9, 9], np.float32)).tolist() == [0, 1]


def test_quantiles_of_more_values_than_the_sample_keeps(monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 2_000)
    values = np.random.default_rng(2).normal(size=30_000).astype(np.float32)
    scaler = fit("quantile", values, 11)
    assert scaler == fit("quantile", values, 3, np.random.default_rng(3).permutation(len(values)))
    rank = np.argsort(np.argsort(values)) / (len(values) - 1)
    assert np.abs(scaler.apply(values) - rank).max() < 0.05


@pytest.mark.parametrize("scale", ["none", "standard", "log", "quantile"])
def test_constant_missing_and_absent_columns(scale):
    constant = fit(scale, [5.0, 5.0, NAN]).apply(np.array([5.0, NAN], np.float32))
    assert constant[0] == {"none": 5.0, "standard": 0.0, "log": 0.0, "quantile": 0.5}[scale] and np.isnan(
        constant[1]
    )
    for values in ([], [NAN, NAN]):
        assert fit(scale, values).apply(np.array([3.5], np.float32)).tolist() == [3.5]
    assert fit(scale, [1.0]).apply(np.empty(0, np.float32)).tolist() == []


SCHEMA = Schema(
    roles=Roles(user="u", time="t", item="i"),
    features=(Feature(name="x", kind="numeric"), Feature(name="c", kind="categorical")),
    histories=(
        History(name="in", layout="inline", item="l", features=(EventFeature(name="r", kind="numeric"),)),
        History(name="log", where="w", features=(EventFeature(name="r", kind="numeric"),)),
        History(name="file", source="file", features=(EventFeature(name="r", kind="numeric"),)),
    ),
)


def test_every_numeric_column_of_a_schema():
    fitter = ScalersFitter(SCHEMA)
    columns = {
        "x": np.array([1, 3], np.float32),
        "@history.in.r": Ragged(np.array([2, 4, 9], np.float32), np.array([0, 3, 3])),
        "@history.log.r": np.array([7, 100], np.float32),
        "@history.log.where": np.array([True, False]),
    }
    fitter.add(Normalised(2, columns), np.array([4, 5]))
    fitter.add_events("file", Normalised(1, {"r": np.array([11], np.float32)}), np.array([0]))
    scalers = fitter.finish()
    means = {name: scaler.mean for name, scaler in scalers.by_name.items()}
    assert means == {"x": 2, "@history.in.r": 5, "@history.log.r": 7, "@history.file.r": 11}
    assert scalers.apply("x", np.array([3], np.float32)).tolist() == [1]


@given(st.lists(float32s, min_size=1, max_size=20))
@settings(max_examples=30, deadline=None)
def test_json_is_exact(values):
    scalers = Scalers({scale: fit(scale, values) for scale in ("none", "standard", "log", "quantile")})
    assert Scalers.from_json(json.loads(json.dumps(scalers.to_json()))) == scalers


def test_save_and_load(tmp_path):
    scalers = Scalers({"x": fit("standard", [0.1, 0.2, 0.7])})
    scalers.save(tmp_path / "scalers.json")
    assert Scalers.load(tmp_path / "scalers.json") == scalers
