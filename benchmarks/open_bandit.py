"""Open Bandit Dataset, small: what the Bernoulli Thompson sampling policy is worth, from the log of the random one.

    FULLRANK_DATA=data python benchmarks/open_bandit.py

Reads `obd_small/{random,bts}/all/all.csv.gz` and `obd_small/prior_bts.yaml`. The policy (Saito et al. 2021, Open Bandit
Dataset and Pipeline, arXiv:2008.07146): draw a click rate of every item from its Beta(alpha, beta), show the three
items with the largest in positions 1, 2, 3. Its probability of an item at a position is the share of 100,000 such draws
that put it there, with the generator (MT19937) and the seed of the published example, whose value by inverse propensity
weighting is .004553. Prints a line of JSON an estimator; ends with 1 if IPW is not within .0001 of .00455.

The reward table of the direct method and of the doubly robust estimator is our choice: the click rate of each item in
the policy's own log, shrunk to the mean rate by 500 impressions: other rows than those it is applied to.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.evaluation.off_policy import PolicyValue, direct_method, doubly_robust, ipw, self_normalised_ipw

POSITIONS = 3
SHRINKAGE = 500.0
TARGET, TOLERANCE = 0.00455, 1e-4


@dataclass(frozen=True)
class BanditLog:
    """One row a shown item: `item_N`, `position_N` (from 0), `click_N`, `propensity_N`."""

    item_N: np.ndarray
    position_N: np.ndarray
    click_N: np.ndarray
    propensity_N: np.ndarray


def read_log(path: Path) -> BanditLog:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = [
            (int(r["item_id"]), int(r["position"]) - 1, float(r["click"]), float(r["propensity_score"]))
            for r in csv.DictReader(file)
        ]
    item, position, click, propensity = zip(*rows, strict=True)
    return BanditLog(np.array(item), np.array(position), np.array(click), np.array(propensity))


def read_prior(path: Path, campaign: str) -> tuple[np.ndarray, np.ndarray]:
    """alpha and beta of every item, from the one shape this YAML has: campaign, then two lists of numbers."""
    lists: dict[str, list[float]] = {}
    inside, current = False, ""
    for line in path.read_text(encoding="utf-8").splitlines():
        word = line.strip()
        if line and not line[0].isspace():
            inside = word == f"{campaign}:"
        elif inside and word.endswith(":"):
            current = word[:-1]
            lists[current] = []
        elif inside and word.startswith("- "):
            lists[current].append(float(word[2:]))
    return np.array(lists["alpha"]), np.array(lists["beta"])


def bernoulli_thompson(alpha_A: np.ndarray, beta_A: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """The policy's probability of every item at every position, [positions, items], counted over `draws` draws."""
    random = np.random.RandomState(seed)  # the legacy generator, on purpose: these are the published draws
    counts = np.zeros((POSITIONS, len(alpha_A)))
    for start in range(0, draws, 10_000):
        rates_NA = random.beta(alpha_A, beta_A, size=(min(10_000, draws - start), len(alpha_A)))
        shown = np.argsort(rates_NA, axis=1)[:, : -POSITIONS - 1 : -1]
        for position in range(POSITIONS):
            counts[position] += np.bincount(shown[:, position], minlength=len(alpha_A))
    return counts / draws


def without_nan(estimate: PolicyValue) -> dict[str, float]:
    return {name: value for name, value in asdict(estimate).items() if value == value}  # JSON has no nan


def run(folder: Path, draws: int = 100_000, seed: int = 12345) -> list[dict[str, Any]]:
    log, own = read_log(folder / "random/all/all.csv.gz"), read_log(folder / "bts/all/all.csv.gz")
    policy_PA = bernoulli_thompson(*read_prior(folder / "prior_bts.yaml", "all"), draws, seed)
    probability = policy_PA[log.position_N, log.item_N]
    items, rate = policy_PA.shape[1], own.click_N.mean()
    shown, clicked = np.bincount(own.item_N, minlength=items), np.bincount(own.item_N, own.click_N, minlength=items)
    reward_PA = np.tile((clicked + SHRINKAGE * rate) / (shown + SHRINKAGE), (POSITIONS, 1))
    logged = (log.click_N, log.propensity_N)
    estimates = {
        "ipw": ipw(*logged, probability),
        "self_normalised_ipw": self_normalised_ipw(*logged, probability),
        "ipw_clip_10": ipw(*logged, probability, clip=10.0),
        "doubly_robust": doubly_robust(*logged, log.item_N, policy_PA, reward_PA, log.position_N),
        "direct_method": direct_method(policy_PA, reward_PA, log.position_N),
    }
    lines = [{"estimator": name, **without_nan(estimate)} for name, estimate in estimates.items()]
    for name, clicks in (("mean of the random log", log.click_N), ("mean of the policy's own log", own.click_N)):
        error = float(clicks.std(ddof=1) / np.sqrt(len(clicks)))
        lines.append({"estimator": name, "value": float(clicks.mean()), "standard_error": error, "rows": len(clicks)})
    return [rounded(line) for line in lines]


def rounded(line: dict[str, Any]) -> dict[str, Any]:
    """Seven significant digits."""
    return {name: float(f"{value:.7g}") if isinstance(value, float) else value for name, value in line.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=12345)
    options = parser.parse_args()
    folder = Path(os.environ.get("FULLRANK_DATA") or "data") / "obd_small"
    if not folder.is_dir():
        sys.exit(f"Expected the Open Bandit files in {folder}: set FULLRANK_DATA to the folder that holds obd_small.")
    lines = run(folder, options.draws, options.seed)
    for line in lines:
        print(json.dumps(line))
    (value,) = (line["value"] for line in lines if line["estimator"] == "ipw")
    sys.exit(int(not abs(value - TARGET) <= TOLERANCE))


if __name__ == "__main__":
    main()
