"""Records that lack columns, made whole."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from test_transform import SCHEMA, click_store, fit, records

from fullrank.data.ask import asking, candidates_of, complete, requests_of
from fullrank.data.inputs import Inputs

INPUTS = Inputs.of(SCHEMA)


def test_an_asking_schema_has_no_labels_and_only_what_the_model_reads() -> None:
    transform, _ = fit(SCHEMA, records())
    less = asking(transform, Inputs.of(SCHEMA, exclude=("city", "inline", "brand"))).schema
    assert less.tasks == () and not less.roles.weight and not less.roles.position
    names = [feature.name for feature in less.features]
    assert "city" not in names and "title" not in names and [h.name for h in less.histories] == ["clicks"]
    assert [space.name for space in less.key_spaces] == []  # those of brand and of the inline history's actions


def test_what_is_there_stays_and_what_is_not_is_missing() -> None:
    transform, rows = fit(SCHEMA, whole := records())
    ask = asking(transform, INPUTS)
    made = complete(ask.schema, whole, now=7)
    assert made.absent == () and made.records.equals(whole.select(made.records.schema.names))
    absent = [name for name in made.records.schema.names if name not in ("u", "imp")]
    bare = complete(ask.schema, whole.select(["u"]), now=7)
    assert sorted(bare.absent) == sorted(absent)
    assert bare.records.schema.names == [name for name in made.records.schema.names if name != "imp"]
    block, sources = ask.read(bare.records, INPUTS, events={"clicks": click_store(transform, rows)})
    assert set(block.requests["@time"]) == {7} and set(block.rows["item"]) == {1}
    assert np.isnan(block.requests["age"]).all() and np.isnan(block.requests["dense"]).all()
    assert len(sources[0].columns["item"]) == 0


def test_parts_of_a_list_may_be_absent() -> None:
    transform, rows = fit(SCHEMA, whole := records())
    ask, events = asking(transform, INPUTS), {"clicks": click_store(transform, rows)}
    block, sources = ask.read(whole, INPUTS, events=events)
    less, fewer = ask.read(
        complete(ask.schema, whole.drop_columns(["stars", "act", "liked", "tw"]), 0).records, INPUTS, events=events
    )
    assert (fewer[0].columns["item"] == sources[0].columns["item"]).all()
    assert np.isnan(fewer[0].columns["stars"]).all() and set(fewer[0].columns["act"]) == {1}
    assert set(less.requests["tags@weights"].values) == {1.0}
    assert less.requests["tags"].values.tolist() == block.requests["tags"].values.tolist()
    texts = whole.drop_columns(["stars", "hi"]).append_column(
        "hi", pa.array(["[" + ",".join(f'"{key}"' for key in one) + "]" for one in whole.column("hi").to_pylist()])
    )
    _, spelled = ask.read(complete(ask.schema, texts, 0).records, INPUTS, events=events)
    assert (spelled[0].columns["item"] == sources[0].columns["item"]).all()
    timeless = complete(ask.schema, whole.drop_columns(["ht"]), 0)
    assert timeless.absent == ("ht",) and timeless.records.column("hi").null_count == whole.num_rows


def test_the_two_halves_are_the_batch() -> None:
    transform, rows = fit(SCHEMA, whole := records())
    ask, events = asking(transform, INPUTS), {"clicks": click_store(transform, rows)}
    expected = transform.apply(whole, INPUTS, events=events)
    block, sources = ask.read(whole, INPUTS, events=events)
    requests = requests_of(block, INPUTS, sources=sources, items=transform.items, views={})
    candidates = candidates_of(block.rows, block.rows["@request"], INPUTS, views={})
    np.testing.assert_array_equal(requests.features.ids_nF, expected.requests.features.ids_nF)
    np.testing.assert_array_equal(requests.histories[0].events.ids_nF, expected.requests.histories[0].events.ids_nF)
    np.testing.assert_array_equal(requests.time_R, expected.requests.time_R)
    np.testing.assert_array_equal(candidates.features.ids_nF, expected.candidates.features.ids_nF)
    np.testing.assert_array_equal(candidates.request_of_row_B, expected.candidates.request_of_row_B)
    part = candidates_of({n: c[:5] for n, c in block.rows.items() if isinstance(c, np.ndarray)} | {
        "genres": block.rows["genres"].take(np.arange(5))
    }, np.array([0, 0, 1, 1, 1]), INPUTS, views={})
    np.testing.assert_array_equal(part.features.numbers_nF, expected.candidates.features.numbers_nF[:5])
    assert part.request_of_row_B.tolist() == [0, 0, 1, 1, 1]


def test_a_list_that_is_none_is_an_error_of_its_own_column() -> None:
    transform, _ = fit(SCHEMA, whole := records())
    ask = asking(transform, INPUTS)
    wrong = whole.drop_columns(["tags", "tw"]).append_column("tags", pa.array([3] * whole.num_rows))
    with pytest.raises(ValueError, match="column 'tags' has type int64; expected lists"):
        ask.read(complete(ask.schema, wrong, 0).records, INPUTS, events={})
