"""The seam between the stream and a kind of boxed data set (`trainer/datasets/`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.kinds import KindConfig
from trainer.sample import Target


@dataclass(frozen=True, slots=True, eq=False)
class BoxedImage:
    """One annotated photo, not yet read. target's boxes are pixels of the file's own size, clipped to it."""

    key: str
    path: Path
    width: int
    height: int
    target: Target


class DatasetConfig(KindConfig):
    """A data set kind's settings; each kind's file has one subclass."""

    root: Path

    def read(self, split: str, classes: Sequence[str], home: Path) -> list[BoxedImage]:
        """The annotated images of a split, in the order of the data set's own files.

        Label ``i + 1`` is ``classes[i]``; objects of other classes are left out, images without objects stay.
        A relative root is taken from the working directory, else from home.
        Raises InputError: place, found, wanted.
        """
        raise NotImplementedError


def nested_subset(count: int, size: int, seed: int) -> list[int]:
    """The first ``size`` of a seeded order of ``range(count)``: a larger subset holds every smaller one.

    The order is numpy's legacy permutation, so seed 2020 gives the paper's subsets.
    """
    return [int(i) for i in np.random.RandomState(seed).permutation(count)[:size]]
