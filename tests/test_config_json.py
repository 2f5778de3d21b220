import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullrank import schema
from fullrank.config_json import ConfigError, decode, dumps, encode, loads


@dataclass(frozen=True, kw_only=True)
class Adam:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True, kw_only=True)
class Adagrad:
    lr: float = 0.02


class Ranker:
    @dataclass(frozen=True, kw_only=True)
    class Config:
        width: int
        mode: Literal["field", "chunk"] = "field"
        hidden: tuple[int, ...] = (64, 32)
        optimizer: Adam | Adagrad = field(default_factory=Adam)
        head: Adam | None = None
        clip: float | None = None
        rows: dict[str, int] = field(default_factory=dict)
        bias: bool = True
        note: str = ""
        raw: Any = None


configs = st.builds(
    Ranker.Config,
    width=st.integers(-(2**63), 2**63),
    mode=st.sampled_from(["field", "chunk"]),
    hidden=st.lists(st.integers()).map(tuple),
    optimizer=st.builds(Adam, lr=st.floats(allow_nan=False, allow_infinity=False)) | st.builds(Adagrad),
    head=st.none() | st.builds(Adam),
    clip=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    rows=st.dictionaries(st.text(), st.integers()),
    bias=st.booleans(),
    note=st.text(),
    raw=st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=4,
    ),
)


@given(configs)
def test_what_is_read_is_what_was_written(config):
    again = loads(Ranker.Config, dumps(config))
    assert again == config
    for f in fields(config):
        assert type(getattr(again, f.name)) is type(getattr(config, f.name))


def test_a_whole_schema_survives():
    whole = schema.Schema(
        roles=schema.Roles(user="uid", item="iid", time="ts", scenario="page"),
        features=(schema.Feature(name="genres", kind="multi", of="item"),),
        histories=(schema.History(name="seen", outcomes=(schema.EventOutcome(name="liked", window=60),)),),
        tasks=(schema.Task(name="click"), schema.Task(name="buy", parent="click", scenarios=("home",))),
    )
    assert loads(schema.Schema, dumps(whole)) == whole


def test_a_field_added_later_takes_its_default():
    assert decode(Ranker.Config, {"width": 3}) == Ranker.Config(width=3)


def test_a_whole_number_is_a_number_and_becomes_one():
    clip = decode(Ranker.Config, {"width": 3, "clip": 1}).clip
    assert clip == 1.0 and type(clip) is float


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"width": 3, "hiden": []}, "run.json.config has no 'hiden'; .*Did you mean 'hidden'"),
        ({}, r"Expected run.json.config to have 'width', got only \[\]"),
        ({"width": True}, r"Expected run.json.config.width to be a whole number, got True"),
        ({"width": 3.0}, r"width to be a whole number, got 3.0"),
        ({"width": 3, "mode": "chunks"}, "mode to be one of 'field', 'chunk', got 'chunks'. Did you mean 'chunk'"),
        ({"width": 3, "hidden": [1, "2"]}, r"hidden\[1\] to be a whole number, got '2'"),
        ({"width": 3, "hidden": 5}, "hidden to be a list, got 5"),
        ({"width": 3, "optimizer": {"lr": 1.0}}, r"optimizer to have a 'type' of \['Adam', 'Adagrad'\], got None"),
        ({"width": 3, "optimizer": {"type": "Adams"}}, "got 'Adams'. Did you mean 'Adam'"),
        ({"width": 3, "optimizer": {"type": "Adam", "betas": [0.5]}}, "betas to have 2 members, got 1"),
        ({"width": 3, "optimizer": None}, r"optimizer to be an object \(Adam\) or an object \(Adagrad\), got None"),
        ({"width": 3, "clip": "1"}, "clip to be a number or null, got '1'"),
        ({"width": 3, "rows": {"item": None}}, r"rows\['item'\] to be a whole number, got None"),
        ([], r"Expected run.json.config to be an object \(Config\), got \[\]"),
    ],
)  # fmt: skip
def test_an_error_names_the_place(stored, message):
    with pytest.raises(ConfigError, match=message):
        decode(Ranker.Config, stored, "run.json.config")


def test_what_cannot_be_stored_is_refused_when_written():
    wrong: Any = [3]
    with pytest.raises(ConfigError, match=r"Config.hidden to be a list, got \[3\]"):
        encode(Ranker.Config(width=1, hidden=wrong))
    with pytest.raises(ConfigError, match=r"Config.clip to be a finite number, got inf"):
        encode(Ranker.Config(width=1, clip=math.inf))
    with pytest.raises(ConfigError, match=r"Config.clip to be a number or null, got 'x'"):
        encode(Ranker.Config(width=1, clip="x"))  # pyright: ignore[reportArgumentType] the bad value is the point


def test_text_that_is_no_json_names_the_file():
    with pytest.raises(ConfigError, match=r"Expected runs/a/run.json to be JSON: .*line 1"):
        loads(Adam, "{", "runs/a/run.json")
