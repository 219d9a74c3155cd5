import numpy as np
import pytest
import torch
from torch import Tensor

from configs.errors import InputError
from trainer.detector import Detector
from trainer.evaluation.scene_validation import score_on_scenes
from trainer.sample import Detections, Sample, make_target

_CPU = torch.device("cpu")


class Scenes:
    """Scene j has one object of j px at the origin, and says so in its first pixel."""

    def __init__(self, empty: bool = False) -> None:
        self._empty = empty

    def __getitem__(self, index: int) -> Sample:
        image = np.full((64, 64, 3), index, np.uint8)
        return Sample(str(index), image, make_target([] if self._empty else [[0, 0, index + 1, index + 1]]))


class Reader(Detector):
    """Finds what the pixel says, up to a scene."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self._last = last

    def detect(self, images: Tensor) -> list[Detections]:
        sizes = images[:, 0, 0, 0].numpy().astype(np.float32) + 1
        return [
            Detections(
                np.array([[0, 0, size, size]] if size <= self._last else [], np.float32).reshape(-1, 4),
                np.full(int(size <= self._last), 0.9, np.float32),
                np.full(int(size <= self._last), 1, np.int64),
            )
            for size in sizes
        ]


def test_scores_count_every_scene_once() -> None:
    assert score_on_scenes(Reader(40), Scenes(), 40, 1, _CPU) == {"AP50": 1.0, "AP": 1.0}
    half = score_on_scenes(Reader(20), Scenes(), 40, 1, _CPU)
    assert half["AP50"] == pytest.approx(0.5, abs=0.01)
    assert half["AP"] == pytest.approx(0.5, abs=0.01)


def test_scenes_without_objects_are_refused() -> None:
    with pytest.raises(InputError, match="validation_scenes: hold no object to find"):
        score_on_scenes(Reader(1), Scenes(empty=True), 3, 1, _CPU)
