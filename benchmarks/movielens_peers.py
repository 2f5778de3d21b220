"""DCNv2 and DIN on MovieLens-1M: fullrank beside FuxiCTR and torch-rechub, on the same rows, with the same sizes.

    python benchmarks/movielens_peers.py --data FOLDER [--seeds 5] [--models dcnv2 din] [--work FOLDER]

The task is `liked` (a rating of 4 or 5). Fields: user, gender, age, occupation, item, and the newest 20 rated items
(mean-pooled for DCNv2). Each user's last tenth of ratings tests, the tenth before validates. All three: Adam 1e-3 on
every weight, batches of 2,048, embeddings of width 16 from N(0, 1e-4²), Xavier-normal Linears, hidden (256, 128) with
BatchNorm and dropout 0.2; after every epoch validation AUC, stop when it falls, keep the best weights, at most 20
epochs. The peers are trained by one plain loop over arrays in memory (`benchmarks/peers/movielens_models.py`), in a
virtual environment made here; all use one thread. Seconds are the processor's, of training an epoch without validation.
torch-rechub's cross layer is its own: x_0 ⊙ (W x) + b + x.

Prints a line of JSON a run, then for each model and peer the paired difference of test AUC over seeds with its 90 %
interval: good if that is inside ± 0.001 or above it. With `--work`, runs that are finished are not made again, and
`--models` may be divided between processes once the folder has its data (start the second after the first line).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import kept
from torch import nn

from fullrank.data.inputs import Inputs
from fullrank.data.loader import Loader
from fullrank.data.partitions import PreparedData
from fullrank.data.prepare import prepare
from fullrank.data.readers.movielens_1m import MovieLens1M
from fullrank.data.splits import PerUserOrder
from fullrank.evaluation.paired import paired_difference
from fullrank.features.tables import TableOptimizer
from fullrank.rankers import DIN, DCNv2
from fullrank.rankers.field_front import EmbeddingConfig
from fullrank.recipes.train import predict, train_ranker
from fullrank.training.callbacks import Callback, StepReport, TaskMetrics
from fullrank.training.config import TrainConfig

PEERS = ("torch<2.14", "fuxictr==2.3.10", "torch-rechub==0.9.0")
LIBRARIES = ("fuxictr", "torch-rechub")
FIELDS = ("user", "gender", "age", "occupation", "item")
EXCLUDE = ("loved", "genres", "year")
SETTINGS: dict[str, Any] = {
    "width": 16,
    "init_std": 1e-4,
    "hidden": [256, 128],
    "dropout": 0.2,
    "cross_layers": 3,
    "attention_hidden": [64, 32],
    "lr": 1e-3,
    "batch_size": 2048,
    "epochs": 20,
    "patience": 1,
    "history": 20,
}
WITHIN = 0.001


def rankers() -> dict[str, Any]:
    tables = TableOptimizer(semantics="dense", rule="adam", lr=SETTINGS["lr"])
    embedding = EmbeddingConfig(width=SETTINGS["width"], init_std=SETTINGS["init_std"], optimizer=tables)
    deep: Any = {"hidden": tuple(SETTINGS["hidden"]), "dropout": SETTINGS["dropout"], "batch_norm": True}
    attention: Any = {"attention_hidden": tuple(SETTINGS["attention_hidden"]), "attention_activation": "dice"}
    return {
        "dcnv2": DCNv2.Config(embedding=embedding, num_cross_layers=SETTINGS["cross_layers"], **deep),
        "din": DIN.Config(embedding=embedding, **attention, **deep),
    }


def prepared(folder: Path, out: Path) -> PreparedData:
    source = MovieLens1M(folder)
    (history,) = source.schema.histories
    source.schema = replace(source.schema, histories=(replace(history, features=()),))  # items alone
    if not (out / "manifest.json").exists():
        prepare(source, out, split=PerUserOrder(valid=0.1, test=0.1))
    return PreparedData.open(out)


def export(data: PreparedData, inputs: Inputs, folder: Path) -> None:
    """The rows as arrays, in the order in which they are predicted."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "valid", "test"):
        fields, histories, labels = [], [], []
        for batch in Loader(data, inputs, split, batch_size=65_536).epoch(0):
            of_row_B = batch.candidates.request_of_row_B
            request_BF = batch.requests.features.ids_nF[of_row_B]
            names = [field.name for field in (*inputs.request, *inputs.candidate)]
            ids_BF = torch.cat([request_BF, batch.candidates.features.ids_nF], dim=1)
            fields.append(ids_BF[:, [names.index(name) for name in FIELDS]].int().numpy())
            (past,) = batch.requests.histories
            padded_RL = torch.nested.nested_tensor_from_jagged(past.events.ids_nF[:, 0], past.offsets)
            padded_RL = torch.nested.to_padded_tensor(padded_RL, 0, (len(past.offsets) - 1, SETTINGS["history"]))
            histories.append(padded_RL[of_row_B].int().numpy())
            assert batch.labels is not None
            labels.append(batch.labels.values_BK[:, 0].numpy())
        for name, parts in (("fields", fields), ("history", histories), ("label", labels)):
            np.save(folder / f"{split}.{name}.npy", np.concatenate(parts))
    rows = [data.transform.id_maps[name].num_rows for name in FIELDS]
    (folder / "settings.json").write_text(json.dumps(SETTINGS | {"rows": rows}))


def ours(model: str, seed: int, data: PreparedData, runs: Path) -> dict[str, Any]:
    training = TrainConfig(
        epochs=SETTINGS["epochs"],
        batch_size=SETTINGS["batch_size"],
        lr=SETTINGS["lr"],
        early_stop="liked.auc",
        patience=SETTINGS["patience"],
        seed=seed,
        checkpoint_every_steps=None,
        log_every_steps=100,
    )
    clock = Clock()
    trained = train_ranker(
        rankers()[model],
        data,
        runs / f"{model}-{seed}",
        training,
        seed=seed,
        last_n=SETTINGS["history"],
        exclude=EXCLUDE,
        callbacks=[clock],
    )
    auc = predict(trained.run, trained.ranker, data, "test").metrics("liked").auc
    return {"auc": auc, "epochs": clock.epochs, "seconds_an_epoch": clock.seconds / clock.epochs}


class Clock(Callback):
    """Epochs trained and the processor's seconds of training them, without validation."""

    def __init__(self) -> None:
        self.epochs, self.seconds = 0, 0.0
        self.begun = self.last = time.process_time()

    def on_step(self, ranker: nn.Module, report: StepReport) -> None:
        self.last = time.process_time()

    def on_validate(self, ranker: nn.Module, step: int, metrics: TaskMetrics) -> None:
        self.epochs, self.seconds = self.epochs + 1, self.seconds + self.last - self.begun
        self.begun = time.process_time()


def peer(library: str, model: str, seed: int, python: Path, arrays: Path, out: Path) -> dict[str, Any]:
    script = Path(__file__).parent / "peers" / "movielens_models.py"
    words = ["--arrays", arrays, "--library", library, "--model", model, "--seed", seed, "--out", out]
    told = subprocess.run([python, script, *map(str, words)], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(told.splitlines()[-1])


def environment_of_peers(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEERS, "scikit-learn"], check=True)
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=list(rankers()), default=list(rankers()))
    parser.add_argument("--work", type=Path, help="keep prepared data, runs and the peers' environment here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        work = (options.work or Path(scratch)).resolve()
        data = prepared(options.data, work / "data")
        inputs = Inputs.of(data.schema, last_n=SETTINGS["history"], exclude=EXCLUDE)
        if not (work / "arrays" / "settings.json").exists():  # written last
            export(data, inputs, work / "arrays")
        python = environment_of_peers(work / "peers")
        failed = False
        for model in options.models:
            auc: dict[str, list[float]] = {"fullrank": [], **{library: [] for library in LIBRARIES}}
            for seed in range(options.seeds):
                for library in auc:
                    name = f"{library}-{model}-{seed}"

                    def make(library: str = library, name: str = name, model: str = model, seed: int = seed) -> Any:
                        if library == "fullrank":
                            return ours(model, seed, data, work / "runs")
                        return peer(library, model, seed, python, work / "arrays", work / f"{name}.npy")

                    found = kept(work / "found" / f"{name}.json", make)
                    auc[library].append(found["auc"])
                    rounded = {"auc": round(found["auc"], 5), "epochs": found["epochs"]}
                    seconds = round(found["seconds_an_epoch"], 1)
                    line = {"model": model, "library": library, "seed": seed, **rounded, "seconds_an_epoch": seconds}
                    print(json.dumps(line), flush=True)
            for library in LIBRARIES:
                d = paired_difference(auc["fullrank"], auc[library], higher_is_better=True)
                good = d.low > -WITHIN
                failed |= not good
                words = f"fullrank - {library}"
                numbers = {"auc": round(d.mean, 5), "low": round(d.low, 5), "high": round(d.high, 5)}
                print(json.dumps({"model": model, "library": words, **numbers, "ok": good}), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
