"""What an experiment has found: ``results.json``, and the table that the command prints."""

import csv
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from configs.text_file import write_text
from trainer.experiments.config import ExperimentConfig, PlannedRun
from trainer.experiments.sharing import Plan, Training
from trainer.runs.config import RunConfig
from trainer.runs.provenance import read_origins

_PAPER = Path(__file__).with_name("paper_tables.csv")
_ALL_OF_WIDER = 12880  # photos of its training split


def write_results(
    experiment: ExperimentConfig,
    runs: Sequence[PlannedRun],
    plan: Plan,
    failures: Mapping[Training, str],
    out: Path,
) -> dict[str, Any]:
    """Write and return what there is so far."""
    cells = [cell for run in runs for cell in _cells_of(run, plan, failures, out)]
    results = {
        "name": experiment.name,
        "title": experiment.title,
        **_origin(out),
        "cells": cells,
        "paper": paper_rows(experiment),
    }
    write_text(out / "results.json", json.dumps(results, indent=1) + "\n")
    return results


def _origin(out: Path) -> dict[str, Any]:
    """Of the last command that trained; of one from before that was kept, what the results say already."""
    path = out / "results.json"
    if origins := read_origins(out):
        return {"commit": origins[-1].commit, "machine": origins[-1].machine}
    known = json.loads(path.read_text()) if path.exists() else {}
    return {"commit": known.get("commit"), "machine": known.get("machine")}


def _cells_of(
    run: PlannedRun, plan: Plan, failures: Mapping[Training, str], out: Path
) -> list[dict[str, Any]]:
    found = []
    for cell in run.cells:
        if cell.phase not in run.conditions:
            continue
        training = plan.of[run.name, cell]
        scores = out / training.folder / "scores.json"
        steps, seconds = steps_and_seconds(out / training.folder, training.run.config, training)
        found.append(
            {
                "run": run.name,
                "object": run.object,
                "detector": run.detector,
                "condition": run.conditions[cell.phase],
                "num_real": cell.num_real,
                "seed": cell.seed,
                "scores": json.loads(scores.read_text()) if scores.exists() else None,
                "steps": steps,
                "seconds": round(seconds, 1),
                "folder": str(training.folder),
                "error": failures.get(training),
            }
        )
    return found


def steps_and_seconds(folder: Path, config: RunConfig, training: Training) -> tuple[int, float]:
    """Steps that are done, and the time they took without any validation, by ``metrics.jsonl``."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    logged = [json.loads(line) for line in lines if "images_per_s" in line and line.endswith("}")]
    images = config.training_of(training.cell.phase).batch_size
    steps = [0, *(int(line["step"]) for line in logged)]
    seconds = [
        images * (last - first) / line["images_per_s"]
        for (first, last), line in zip(pairwise(steps), logged, strict=True)
        if line["images_per_s"]
    ]
    return steps[-1], sum(seconds)


def paper_rows(experiment: ExperimentConfig) -> list[dict[str, Any]]:
    """The rows of the paper's tables that the experiment names, of its objects; percent of AP50.

    The file's source: the paper's Tables I to VII.
    """
    with _PAPER.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {
            "table": row["table"],
            "object": row["object"],
            "detector": row["backbone"],
            "condition": row["condition"],
            "num_real": _ALL_OF_WIDER if row["n_real"] == "all" else int(row["n_real"]),
            "mean": float(row["mean"]),
            "std": float(row["std"]) if row["std"] else None,
        }
        for row in rows
        if row["table"] in experiment.paper and row["object"].split("_")[0] in experiment.objects
    ]


def result_table(results: Mapping[str, Any], metric: str = "AP50") -> str:
    """Markdown: a row for each object, detector and condition, a column for each amount of photos."""
    amounts = sorted({cell["num_real"] for cell in results["cells"]})
    groups: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    for cell in results["cells"]:
        row = groups.setdefault((cell["object"], cell["detector"], cell["condition"]), {})
        if cell["scores"] is not None and metric in cell["scores"]:
            row.setdefault(cell["num_real"], []).append(100 * cell["scores"][metric])
    head = ["object", "detector", f"{metric}, real photos:", *map(str, amounts)]
    body = [[*key, *(_entry(row.get(n, [])) for n in amounts)] for key, row in groups.items()]
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    padded = [
        " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        for row in [head, *body]
    ]
    lines = [f"| {row} |" for row in padded]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def _entry(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{np.mean(values):.1f}" + (f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else "")
