"""TOML in and out: the exact round trip, the human layout, and errors that say where and what."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.schema import (
    EventFeature,
    EventOutcome,
    Feature,
    History,
    KeySpace,
    Roles,
    Schema,
    SchemaError,
    Task,
)
from fullrank.schema_toml import from_toml, to_toml

names = st.from_regex(r"\A\w[\w-]{0,15}\Z").filter(
    lambda name: name not in ("user", "item", "time", "available", "age")
)
columns = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=9)  # never 'label time'
scales = st.sampled_from(["none", "standard", "log", "quantile"])


def unique(members: st.SearchStrategy, most: int = 4) -> st.SearchStrategy:
    return st.lists(members, max_size=most, unique_by=lambda member: member.name).map(tuple)


@st.composite
def features(draw: st.DrawFn) -> Feature:
    kind = draw(st.sampled_from(["categorical", "multi", "numeric", "vector", "text"]))
    of = "item" if kind == "text" else draw(st.sampled_from(["user", "context", "item", "pair"]))
    return Feature(
        name=draw(names),
        kind=kind,
        of=of,
        column=draw(st.just("") | columns),
        key_space=draw(st.just("") | names) if kind in ("categorical", "multi") else "",
        weights=draw(st.just("") | columns) if kind == "multi" else "",
        scale=draw(scales) if kind == "numeric" else "standard",
        mutable=draw(st.booleans()) if of == "item" and kind == "categorical" else False,
        dim=draw(st.integers(1, 2000)) if kind == "vector" else 0,
    )


@st.composite
def event_features(draw: st.DrawFn) -> EventFeature:
    kind = draw(st.sampled_from(["categorical", "numeric"]))
    return EventFeature(
        name=draw(names.map(lambda name: f"f-{name}")),
        kind=kind,
        column=draw(st.just("") | columns),
        key_space=draw(st.just("") | names) if kind == "categorical" else "",
        scale=draw(scales) if kind == "numeric" else "standard",
    )


outcomes = st.builds(
    EventOutcome,
    name=names.map(lambda name: f"o-{name}"),
    column=st.just("") | columns,
    time=st.just("") | columns,
    window=st.integers(0, 10**9),
    lag=st.integers(0, 10**9),
)


@st.composite
def histories(draw: st.DrawFn) -> History:
    layout = draw(st.sampled_from(["by_user", "inline"]))
    source = "log" if layout == "inline" else draw(st.sampled_from(["log", "file"]))
    return History(
        name=draw(names),
        layout=layout,
        source=source,
        user=draw(st.just("") | columns) if layout == "by_user" else "",
        item=draw(columns),
        key_space=draw(names | st.just("item")),
        time=draw(st.just("") | columns),
        lag=draw(st.integers(0, 10**6)),
        max_length=draw(st.integers(1, 5000)),
        order=draw(st.sampled_from(["oldest_first", "newest_first"])),
        where=draw(st.just("") | columns) if (layout, source) == ("by_user", "log") else "",
        features=draw(unique(event_features(), 2)),
        outcomes=draw(unique(outcomes, 2)),
    )


@st.composite
def tasks(draw: st.DrawFn) -> Task:
    kind = draw(st.sampled_from(["binary", "regression", "multiclass"]))
    return Task(
        name=draw(names),
        kind=kind,
        column=f"label {draw(columns)}",
        label_time=draw(st.sampled_from(["", "label time"])),
        window=draw(st.integers(0, 10**9)),
        scenarios=draw(st.lists(columns, max_size=3).map(tuple)),
        classes=draw(st.integers(2, 100)) if kind == "multiclass" else 0,
    )


@st.composite
def key_spaces(draw: st.DrawFn, name: str) -> KeySpace:
    policy = draw(st.sampled_from(["frozen", "growing", "hashed"]))
    hashed = policy == "hashed"
    return KeySpace(
        name=name,
        policy=policy,
        min_count=draw(st.integers(1, 9)),
        ttl=draw(st.integers(0, 9)) if policy == "growing" else 0,
        unknown_rows=draw(st.integers(1, 9)),
        buckets=draw(st.integers(1, 9)) if hashed else 0,
        hashes=draw(st.integers(1, 3)) if hashed else 1,
    )


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    clock = draw(st.booleans())
    optional = {f.name: st.just("") | columns for f in fields(Roles)}
    required = {name: columns for name in ("user", "item", "scenario", "time" if clock else "order")}
    roles = draw(st.builds(Roles, **(optional | {"time": st.just(""), "order": st.just("")} | required)))
    named_tasks = draw(unique(tasks()))
    if len(named_tasks) > 1 and named_tasks[0].kind == "binary":
        named_tasks = (*named_tasks[:-1], replace(named_tasks[-1], parent=named_tasks[0].name))
    schema = Schema(
        name=draw(names),
        roles=roles,
        time_unit=draw(st.sampled_from(["s", "ms", "us"])) if clock else "position",
        time_sorted=draw(st.booleans()),
        features=draw(unique(features())),
        histories=draw(unique(histories(), 2)),
        tasks=named_tasks,
    )
    spaces = draw(st.lists(st.sampled_from(schema.used_key_spaces()), max_size=2, unique=True))
    return replace(schema, key_spaces=tuple(draw(key_spaces(name)) for name in spaces))


@settings(max_examples=40)
@given(schemas())
def test_what_is_written_is_read_back_exactly(schema: Schema) -> None:
    text = to_toml(schema)
    assert from_toml(text) == schema
    assert to_toml(from_toml(text)) == text


@given(st.text(st.characters(exclude_categories=("Cs",))))
def test_a_comment_of_any_text_changes_nothing_that_is_read(comment: str) -> None:
    assert from_toml(to_toml(EXAMPLE, {"": comment, "name": comment, "end": comment})) == EXAMPLE


EXAMPLE = Schema(
    name="mine",
    roles=Roles(user="uid", item="ad", time="at"),
    time_unit="ms",
    features=(
        Feature(name="age", kind="numeric", of="user", scale="log"),
        Feature(name="genres", kind="multi", of="item", column="genre list", weights="w"),
    ),
    histories=(
        History(
            name="clicks",
            where="click",
            max_length=50,
            features=(EventFeature(name="slot"),),
            outcomes=(EventOutcome(name="bought", time="bought_at", window=604800),),
        ),
    ),
    tasks=(Task(name="click"), Task(name="buy", parent="click", window=604800)),
    key_spaces=(KeySpace(name="user", policy="hashed", buckets=1000, hashes=2),),
)
TEXT = """\
name = "mine"
time_unit = "ms"

[roles]
user = "uid"
item = "ad"
time = "at"

[[feature]]
name = "age"
kind = "numeric"
of = "user"
scale = "log"

[[feature]]
name = "genres"
kind = "multi"
of = "item"
column = "genre list"
weights = "w"

[[history]]
name = "clicks"
max_length = 50
where = "click"

[[history.feature]]
name = "slot"

[[history.outcome]]
name = "bought"
time = "bought_at"
window = 604800

[[task]]
name = "click"

[[task]]
name = "buy"
window = 604800
parent = "click"

[[key_space]]
name = "user"
policy = "hashed"
buckets = 1000
hashes = 2
"""


def test_the_layout_is_for_people_and_leaves_out_defaults() -> None:
    assert to_toml(EXAMPLE) == TEXT
    assert from_toml(TEXT) == EXAMPLE
    assert to_toml(Schema()) == "\n"
    assert from_toml("") == Schema()


def test_comments_stand_above_what_they_speak_of() -> None:
    text = to_toml(
        EXAMPLE,
        {"": "A first schema.\n\nEdit it.", "time_unit": "13 digits", "roles.user": "many", "feature.age": "number",
         "history.clicks": "past", "history.clicks.where": "positives", "end": "left out: x"},
    )  # fmt: skip
    assert text.startswith('# A first schema.\n#\n# Edit it.\n\nname = "mine"\n# 13 digits\ntime_unit = "ms"\n')
    for expected in (
        '# many\nuser = "uid"',
        '# number\n[[feature]]\nname = "age"',
        "# past\n[[history]]",
        '# positives\nwhere = "click"',
    ):
        assert expected in text
    assert text.endswith("\n\n# left out: x\n")
    assert from_toml(text) == EXAMPLE
    with pytest.raises(SchemaError, match=r"comment.*'feature.agee'"):
        to_toml(EXAMPLE, {"feature.agee": "lost"})


def test_every_control_character_survives_as_an_escape() -> None:
    column = "".join(map(chr, range(128))) + "é\U0001f600\u2028\x85"
    schema = Schema(roles=Roles(user=column))
    text = to_toml(schema)
    assert tomllib.loads(text)["roles"]["user"] == column
    assert from_toml(text) == schema


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = 'a'\nx = =", r"my\.toml is not TOML: .*line 2"),
        ("nam = 'x'", r"my\.toml: unknown key 'nam'\. Did you mean 'name'\? The keys here are name, roles, time_unit,"),
        ("features = []", r"unknown key 'features'\. Did you mean 'feature'\?"),
        ("name = 3", r"my\.toml: expected a string for 'name', got an integer: 3\."),
        ("time_sorted = 1", r"expected true or false for 'time_sorted', got an integer: 1\."),
        ("time_sorted = 2020-01-01", r"expected true or false for 'time_sorted', got a date or time: "),
        ("time_unit = 'sec'", r"my\.toml: Expected time_unit to be one of 's', 'ms', 'us', 'position', got 'sec'"),
        ("roles = 'x'", r"expected the table \[roles\], got a string: 'x' for 'roles'"),
        ("[roles]\nusr = 'u'", r"my\.toml, \[roles\]: unknown key 'usr'\. Did you mean 'user'\?"),
        ("[roles]\nuser = ['u']", r"my\.toml, \[roles\]: expected a string for 'user', got an array\."),
        ("[feature]\nname = 'a'", r"expected \[\[feature\]\], got \[feature\]: each feature is a table in double"),
        ("feature = 'a'", r"expected tables \[\[feature\]\], got a string: 'a'"),
        ("feature = ['a']", r"expected tables \[\[feature\]\], got a string: 'a' in 'feature'"),
        ("[[feature]]\nkind = 'text'", r"\[\[feature\]\] number 1: expected the key 'name', got only kind\."),
        ("[[task]]", r"\[\[task\]\] number 1: expected the key 'name', got only an empty table\."),
        (
            "[[feature]]\nname = 'a'\nkind = 'multi'\n[[feature]]\nname = 'b'\nkind = 'numerc'",
            r"my\.toml, \[\[feature\]\] number 2 'b': Expected feature 'b' kind .* 'numerc'\. Did you mean 'numeric'",
        ),
        (
            "[[history]]\nname = 'h'\n[[history.outcome]]\nname = 'o'\nwindw = 3",
            r"\[\[history\.outcome\]\] number 1 'o': unknown key 'windw'\. Did you mean 'window'\?",
        ),
        ("[[history]]\nname = 'h'\nmax_length = 1.0", r"expected an integer for 'max_length', got a number: 1\.0"),
        ("[[history]]\nname = 'h'\nlag = true", r"expected an integer for 'lag', got true or false: True"),
        ("[[task]]\nname = 't'\nscenarios = 'feed'", r"expected an array of strings for 'scenarios', got a string"),
        ("[[task]]\nname = 't'\nscenarios = ['a', 1]", r"expected a string for 'scenarios', got an integer: 1"),
        ("[[task]]\nname = 'a'\nparent = 'bb'", r"my\.toml: Task 'a' has parent 'bb'; the tasks are \['a'\]"),
    ],
)
def test_an_error_says_where_what_came_and_what_may_be_meant(text: str, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        from_toml(text, "my.toml")
