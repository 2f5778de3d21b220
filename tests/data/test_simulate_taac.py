import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

from fullrank.data.normalise import Origin, normalise, normalise_events
from fullrank.data.readers.tabular import columns_read
from fullrank.data.simulate_taac import SMALL_SHAPE, TaacShape, write

MAX_LENGTH = 7


def table(source) -> pa.Table:
    return pa.Table.from_batches([chunk.records for chunk in source.chunks()])


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write(tmp_path_factory.mktemp("taac"), 600, items=50, max_length=MAX_LENGTH, events_per_user=20)


def test_inline_lists_are_exactly_the_newest_past_events_of_the_files(written):
    inline, by_user = written
    rows = table(inline).to_pylist()
    seen = {"cut": 0, "empty": 0, "same time as the row": 0, "two of one time": 0}
    for domain in SMALL_SHAPE.domains:
        events = table(by_user.events[domain.prefix]).to_pylist()
        of_user: dict[int, list[dict]] = {}
        for event in events:
            of_user.setdefault(event["user_id"], []).append(event)
        when = f"{domain.prefix}_{domain.time}"
        for row in rows:
            every = of_user.get(row["user_id"], [])
            past = sorted((event for event in every if event[when] < row["timestamp"]), key=lambda event: event[when])
            expected = past[-MAX_LENGTH:]
            for name in (when, *(f"{domain.prefix}_{number}" for number, _ in domain.features)):
                assert row[name] == [event[name] for event in expected]
            seen["cut"] += len(past) > MAX_LENGTH
            seen["empty"] += not past
            seen["same time as the row"] += any(event[when] == row["timestamp"] for event in every)
            seen["two of one time"] += len({event[when] for event in expected}) < len(expected)
    assert all(count > 5 for count in seen.values()), seen


def test_both_layouts_have_the_same_rows(written):
    inline, by_user = written
    rows = table(by_user)
    assert rows.num_rows == 600
    assert table(inline).select(rows.column_names).equals(rows)
    assert not [name for name in rows.column_names if name.startswith("domain_")]
    assert [f.name for f in inline.schema.features] == [f.name for f in by_user.schema.features]
    assert 0 < sum(rows["conversion"].to_pylist()) < 300


@pytest.mark.parametrize("layout", [0, 1])
def test_records_are_what_their_schemas_say(written, layout):
    source = written[layout]
    for chunk in source.chunks():
        assert normalise(source.schema, chunk.records, Origin(chunk.file)).num_rows == chunk.records.num_rows
    for history in source.schema.histories:
        if history.source == "file":
            for chunk in source.events[history.name].chunks():
                events = normalise_events(source.schema, history, chunk.records, Origin(chunk.file))
                assert {"@user", "item", "time"} < set(events.columns)


def test_dense_numbers_of_a_list_are_its_weights_and_others_are_vectors(written):
    schema = written[0].schema
    assert schema.feature("user_int_feats_62").weights == "user_dense_feats_62"
    assert schema.feature("user_dense_feats_61").dim == 16
    assert schema.feature("user_int_feats_15").kind == "multi" and not schema.feature("user_int_feats_15").weights
    for row in table(written[0]).to_pylist():
        assert len(row["user_int_feats_62"]) == len(row["user_dense_feats_62"]) <= 5


def test_columns_of_users_and_items_follow_their_id(written):
    rows = table(written[1]).to_pylist()
    for key, name in (("user_id", "user_int_feats_15"), ("item_id", "item_int_feats_11")):
        values: dict[int, set] = {}
        for row in rows:
            values.setdefault(row[key], set()).add(tuple(row[name]))
        assert all(len(found) == 1 for found in values.values()) and len({v for s in values.values() for v in s}) > 10


def test_seed_and_cap(tmp_path):
    first = write(tmp_path / "a", 50, max_values=3)
    assert table(first[0]).equals(table(write(tmp_path / "b", 50, max_values=3)[0]))
    assert not table(first[0]).equals(table(write(tmp_path / "c", 50, max_values=3, seed=1)[0]))
    values = {v for row in table(first[0]).to_pylist() for v in row["domain_a_seq_38"] if v is not None}
    assert values <= {1, 2, 3}


def test_a_file_that_is_no_shape_is_named(tmp_path):
    (tmp_path / "shape.json").write_text(json.dumps({"user_int": []}))
    with pytest.raises(ValueError, match=r"shape\.json: expected a TAAC-2026 schema .* got KeyError\('seq'\)"):
        TaacShape.read(tmp_path / "shape.json")


def test_the_contests_own_shape(tmp_path):
    path = Path(os.environ.get("FULLRANK_DATA") or "nowhere") / "taac_schema_only/taac2026_sample_1000_raw.schema.json"
    if not path.is_file():
        pytest.skip("the TAAC-2026 schema is not in $FULLRANK_DATA")
    inline, by_user = write(tmp_path, 100, shape=TaacShape.read(path))
    names = table(inline).column_names
    assert sum(name.startswith("user_int_feats_") for name in names) == 46
    assert sum(name.startswith("item_int_feats_") for name in names) == 14
    assert sum(name.startswith("user_dense_feats_") for name in names) == 10
    assert [sum(name.startswith(f"domain_{d}_seq_") for name in names) for d in "abcd"] == [9, 14, 12, 10]
    assert set(columns_read(inline.schema)) == set(names)
    assert [h.key_space for h in by_user.schema.histories] == [
        "domain_a_seq_38", "domain_b_seq_69", "domain_c_seq_47", "domain_d_seq_23",
    ]  # fmt: skip
    weighted = [f.name for f in inline.schema.features if f.weights]
    assert weighted == [f"user_int_feats_{number}" for number in (62, 63, 64, 65, 66, 89, 90, 91)]
    assert {f.name: f.dim for f in inline.schema.features if f.kind == "vector"} == {
        "user_dense_feats_61": 256, "user_dense_feats_87": 320,
    }  # fmt: skip
