"""The table of a run: every phase that was asked for has its figures, and no other."""

from typing import Any

import pytest

from configs.load import apply_overrides
from trainer.runs.config import Cell, RunConfig
from trainer.runs.summary import score_table

BASE: dict[str, Any] = {
    "crops": ["c"],
    "backgrounds": "b",
    "dataset": {"kind": "cub", "root": "r"},
    "detector": {"kind": "ssd"},
    "num_real": [10],
    "seeds": [0, 1],
}


def table(phases: str) -> list[str]:
    config = RunConfig.model_validate(apply_overrides(BASE, [f"phases={phases}"]))

    def scores_of(cell: Cell) -> dict[str, Any]:
        return {"AP50": {"scratch": 0.1, "pretrain": 0.2, "finetune": 0.3, "mixed": 0.4}[cell.phase]}

    lines = score_table(config, scores_of, "AP50").splitlines()
    return ["|".join(cell.strip() for cell in line.split("|")[1:-1]) for line in (lines[0], *lines[2:])]


@pytest.mark.parametrize(
    ("phases", "wanted"),
    [
        ("[pretrain]", ["AP50, real photos|pretrained", "0 (pretrained only)|20.0 ± 0.0"]),
        ("[scratch]", ["AP50, real photos|from scratch", "10|10.0 ± 0.0"]),
        (
            "[scratch, pretrain]",
            [
                "AP50, real photos|from scratch|pretrained",
                "0 (pretrained only)||20.0 ± 0.0",
                "10|10.0 ± 0.0|",
            ],
        ),
        (
            "[pretrain, finetune, mixed]",
            [
                "AP50, real photos|pretrained, finetuned|mixed",
                "0 (pretrained only)|20.0 ± 0.0|",
                "10|30.0 ± 0.0|40.0 ± 0.0",
            ],
        ),
    ],
)
def test_every_phase_shows_its_figures(phases: str, wanted: list[str]) -> None:
    assert table(phases) == wanted
