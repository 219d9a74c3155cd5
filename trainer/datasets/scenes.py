"""Scenes with known boxes, made of crops and backgrounds: to test on where no boxed photo is at hand."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from configs.errors import InputError
from configs.home import locate
from trainer.boxed_data.annotations import check_class, check_split
from trainer.compositing.config import CompositorConfig
from trainer.dataset import BoxedImage, DatasetConfig
from trainer.sample import Sample
from trainer.streaming.crop_pool import CropCollection
from trainer.streaming.sets import open_set
from trainer.streaming.stream import SyntheticStream

_SPLITS = ("train", "test")


class ScenesConfig(DatasetConfig):
    """Composites as a data set. Measures on them say how well composites are learnt, not how well photos are:
    give it crops and backgrounds that no training saw.

    root: folder where the scenes are kept as PNG. crops, backgrounds: sets, as in a run.
    count: scenes a split.
    """

    kind: Literal["scenes"] = "scenes"
    root: Path = Path("data/scenes")
    crops: str
    backgrounds: str
    count: int = Field(default=100, gt=0)
    seed: int = Field(default=0, ge=0)
    compositor: CompositorConfig = CompositorConfig(max_objects=2)

    def read(self, split: str, classes: Sequence[str], home: Path) -> list[BoxedImage]:
        """See `DatasetConfig.read`. The splits are ``train`` and ``test``; both show the same crops."""
        check_split(Path(self.crops), split, _SPLITS)
        crops = CropCollection([open_set(self.crops, "crops", home)])
        for name in classes:
            check_class(Path(self.crops), name, set(crops.classes))
        labels = {name: label for label, name in enumerate(classes, start=1)}
        missing = sorted(set(crops.classes) - set(classes))
        if missing:
            raise InputError(f"{self.crops}: holds {', '.join(missing)}, wanted {', '.join(classes)} only")
        backgrounds = open_set(self.backgrounds, "backgrounds", home)
        seed = 2 * self.seed + _SPLITS.index(split)
        stream = SyntheticStream(crops, backgrounds, self.compositor, labels, seed)
        folder = locate(self.root, home)
        return [_kept(stream[i], folder / f"{split}-{seed}-{i:05d}.png") for i in range(self.count)]

    def split_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.split_names`."""
        return list(_SPLITS)

    def class_names(self, home: Path) -> list[str]:
        """See `DatasetConfig.class_names`: those of the crops."""
        return list(CropCollection([open_set(self.crops, "crops", home)]).classes)


def _kept(scene: Sample, path: Path) -> BoxedImage:
    """The scene on disk, written when it is not there already with these pixels."""
    height, width = scene.image.shape[:2]
    coded, content = cv2.imencode(".png", np.ascontiguousarray(scene.image[..., ::-1]))
    if not coded:
        raise OSError(f"{path}: could not be coded as PNG")
    data = content.tobytes()
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
        beside.write_bytes(data)
        beside.replace(path)
    return BoxedImage(path.stem, path, width, height, scene.target)
