"""E7: RankElastor as its repository trains it on the whole of Criteo_x1 and Avazu_x4. **Not run**: these sets (46 M and
40 M rows) are not at hand.

    python benchmarks/backbones/published.py --data PREPARED --set criteo|avazu --out RUN

PREPARED: that set, made with `fullrank prepare` and its own split. It prints one line of JSON with the test AUC beside
the repository's logged one and ends with 1 if they differ by more than 0.0005.

What differs from the repository: tables learn by lazy Adam (there by Adam over all rows, with an L2 penalty of 1e-5 on
Criteo), and Avazu stops early by AUC (there by AUC - log-loss).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from fullrank.data.partitions import PreparedData
from fullrank.features.tables import TableOptimizer
from fullrank.features.tokenizer import TokenizerConfig
from fullrank.rankers import RankElastor
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.train import predict, train_ranker
from fullrank.training.config import TrainConfig

WITHIN = 0.0005
LAZY = TableOptimizer(semantics="lazy", lr=1e-3)


@dataclass(frozen=True, kw_only=True)
class Published:
    """`auc`: what the repository logged, one seed."""

    ranker: RankElastor.Config
    training: TrainConfig
    auc: float


E7 = {
    "criteo": Published(
        ranker=RankElastor.Config(
            form="repository",
            embedding=EmbeddingConfig(width=10, init_std=1e-4, optimizer=LAZY),
            tokenizer=TokenizerConfig(num_tokens=15, token_width=26),
            tokens="matrix",
            units=(64, 64),
            num_layers=1,
        ),
        training=TrainConfig(epochs=100, batch_size=4096, lr=1e-3, early_stop="click.auc", patience=2, seed=2019),
        auc=0.8147,
    ),
    "avazu": Published(
        ranker=RankElastor.Config(
            form="repository",
            embedding=EmbeddingConfig(width=16, init_std=1e-4, optimizer=LAZY),
            tokenizer=TokenizerConfig(num_tokens=24, token_width=16),
            tokens="vector",
            tokens_hidden=800,
            units=(16,),
            num_layers=4,
        ),
        training=TrainConfig(epochs=100, batch_size=10000, lr=1e-3, early_stop="click.auc", patience=2, seed=2019),
        auc=0.7931,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--set", choices=list(E7), required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    config, data = E7[options.set], PreparedData.open(options.data)
    made = train_ranker(config.ranker, data, options.out, config.training, seed=config.training.seed)
    found = predict(made.run, made.ranker, data, "test").metrics("click").auc
    ok = abs(found - config.auc) <= WITHIN
    line = {"label": f"E7 {options.set}", "ours": round(found, 6), "theirs": config.auc, "threshold": WITHIN, "ok": ok}
    print(json.dumps(line))
    sys.exit(int(not ok))


if __name__ == "__main__":
    main()
