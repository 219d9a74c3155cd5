"""The seam between an export and a format of annotations (`trainer/exports/`)."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from configs.kinds import KindConfig
from trainer.sample import Target, UInt8Array

Split = Literal["train", "val"]


@dataclass(frozen=True, slots=True, eq=False)
class ExportedScene:
    """One scene with its annotation. name: its image file's, without a folder.

    owner: uint8 (size, size), the order of the object that a pixel shows, 0 for none. orders: that of each of
    the target's objects. truncated: objects that the scene's edge cuts.
    """

    number: int
    name: str
    split: Split
    size: int
    target: Target
    owner: UInt8Array
    orders: tuple[int, ...]
    truncated: tuple[bool, ...]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return self.name.rpartition(".")[0]

    def mask(self, place: int) -> UInt8Array:
        """What is seen of an object, uint8 (size, size), 0 or 1. Of one that is too thin for the pixels of a
        scene that was made smaller, its box.
        """
        mask: UInt8Array = (self.owner == self.orders[place]).astype(np.uint8)
        if not mask.any():
            x0, y0, x1, y1 = self.target.boxes[place]
            mask[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = 1
        return mask


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of a written scene until the annotation of all is. note: the format's own, plain JSON."""

    number: int
    name: str
    split: Split
    note: Any


Entries = Callable[[], Iterator[Entry]]


class ExportConfig(KindConfig):
    """A format's settings; each format's file has one subclass.

    image: file format of the scenes. quality: of JPEG. val_share: of the scenes, spread evenly, that are in
    the split ``val``; they show the same crops and backgrounds as the others.
    """

    image: Literal["jpg", "png"] = "jpg"
    quality: int = Field(default=95, ge=1, le=100)
    val_share: float = Field(default=0.0, ge=0, lt=1)

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those that there are."""
        return ("train", "val") if self.val_share else ("train",)

    def split_of(self, number: int) -> Split:
        """A scene's, by its number alone."""
        return "val" if int((number + 1) * self.val_share) > int(number * self.val_share) else "train"

    def image_path(self, split: Split, name: str) -> str:
        """Where an image is in the folder."""
        return f"images/{split}/{name}"

    def check(self, classes: tuple[str, ...], size: int) -> None:
        """Raises InputError when the format cannot say such scenes."""

    def files(self, scene: ExportedScene, classes: tuple[str, ...]) -> Mapping[str, bytes]:
        """What is written beside a scene's image, by path in the folder."""
        raise NotImplementedError

    def note(self, scene: ExportedScene) -> Any:
        """What `documents` needs of a scene, plain JSON."""
        raise NotImplementedError

    def documents(self, entries: Entries, classes: tuple[str, ...], size: int) -> Mapping[str, Iterator[str]]:
        """Annotation of all scenes, by path, piece by piece. entries: starts again each time it is called."""
        raise NotImplementedError

    def reading(self, folder: str) -> str:
        """How the result is opened, one line."""
        raise NotImplementedError
