"""Open Bandit: two policies, propensities and positions, and affinities to items as a list."""

import zipfile

import numpy as np
import pytest
from public_files import columns_of, prepared_as_usual, real, rows_of, write_files

from fullrank.data.columns import DataError
from fullrank.data.readers import OpenBandit, OpenBanditMen, OpenBanditWomen
from fullrank.schema import SchemaError

HEADER = ",timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1,user_feature_2,"
HEADER += "user_feature_3,user-item_affinity_0,user-item_affinity_1,user-item_affinity_2\n"
RANDOM = HEADER + (
    "0,2019-11-24 00:00:17.004101+00:00,2,3,1,0.3333,u,v,w,x,0.0,0.0,2.5\n"
    "1,2019-11-24 00:00:18+00:00,0,1,0,0.3333,u,v2,w,x,0.0,4.0,1.0\n"
)
BTS = HEADER + "0,2019-11-24 00:00:17.5+00:00,1,2,0,0.9,u,v,w,x,0.0,0.0,0.0\n"
CONTEXT = ",item_id,item_feature_0,item_feature_1,item_feature_2,item_feature_3\n"
FILES = {
    "random/men/men.csv.gz": RANDOM,
    "bts/men/men.csv": BTS,
    "random/men/item_context.csv": CONTEXT + "".join(f"{i},{i},-0.{i},r{i},s,t\n" for i in range(3)),
    "bts/men/item_context.csv": CONTEXT + "".join(f"{i},{i},-0.{i},other{i},s,t\n" for i in range(3)),
    "random/all/all.csv": HEADER,
}


def test_rows_of_both_policies(tmp_path):
    first, second, third = rows_of(OpenBanditMen(write_files(tmp_path, FILES)))
    assert first == {
        "timestamp": "2019-11-24 00:00:17.004101+00:00", "item_id": "2", "position": "3", "click": "1",
        "propensity_score": "0.3333", "user_feature_0": "u", "user_feature_1": "v", "user_feature_2": "w",
        "user_feature_3": "x", "affinity": 2.5, "liked": [2], "liked_affinity": [2.5], "exploration": 1,
        "item_feature_0": -0.2, "item_feature_1": "r2", "item_feature_2": "s", "item_feature_3": "t", "row": 0,
        "@split": "",
    }  # fmt: skip
    assert (second["affinity"], second["liked"], second["liked_affinity"]) == (0.0, [1, 2], [4.0, 1.0])
    assert (third["exploration"], third["liked"], third["row"], third["item_feature_1"]) == (0, [], 2, "r1")


def test_one_policy_alone_has_its_own_item_features(tmp_path):
    folder = write_files(tmp_path, FILES)
    (row,) = rows_of(OpenBanditMen(folder, policies=("bts",)))
    assert (row["item_feature_1"], row["propensity_score"]) == ("other1", "0.9")
    both = OpenBanditMen(folder)
    assert both.fingerprint() != OpenBanditMen(folder, policies=("random",)).fingerprint()


def test_policies_that_are_none_are_named(tmp_path):
    with pytest.raises(SchemaError, match=r"among \['random', 'bts'\], got 'randm'. Did you mean 'random'"):
        OpenBanditMen(tmp_path, policies=("randm",))
    with pytest.raises(SchemaError, match="got none"):
        OpenBanditMen(tmp_path, policies=())


def test_a_zip_reads_like_its_folder(tmp_path):
    folder = write_files(tmp_path / "f", FILES)
    with zipfile.ZipFile(tmp_path / "obd.zip", "w") as archive:
        for name in FILES:
            archive.write(folder / name, f"open_bandit_dataset/{name}")
    packed, plain = OpenBanditMen(tmp_path / "obd.zip"), OpenBanditMen(folder)
    assert rows_of(packed) == rows_of(plain) and packed.fingerprint() == plain.fingerprint()


def test_it_prepares_with_propensity_position_and_exploration(tmp_path):
    more = RANDOM + "".join(
        f"{n},2019-11-25 0{n % 10}:00:00+00:00,{n % 3},1,0,0.5,u,v,w,x,0.0,0.0,0.0\n" for n in range(2, 12)
    )
    source = OpenBanditMen(write_files(tmp_path / "set", FILES | {"random/men/men.csv.gz": more}))
    data = prepared_as_usual(source, tmp_path / "data")
    propensity, position, exploration, label = columns_of(
        data, "train", "@propensity", "@position", "@exploration", "@label.click"
    )
    chosen = label == 1
    assert propensity[chosen].tolist() == [np.float32(0.3333)] and position[chosen].tolist() == [3.0]
    assert sorted(exploration.tolist()) == [0.0] + [1.0] * (len(exploration) - 1)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("random/men/men.csv.gz", RANDOM.replace(",2,3,1", ",3,3,1"), r"row 1: expected an item of item_context"),
        ("bts/men/men.csv", BTS.replace("0.0\n", "x\n"), r"men\.csv, line 2: expected a number, got 'x'"),
        ("bts/men/men.csv", BTS.replace(",click", ",klick"), r"expected column 'click'.* Did you mean 'klick'"),
        ("random/men/item_context.csv", CONTEXT + "0,1,0.1,a,b,c\n", "expected the items 0, 1, 2"),
    ],
)
def test_a_line_that_is_none_is_named(tmp_path, name, text, said):
    with pytest.raises(DataError, match=said):
        rows_of(OpenBanditMen(write_files(tmp_path, FILES | {name: text})))


@pytest.mark.parametrize(
    ("reader", "items", "clicks"),
    [(OpenBandit, 80, (38, 42)), (OpenBanditMen, 34, (46, 69)), (OpenBanditWomen, 46, (46, 46))],
)
def test_real_open_bandit(reader, items, clicks):
    folder = real("obd_small")
    for policy, expected in zip(("random", "bts"), clicks, strict=True):
        records = [chunk.records for chunk in reader(folder, policies=(policy,)).chunks()]
        assert sum(chunk.num_rows for chunk in records) == 10_000
        assert sum(chunk["click"].to_pylist().count("1") for chunk in records) == expected
        assert len({item for chunk in records for item in chunk["item_id"].to_pylist()}) == items
        propensity = np.array([float(p) for chunk in records for p in chunk["propensity_score"].to_pylist()])
        assert (np.abs(propensity - 1 / items) < 1e-6).all() == (policy == "random")


def test_real_open_bandit_prepares(tmp_path):
    data = prepared_as_usual(OpenBanditMen(real("obd_small")), tmp_path)
    labels = [columns_of(data, split, "@label.click")[0] for split in ("train", "valid", "test")]
    assert [len(label) for label in labels] == [16_000, 2_000, 2_000] and sum(map(np.sum, labels)) == 115
