"""Make docs/results.md of benchmarks/results/*.json, and docs/performance.md of those in its folder `performance`. A
test re-renders them and fails where a page says otherwise."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from missed import MISSED  # beside this file

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "results.md"
HEAD = """# Results

Every number here was printed by the command above its table and is stored in `benchmarks/results/`. Repeat one with
`python benchmarks/record.py LABEL --threshold … -- COMMAND`; `python benchmarks/render.py` makes this page.
"""

PERFORMANCE = ROOT / "benchmarks" / "results" / "performance"
PERFORMANCE_PAGE = ROOT / "docs" / "performance.md"
PERFORMANCE_HEAD = """# Performance

`fullrank bench` remakes this page on a machine of yours; every number is stored in `benchmarks/results/performance/`,
with the least and the most of its runs, versions and command. Contenders are processes of their own that do some steps
in turns. Numbers are medians, with the least and the most in brackets. `ratio` is that of medians and is held against
the target; `of the best` is that of the fastest steps, which other work on the machine changes least. A target that is
missed stays as it is, with what we know of why.
"""
ABOUT = {
    "table_step": """The table step alone: from the gradients of 26 × 4096 look-ups to updated rows of 5.2 M × 16 in
float32. Ours is row-wise Adagrad (backward, merge, apply). Theirs: fbgemm's fused exact row-wise Adagrad (its backward;
its look-up apart), and one `nn.Embedding(sparse=True)` with `SparseAdam` or sparse `Adagrad` (backward and step).
Counted bytes: ids and gradients read once, touched rows and their state read and written once.""",
    "dcnv2_training": """Whole steps of DCNv2: 39 categorical features of width 16, three full-rank cross layers beside
an MLP of 400 × 3, batches of 4096 rows in memory, Zipf 1.05 ids. *By hand* is plain torch with one table and the
fastest of its table optimizers in that dtype, found by a look at all of them; *fbgemm* is the same above fused row-wise
Adagrad; *fuxictr* and *torch-rechub* are their own layers in float32 with their own optimizer, **dense Adam** over
every row of every table, which is why their steps cost more with more rows. Ours touches rows of the batch alone.""",
    "time_to_auc": """Seconds of training, without validation, until DCNv2 of the sizes above reaches a level of
validation AUC on a simulated log whose true probabilities are known: a share, chosen before, of the way from a half to
what these reach. 39 features: 13 of the log and 26 crosses of two. One pass over the rows, the same batches in the same
order for everybody, who train and are validated in turns; some seeds, each with an order and first weights of its own.
*By hand*: the table optimizer that was there first on the first seed, out of all that keep a state; *fuxictr*: its
layers and **dense Adam** in float32.""",
    "table_growth": """The same step of ours as its tables grow; the target is a ratio of times.""",
    "beyond_memory": """The same step with all tables on disk, in a process that has less memory than they are large
(resident memory and page cache together), beside the same tables in memory. Ids are drawn anew for every batch; changed
rows are held in memory until there are 2 M, then their files are written. A step of the figure is the median one; below
is what checkpoints add.""",
    "dense_step": """RankMixer's blocks alone (16 tokens of 256, 2 layers, expansion 2), forward and backward, beside
the matrix products they are made of, each in the fastest way that torch has for it. MFU: FLOPs (3 · 4 k L T D² a row) a
second over the best of 5 products of 4096 × 4096 in bf16, in the same process. *eager* is the same with torch's own
bodies.""",
    "scoring": """One user with 50 events × 1,000 candidates, RankMixer (16 tokens of 128, 2 layers, expansion 2; 4.2
GFLOP), from ids to logits, a call after another. What belongs to the user is read and encoded once a call; from the
first mixing on every number depends on the candidate too. Scores are compared with the ranker called plainly in
float32.""",
    "streams": """Whole training steps of TokenFormer (width 64, two full layers, windows of 32 and 16) on requests of
    one
candidate with lognormal histories (sigma 1), beside the same weights padded to the longest stream of a batch. Padding
stands behind the candidate, so torch's own causal attention and one mask a layer serve all rows.""",
    "backbones": """What backbones make of the processor: the recipes of `benchmarks/backbones`, whole training steps of
1,024 rows of a simulated log with at most 20 events, and one request with 1,000 candidates. FLOPs are those of the
plain-torch bodies, by torch's counter. *of products*: of the best rate of float32 products of 2048 × 2048 in the same
process.""",
    "top_k": """The best of many items by inner product, float32; torch: `matmul` and `topk`.""",
    "same_quality": """Do models learn as well by compiled bodies as by the plain-torch references? The same data, order
and first weights, some seeds each with either; the 90 % interval of the paired difference of test AUC shall lie inside
± 0.0005.""",
    "din": """Whole steps of DIN: requests of one candidate with a history each, lognormal with a median of 40 and at
most 1,000 events; 100,000 items of width 16, an activation unit of (80, 40) with Dice, an MLP of (200, 80), 1,024
rows a batch in memory. Ours computes the pairs there are, with lazy Adam for the table. *By hand* and *fuxictr* are
padded to the longest of the batch: plain torch with SparseAdam, and its own layers in float32 with **dense Adam**.""",
    "loader": """Loaders alone: 39 categories and a label of 1 M rows, in batches of 4,096, out of the same Parquet
file or their own format of it; each asked for an epoch as its own training loop asks. Shuffled is held against
shuffled, in order against in order; PyArrow does not shuffle and meets both. *npz* of fuxictr and *arrays* of
torch-rechub go through Python row by row, and are asked for the first 64 batches of an epoch.""",
    "prepare": """A log in the shape of Criteo's (13 numbers, 26 categories as texts, a label, a time), from Parquet
to ids and scaled numbers of three splits: keys counted on the training rows, at least 10 times. *fuxictr*: its
`FeatureProcessor` and `build_dataset`; *polars*: a script written for this log. Ours also checks every value, hashes
its input, bounds its memory and keeps what serving needs. Memory: of a process and all it started.""",
    "curves": """The same step of DCNv2 at other sizes: 5 M rows, batch 4096, 39 features, width 16 but for what
changes. *By hand*: plain torch with sparse Adagrad. By history: a step of DIN, 1,024 rows with histories of that median
length (lognormal, at most 1,000), beside the same padded by hand. Memory is the peak of a process that trains in both
dtypes.""",
}


def performance(folder: Path = PERFORMANCE) -> str:
    """The page of performance, as it should be."""
    parts = [PERFORMANCE_HEAD]
    for name, about in ABOUT.items():
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        stored = json.loads(path.read_text(encoding="utf-8"))
        parts += [f"## {name}", about]
        figures, checks = stored["figures"], stored.get("checks", [])
        parts += [figures_table(figures), *_parts(figures)] if figures else []
        parts += [checks_table(checks)] if checks else []
        for caption, rows in stored.get("tables", {}).items():
            parts += [f"{caption}:", table(rows)]
        if name in MISSED and not all(one["ok"] for one in (*figures, *checks)):
            parts += [f"**Missed.** {MISSED[name]}"]
        parts += [_measured_on([*figures, *checks])] if figures or checks else []
        for key, found in stored.items():
            if key.startswith("look at"):
                parts += [
                    f"By hand, a {key}, rows/s:",
                    table([{"optimizer": k, "rows/s": v} for k, v in found.items()]),
                ]
            elif key.startswith("profile of"):
                for dtype, operations in found.items():
                    parts += [f"Where the time of our step goes, {dtype}, {key[11:]} (torch's profiler):"]
                    parts += [table(operations)]
            elif name == "curves" and key not in ("label", "figures", "checks", "tables"):
                parts.append(f"![Time and memory by {key}](figures/step_by_{key}.svg)")
    return "\n\n".join(parts).rstrip() + "\n"


def figures_table(figures: list[dict[str, Any]]) -> str:
    """Figures (see `performance/measured.py`) as a table."""
    return table(
        [
            {
                "figure": figure["label"] + (f" ({figure['note']})" if figure["note"] else ""),
                "unit": figure["unit"],
                "ours": _spread(figure["runs"]["ours"]),
                "theirs": _spread(figure["runs"]["theirs"]),
                "ratio": figure["ratio"],
                "of the best": figure["ratio_of_best"],
                "target": figure["threshold"],
                "met": figure["ok"],
                "peak MiB, ours – theirs": _peaks(figure["runs"]["ours"], figure["runs"]["theirs"]),
            }
            for figure in figures
        ]
    )


def checks_table(checks: list[dict[str, Any]]) -> str:
    """Checks (see `performance/measured.py`) as a table."""
    return table(
        [
            {
                "checked": check["label"] + (f" ({check['note']})" if check["note"] else ""),
                "value": check["value"],
                "target": check["threshold"],
                "met": check["ok"],
            }
            for check in checks
        ]
    )


def _parts(figures: list[dict[str, Any]]) -> list[str]:
    """What was timed beside the figures, if anything was, each once a value."""
    rows = []
    for figure in figures:
        for name, run in figure["runs"].items():
            if name not in ("ours", "theirs"):
                row = {"beside": figure["label"].partition(":")[0], "what": name, figure["unit"]: _spread(run)}
                rows += [row] if row not in rows else []
    return [table(rows)] if rows else []


def _peaks(*runs: dict[str, Any]) -> str:
    return " – ".join(_number(run["peak_mib"]) if run["peak_mib"] else "?" for run in runs)


def _spread(run: dict[str, Any]) -> str:
    if run["n"] == 1:
        return _cell(run["median"])
    return f"{_number(run['median'])} [{_number(run['low'])} – {_number(run['high'])}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"


def _measured_on(found: list[dict[str, Any]]) -> str:
    """A line a command: what, where, when; of several of its figures the busiest machine."""
    lines = []
    for command in dict.fromkeys(one["command"] for one in found):
        own = [one for one in found if one["command"] == command]
        figures = [one for one in own if "runs" in one]  # of checks only the machine is told
        on, last = own[-1]["machine"], own[-1]
        line = (
            f"* `{command}`: {last['date']}, commit {last['commit']}; {on['cpu']}, {on['threads']} threads on "
            f"{on['cores']} cores, {on['memory_gib']} GiB, huge pages {on['huge_pages']}; before, the load was "
            f"{on['load']}"
        )
        if figures:
            others = max(run["others"] or 0 for figure in figures for run in figure["runs"].values())
            line += f", and meanwhile others took up to {others:.0%} of the cores"
        versions = {name: version for figure in figures for name, version in figure["versions"].items()}
        versions = versions or {name: on[name] for name in ("torch", "numpy", "fullrank")}
        line += f"; Python {on['python']}; " + ", ".join(f"{name} {version}" for name, version in versions.items())
        lines.append(line + (f"; n = {figures[-1]['runs']['ours']['n']}" if figures else ""))
    return "\n".join(lines)


def rendered(folder: Path = ROOT / "benchmarks" / "results") -> str:
    """The page, as it should be."""
    parts = [HEAD]
    for path in sorted(folder.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        on = stored["environment"]
        machine = f"{on['cpu']}, {on['threads']} threads, Python {on['python']}, torch {on['torch']}"
        parts += [
            f"## {stored['label']}",
            f"`{stored['command']}`",
            f"Threshold: {stored['threshold']}. Exit code {stored['exit_code']}, n = {len(stored['runs'])}, "
            f"{stored['date']}, commit {stored['commit']}; {machine}.",
            table([run for run in stored["runs"] if run.get("day", "mean") == "mean"]),
        ]
        if any(run.get("day", "mean") != "mean" for run in stored["runs"]):
            parts.append("Lines of single days are in the stored file.")
    return "\n\n".join(parts).rstrip() + "\n"


def table(runs: list[dict[str, Any]]) -> str:
    """Of Markdown, a row a run; empty where a run has no such value."""
    names = list(dict.fromkeys(name for run in runs for name in run))
    lines = [names, ["---"] * len(names), *([_cell(run.get(name)) for name in names] for run in runs)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: ""}[value]
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


if __name__ == "__main__":
    PAGE.write_text(rendered(), encoding="utf-8")
    PERFORMANCE_PAGE.write_text(performance(), encoding="utf-8")
