"""The seam between the stream and a kind of boxed data set (`trainer/datasets/`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from configs.kinds import KindConfig
from trainer.sample import FloatArray, Target


@dataclass(frozen=True, slots=True, eq=False)
class BoxedImage:
    """One annotated photo, not yet read. target's boxes are pixels of the file's own size, clipped to it.

    annotated: the boxes before clipping, (M, 4) xyxy px, with those that target lost by it; None when nothing
    was clipped.
    """

    key: str
    path: Path
    width: int
    height: int
    target: Target
    annotated: FloatArray | None = None


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

    def split_names(self, home: Path) -> list[str]:
        """The splits that `read` knows, in their natural order. Raises InputError without the data set."""
        raise NotImplementedError

    def class_names(self, home: Path) -> list[str]:
        """The classes that the data set names, or none when all of its objects are one class of any name."""
        return []


def nested_subset(count: int, size: int, seed: int) -> list[int]:
    """The first ``size`` of a seeded order of ``range(count)``: a larger subset holds every smaller one.

    The order is numpy's legacy permutation, so seed 2020 gives the paper's subsets.
    """
    return [int(i) for i in np.random.RandomState(seed).permutation(count)[:size]]
