"""DCNv2 and DIN out of the layers of FuxiCTR and torch-rechub, trained on arrays. Runs in a virtual environment of its
own, where fullrank need not be; `benchmarks/movielens_peers.py` makes both and calls this.

    python movielens_models.py --arrays FOLDER --library fuxictr|torch-rechub --model dcnv2|din --seed N --out FILE.npy

Arrays of a split S: `S.fields.npy` [N, 5] (user, gender, age, occupation, item), `S.history.npy` [N, L] item ids,
oldest first, 0 where there is none, `S.label.npy` [N]; `settings.json` has the sizes. Writes the test rows'
probabilities and prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

FIELDS = ("user", "gender", "age", "occupation", "item")


def begin(model: nn.Module) -> None:
    """The same first weights for all: Xavier-normal, zero biases."""
    for module in model.modules():
        if type(module) is nn.Linear:
            nn.init.xavier_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class FuxiModel(nn.Module):
    """FuxiCTR's layers, composed: the wheel has layers and no models."""

    def __init__(self, model: str, settings: dict) -> None:
        from fuxictr.pytorch.layers import CrossNetV2, DIN_Attention, MaskedAveragePooling, MLP_Block

        super().__init__()
        width, hidden, dropout = settings["width"], settings["hidden"], settings["dropout"]
        self.tables = nn.ModuleList(nn.Embedding(rows, width, padding_idx=0) for rows in settings["rows"])
        for table in self.tables:
            nn.init.normal_(table.weight, std=settings["init_std"])
            with torch.no_grad():
                table.weight[0] = 0
        self.model, flat = model, (len(FIELDS) + 1) * width
        if model == "dcnv2":
            self.pool = MaskedAveragePooling()
            self.cross = CrossNetV2(flat, settings["cross_layers"])
            self.mlp = MLP_Block(flat, hidden, "ReLU", dropout_rates=dropout, batch_norm=True)
            self.out = nn.Linear(hidden[-1] + flat, 1)
        else:
            self.attention = DIN_Attention(width, settings["attention_hidden"], "Dice")
            self.mlp = MLP_Block(flat, hidden, "ReLU", dropout_rates=dropout, batch_norm=True)
            self.out = nn.Linear(hidden[-1], 1)
        begin(self)

    def forward(self, fields: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        own = [table(fields[:, place]) for place, table in enumerate(self.tables)]
        events, mask = self.tables[-1](history), history != 0
        if self.model == "dcnv2":
            flat = torch.cat([*own, self.pool(events, mask)], dim=1)
            return self.out(torch.cat([self.cross(flat), self.mlp(flat)], dim=1)).squeeze(1)
        return self.out(self.mlp(torch.cat([*own, self.attention(own[-1], events, mask)], dim=1))).squeeze(1)


class RechubModel(nn.Module):
    """torch-rechub's own models; they end in a sigmoid, undone here so that all train on logits."""

    def __init__(self, model: str, settings: dict) -> None:
        from torch_rechub.basic.features import SequenceFeature, SparseFeature
        from torch_rechub.basic.initializers import RandomNormal
        from torch_rechub.models.ranking import DIN, DCNv2

        super().__init__()
        width, start = settings["width"], RandomNormal(0, settings["init_std"])
        sparse = [
            SparseFeature(name, rows, width, padding_idx=0, initializer=start)
            for name, rows in zip(FIELDS, settings["rows"], strict=True)
        ]
        mlp = {"dims": settings["hidden"], "dropout": settings["dropout"]}
        pooling = "mean" if model == "dcnv2" else "concat"
        past = SequenceFeature(
            "history", settings["rows"][-1], width, pooling=pooling, shared_with="item", padding_idx=0
        )
        if model == "dcnv2":
            layers = settings["cross_layers"]
            self.inner = DCNv2([*sparse, past], layers, mlp | {"activation": "relu"}, use_low_rank_mixture=False)
        else:
            attention = {"dims": settings["attention_hidden"], "activation": "dice"}
            self.inner = DIN(sparse[:-1], [past], [sparse[-1]], mlp, attention)
        begin(self)

    def forward(self, fields: torch.Tensor, history: torch.Tensor) -> torch.Tensor:
        columns = {name: fields[:, place] for place, name in enumerate(FIELDS)} | {"history": history}
        return torch.logit(self.inner(columns), eps=1e-7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arrays", type=Path, required=True)
    parser.add_argument("--library", choices=["fuxictr", "torch-rechub"], required=True)
    parser.add_argument("--model", choices=["dcnv2", "din"], required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    settings = json.loads((options.arrays / "settings.json").read_text())
    data = {split: load(options.arrays, split) for split in ("train", "valid", "test")}
    model = {"fuxictr": FuxiModel, "torch-rechub": RechubModel}[options.library](options.model, settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["lr"])
    best, kept, bad, epochs, seconds = -1.0, None, 0, 0, 0.0
    rows = len(data["train"][2])
    while epochs < settings["epochs"] and bad < settings["patience"]:
        begun = time.process_time()
        model.train()
        order = torch.randperm(rows)
        for start in range(0, rows, settings["batch_size"]):
            fields, history, label = (column[order[start : start + settings["batch_size"]]] for column in data["train"])
            loss = nn.functional.binary_cross_entropy_with_logits(model(fields, history), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds += time.process_time() - begun
        epochs += 1
        auc = roc_auc_score(data["valid"][2], predicted(model, data["valid"]))
        if auc > best:
            best, bad = auc, 0
            kept = {name: value.clone() for name, value in model.state_dict().items()}
        else:
            bad += 1
    model.load_state_dict(kept)
    probability = predicted(model, data["test"])
    np.save(options.out, probability)
    auc = roc_auc_score(data["test"][2], probability)
    print(json.dumps({"auc": auc, "epochs": epochs, "seconds_an_epoch": seconds / epochs}))


def load(folder: Path, split: str) -> tuple[torch.Tensor, ...]:
    fields, history, label = (np.load(folder / f"{split}.{name}.npy") for name in ("fields", "history", "label"))
    return torch.from_numpy(fields).long(), torch.from_numpy(history).long(), torch.from_numpy(label)


@torch.inference_mode()
def predicted(model: nn.Module, columns: tuple[torch.Tensor, ...]) -> np.ndarray:
    model.eval()
    parts = []
    for start in range(0, len(columns[2]), 8192):
        fields, history, _ = (column[start : start + 8192] for column in columns)
        parts.append(torch.sigmoid(model(fields, history)).numpy())
    return np.concatenate(parts)


if __name__ == "__main__":
    main()
