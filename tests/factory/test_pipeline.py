"""The crops of one shard, as the pipeline makes them."""

from pathlib import Path

import pytest

from factory.pipeline import BATCH, CropLine, ShardTally, ShardTask
from factory.recipe import load_recipe


@pytest.mark.parametrize(("limit", "made"), [(1, BATCH), (BATCH, BATCH), (BATCH + 1, 2 * BATCH)])
def test_an_endless_source_makes_no_batch_of_which_none_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, made: int
) -> None:
    line = CropLine(
        load_recipe("birds", ["segmenter={kind: whole}", "quality={duplicate_bits: null}"]), tmp_path
    )
    sizes: list[int] = []
    segment = line.segmenter.segment
    monkeypatch.setattr(
        line.segmenter, "segment", lambda images: sizes.append(len(images)) or segment(images)
    )
    tally = ShardTally()
    assert sum(1 for _ in line.crops(ShardTask(3, limit), tally)) == limit == tally.kept == tally.seen
    assert sum(sizes) == made
