"""Three messy logs, of the kinds that people bring: `schema infer`, `prepare`, `train` and `recommend` on each.

    python benchmarks/own_logs.py [--folder DIR]

The files are made at run time, of MovieLens-100K (its terms are its makers') and of the simulated log, and removed
afterwards unless a folder is given:

* `members.csv`: a BOM, ids with leading zeros, quoted commas, empty cells and `NA`, yes and no, and a column of
  integers that becomes text at row 40,000
* `clicks.parquet`: JSON arrays as texts, values with `|` between them, a nested struct, lists of integers as history
* `events.csv`: ISO times with zones, another column of times in milliseconds and one in seconds, rows in no order

Every stage is one command, as a person would type it, with no edit of the schema but what the tool itself suggests.
Prints one line of JSON a file and stage: `ok`, `seconds`, `edits`, and what came of it. Exits with 1 if one failed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fullrank.data.fetch import get
from fullrank.data.simulate import SimulatedLog, SimulatorConfig
from fullrank.data.source import write_parquet

TEXT_FROM = 40_000  # the row (from 1) where a column of integers turns to text


@dataclass(frozen=True)
class Ratings:
    """MovieLens-100K, one entry a rating in order of time."""

    user: np.ndarray
    item: np.ndarray
    stars: np.ndarray
    time: np.ndarray
    title: dict[int, str]
    genres: dict[int, list[str]]
    age: dict[int, int]
    job: dict[int, str]

    @staticmethod
    def read() -> Ratings:
        folder = get("movielens-100k").path
        rows = np.loadtxt(folder / "u.data", dtype=np.int64)
        rows = rows[np.argsort(rows[:, 3], kind="stable")]
        names = [line.split("|")[0] for line in (folder / "u.genre").read_text().split()]
        title, genres = {}, {}
        for line in (folder / "u.item").read_text(encoding="latin-1").splitlines():
            item, name, *rest = line.split("|")
            title[int(item)] = name
            genres[int(item)] = [names[n] for n, flag in enumerate(rest[3:]) if flag == "1"]
        people = [line.split("|") for line in (folder / "u.user").read_text().splitlines()]
        age = {int(user): int(age) for user, age, *_ in people}
        user, movie, stars, moment = rows.T
        return Ratings(user, movie, stars, moment, title, genres, age, {int(p[0]): p[3] for p in people})


def members(ratings: Ratings, path: Path) -> int:
    """A spreadsheet's export."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "movie_id", "timestamp", "age", "occupation", "shelf", "title", "weekend", "liked"])
        for row in range(len(ratings.user)):
            user, item = int(ratings.user[row]), int(ratings.item[row])
            age = ["", "NA"][user % 2] if user % 9 == 0 else str(ratings.age[user])
            shelf = item % 50 if row + 1 < TEXT_FROM or item % 3 else f"B-{item % 7}"
            weekend = "yes" if (int(ratings.time[row]) // 86_400 + 4) % 7 >= 5 else "no"
            liked = "yes" if ratings.stars[row] >= 4 else "no"
            cells = [f"{user:06d}", f"{item:05d}", ratings.time[row], age, ratings.job[user], shelf]
            writer.writerow([*cells, ratings.title[item], weekend, liked])
    return len(ratings.user)


def clicks(ratings: Ratings, path: Path) -> int:
    """A data frame that somebody saved as it was: the newest ten liked films of the user as lists."""
    past: dict[int, list[int]] = {}
    columns: dict[str, list] = {
        name: [] for name in ("user", "item", "ts", "genres", "words", "device", "hist_items", "click")
    }
    for row in range(len(ratings.user)):
        user, item = int(ratings.user[row]), int(ratings.item[row])
        columns["user"].append(f"u{user}")
        columns["item"].append(item)
        columns["ts"].append(int(ratings.time[row]))
        columns["genres"].append(json.dumps(ratings.genres[item]))
        columns["words"].append("|".join(sorted(set(ratings.title[item].lower().split()[:3]))))
        columns["device"].append({"os": ["ios", "android"][user % 2], "version": {"major": user % 5}})
        columns["hist_items"].append(list(past.get(user, [])))
        columns["click"].append(bool(ratings.stars[row] >= 4))
        if ratings.stars[row] >= 4:
            past[user] = [*past.get(user, []), item][-10:]
    pq.write_table(pa.table(columns), path)
    return len(ratings.user)


def events(ratings: Ratings, path: Path) -> int:
    """A join of three systems: the ad server's ISO times, the shop's milliseconds, the register's seconds."""
    config = SimulatorConfig(rows=60_000, users=1_500, ads=400, campaigns=40, days=6, seed=3)
    raw = write_parquet(SimulatedLog(config), path.with_suffix(".parquet"))
    log = pq.read_table(raw).to_pydict()
    raw.unlink()
    rng = np.random.default_rng(0)
    zones = [("+02:00", 7_200), ("-05:00", -18_000), ("Z", 0)]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        names = ["request_id", "user_id", "ad_id", "event_time", "device", "registered", "click", "conversion"]
        writer.writerow([*names, "converted_at"])
        for row in rng.permutation(len(log["user"])).tolist():
            zone, shift = zones[row % 3]
            moment = log["time"][row]
            stamp = str(np.datetime64(moment + shift, "s")) + zone
            bought = log["conversion_time"][row] if log["conversion"][row] else None
            registered = 1_500_000_000 + hash_of(log["user"][row]) % 200_000_000
            cells = [log["request"][row], log["user"][row], log["ad"][row], stamp, log["device"][row], registered]
            late = "" if bought is None else int(bought) * 1_000
            writer.writerow([*cells, int(log["click"][row]), int(log["conversion"][row]), late])
    return len(log["user"])


def hash_of(key: object) -> int:
    """The same number for the same key in every run."""
    return sum((place + 1) * ord(character) * 7_919 for place, character in enumerate(str(key)))


FILES: dict[str, tuple[Callable[[Ratings, Path], int], str]] = {
    "members.csv": (members, "user_id"),
    "clicks.parquet": (clicks, "user"),
    "events.csv": (events, "user_id"),
}


def a_user(path: Path, column: str) -> str:
    if path.suffix == ".parquet":
        return pq.read_table(path, columns=[column])[column][0].as_py()
    with path.open(encoding="utf-8-sig", newline="") as file:
        return next(csv.DictReader(file))[column]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        ratings = Ratings.read()
        sys.exit(0 if all([whole_way(ratings, folder, name) for name in FILES]) else 1)


def whole_way(ratings: Ratings, folder: Path, name: str) -> bool:
    make, user_column = FILES[name]
    path, stem = folder / name, name.split(".")[0]
    rows = make(ratings, path)
    schema, data, run = folder / f"{stem}.toml", folder / f"{stem}-data", folder / f"{stem}-run"
    stages = {
        "schema infer": [path, "--out", schema],
        "prepare": [path, "--schema", schema, "--out", data],
        "train": ["dcnv2", "--data", data, "--out", run, "--training.epochs", "1", "--json", folder / f"{stem}.json"],
        "recommend": [run, "--data", data, "--user", a_user(path, user_column), "--k", "3"],
    }
    for stage, words in stages.items():
        command = [sys.executable, "-m", "fullrank", *stage.split(), *map(str, words)]
        begun = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "error"})
        line = {"file": name, "rows": rows, "stage": stage, "ok": ended.returncode == 0, "edits": 0}
        line["seconds"] = round(time.perf_counter() - begun, 2)
        if ended.returncode:
            line["error"] = ended.stderr.strip().splitlines()[-1]
        elif stage == "train":
            valid = json.loads((folder / f"{stem}.json").read_text())["valid"]
            line["auc"] = {task: round(metrics["auc"], 4) for task, metrics in valid.items() if metrics.get("auc")}
        print(json.dumps(line), flush=True)
        if ended.returncode:
            return False
    return True


if __name__ == "__main__":
    main()
