"""Every effect the simulator plants, alone and strong: do the models that can express it find it, and only they?

    python benchmarks/planted_effects.py [--effects three_way last_event] [--seeds 5] [--work FOLDER]

For each effect a log in which that effect is strong and the additive ones are weak; on the same rows a base (additive:
LR, or what an ad's clicks say), the models that can express the effect and those that can't. A line of JSON a model:

    gap_closed = (auc - base_auc) / (oracle_auc - base_auc)

with the oracle's AUC, that of the true probabilities on the labels of the same test rows. A model that can has to
close 0.8 of the gap (the mean over seeds), one that can't at least 0.15 less than the best that can. The exit code is
1 where one doesn't.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import kept

from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.simulate import Effects, SimulatedLog, SimulatorConfig
from fullrank.data.splits import ByTime
from fullrank.evaluation.metrics import auc
from fullrank.evaluation.oracle import oracle_metrics
from fullrank.features.tables import TableOptimizer
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import DIN, FM, LR, DCNv2, FieldTransformer, SASRecPool
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.rankers.linear_part import LinearConfig
from fullrank.recipes.train import predict, train_ranker
from fullrank.training.config import TrainConfig

ADAM = TableOptimizer(semantics="lazy", lr=2e-3)
EMBEDDING = EmbeddingConfig(width=16, init_std=0.1, optimizer=ADAM)
LINEAR = LinearConfig(optimizer=TableOptimizer(semantics="lazy", lr=5e-3))
LR_ = LR.Config(linear=LINEAR)
FM_ = FM.Config(embedding=EMBEDDING, linear=LINEAR)
DCN_ = DCNv2.Config(embedding=EMBEDDING, num_cross_layers=3, hidden=(128, 64))
DIN_ = DIN.Config(embedding=EMBEDDING, attention_hidden=(64, 32), hidden=(128, 64))
SASREC_ = SASRecPool.Config(embedding=EMBEDDING, width=32, num_blocks=1, towers=(128, 64))
TRANSFORMER_ = FieldTransformer.Config(
    embedding=EMBEDDING, tokenizer=TokenizerConfig(mode="field", token_width=32), expansion=2
)
WORLD = SimulatorConfig(
    rows=300_000,
    ads=480,
    campaigns=40,
    new_keys_per_day=0.0,
    drift=0.0,
    explore=1.0,
    click_logit=-1.0,
    conversion=Effects(),
)
FEATURES = ("segment", "hour", "device", "category", "format", "slot")
IDS = ("user", "item")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One effect. `can` and `cannot`: the models by what they can express; `reads`: the features and histories of
    all of them, `blind` what those of `cannot` don't read. `base`: "lr", or "popularity" where LR is one of `can`."""

    name: str
    click: Effects
    can: tuple[Any, ...]
    cannot: tuple[Any, ...]
    reads: tuple[str, ...] = FEATURES
    blind: tuple[str, ...] = ()
    base: str = "lr"
    last_n: int = 20
    epochs: int = 4
    rows: int = 300_000
    users: int = 2_000
    categories: int = 8


def strong(**effects: float) -> Effects:
    return replace(Effects(additive=0.3), **effects)


CASES = (
    Case(
        name="additive",
        click=strong(additive=1.5),
        can=(LR_,),
        cannot=(LR_,),
        reads=(*FEATURES, *IDS, "age", "price"),
        blind=("user", "age"),
        base="popularity",
    ),
    Case(
        name="match",
        click=strong(match=3.0),
        can=(LR_,),
        cannot=(LR_,),
        reads=(*FEATURES, *IDS, "age", "price", "match"),
        blind=("match",),
        base="popularity",
    ),
    Case(name="fm", click=strong(fm=1.5), can=(FM_, DCN_), cannot=(LR_,)),
    Case(name="item_taste", click=strong(item_taste=1.5), can=(FM_,), cannot=(LR_,), reads=(*FEATURES, "item")),
    Case(name="three_way", click=strong(three_way=1.5), can=(DCN_,), cannot=(FM_,), epochs=6),
    Case(name="gated", click=strong(gated=1.5), can=(DCN_,), cannot=(FM_,), epochs=6),
    Case(name="time_of_day", click=strong(time_of_day=1.5), can=(FM_, DCN_), cannot=(LR_,)),
    Case(
        name="sequence",
        click=strong(sequence=3.0),
        can=(DIN_, SASREC_),
        cannot=(FM_, DCN_),
        reads=(*FEATURES, "clicked"),
        blind=("clicked",),  # with it, the mean of events finds most of what is liked for long
    ),
    Case(
        name="last_event",
        click=strong(last_event=2.0),
        can=(TRANSFORMER_,),  # DIN lies between: it knows how old an event is, not which is the newest of its kind
        cannot=(FM_, DCN_),
        reads=(*FEATURES, "clicked"),
        last_n=8,
        categories=4,
    ),
    Case(
        name="repeated_exposure",
        click=strong(repeated_exposure=4.0),
        can=(DIN_,),
        cannot=(FM_,),
        reads=(*FEATURES, "shown"),
        last_n=60,
        users=15_000,  # few showings a user: fatigue is nearly whole after twenty
    ),
    Case(
        name="position",
        click=strong(position=2.0),
        can=(LR_,),
        cannot=(LR_,),
        reads=(*FEATURES, *IDS, "age", "price"),
        blind=("slot",),
        base="popularity",
    ),
)


def run(case: Case, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Base, oracle and models of one case on one log."""
    size = {"rows": case.rows, "users": case.users, "categories": case.categories}
    log = SimulatedLog(replace(WORLD, **size, seed=seed, click=case.click))
    prepare(log, folder / "data", split=ByTime(valid=0.05, test=0.2))
    data = PreparedData.open(folder / "data")
    wanted = dict.fromkeys([*case.reads])
    offered = [f.name for f in log.schema.all_features()] + [h.name for h in log.schema.histories]
    hidden = ("conversion", *(name for name in offered if name not in wanted))

    def score(config: Any, name: str, blind: tuple[str, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
        training = TrainConfig(
            epochs=case.epochs, batch_size=1024, seed=seed, validate_every_epochs=None, checkpoint_every_steps=None
        )
        path = folder / name
        made = train_ranker(config, data, path, training, seed=seed, last_n=case.last_n, exclude=(*hidden, *blind))
        made.ranker.eval()
        told = predict(made.run, made.ranker, data, "test")
        return told.labels_NK[:, 0], told.logits_NK[:, 0]

    truth, train_labels, train_ads, test_ads = _log_columns(log, data.num_rows("test"))
    if case.base == "lr":
        labels, logits = score(LR_, "base")
        base = auc(labels, logits)
    else:
        base = _popularity(train_labels, train_ads, test_ads, truth["click"])
    oracle = oracle_metrics(truth["click"], truth["p_click"]).auc
    found = []
    for can, configs in ((True, case.can), (False, case.cannot)):
        for number, config in enumerate(configs):
            blind = () if can else case.blind
            labels, logits = score(config, f"{'can' if can else 'cannot'}-{number}", blind)
            if not np.array_equal(labels, truth["click"]):
                raise RuntimeError("Expected the test rows to be the last of the log, got other labels.")
            value = auc(labels, logits)
            found.append(
                {
                    "effect": case.name,
                    "model": _name(config) + "".join(f" without {name}" for name in blind),
                    "can_express": can,
                    "seed": seed,
                    "auc": round(value, 5),
                    "oracle_auc": round(oracle, 5),
                    "base_auc": round(base, 5),
                    "gap_closed": round((value - base) / (oracle - base), 3),
                    "rows": case.rows,
                }
            )
    return found


def _name(config: Any) -> str:
    return type(config).__qualname__.split(".")[0].lower()


def _log_columns(log: SimulatedLog, tests: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Labels and truth of the last `tests` rows (a sorted log is prepared in its order), and what popularity needs."""
    parts = [(rows.click, rows.p_click, rows.ads.index) for rows in log.rows()]
    click, p_click, ad = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    truth = {"click": click[-tests:].astype(np.float32), "p_click": p_click[-tests:]}
    return truth, click[:-tests], ad[:-tests], ad[-tests:]


def _popularity(labels: np.ndarray, ads: np.ndarray, test_ads: np.ndarray, test_labels: np.ndarray) -> float:
    """The AUC of an ad's share of clicks before the test."""
    ads_there = int(max(ads.max(), test_ads.max())) + 1
    clicks, shown = np.bincount(ads, weights=labels, minlength=ads_there), np.bincount(ads, minlength=ads_there)
    return auc(test_labels, ((clicks + 1.0) / (shown + 10.0))[test_ads])


def judged(found: list[dict[str, Any]]) -> list[str]:
    """What misses its target, in words."""
    misses = []
    for effect in dict.fromkeys(line["effect"] for line in found):
        means: dict[bool, dict[str, float]] = {True: {}, False: {}}
        for line in found:
            if line["effect"] == effect:
                same = [o for o in found if all(o[k] == line[k] for k in ("effect", "model", "can_express"))]
                means[line["can_express"]][line["model"]] = float(np.mean([o["gap_closed"] for o in same]))
        misses += [f"{effect}: {model} closes {gap:.2f} < 0.8" for model, gap in means[True].items() if gap < 0.8]
        limit = max(means[True].values()) - 0.15
        misses += [f"{effect}: {m} closes {gap:.2f} > {limit:.2f}" for m, gap in means[False].items() if gap > limit]
    return misses


def main() -> None:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effects", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: torch's own choice")
    parser.add_argument("--work", type=Path, help="keep what is found here, and don't find it again")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    found = []
    for case in CASES:
        if case.name in options.effects:
            for seed in range(options.seeds):
                with tempfile.TemporaryDirectory() as folder:
                    path = options.work and options.work / f"{case.name}-{seed}.json"
                    lines = kept(path, lambda case=case, seed=seed, folder=folder: run(case, seed, Path(folder)))
                found += lines
                print(*map(json.dumps, lines), sep="\n", flush=True)
    misses = judged(found)
    print(*misses, sep="\n", file=sys.stderr)
    sys.exit(bool(misses))


if __name__ == "__main__":
    main()
