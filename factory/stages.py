"""The seams of the factory: what passes from a source to a segmenter to the gate."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from configs.kinds import KindConfig

Scalar = str | int | float
UInt8Array = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class ObjectImage:
    """One image that shows one object. name: the file, relative to its root, or the generator's index.
    alpha: the image's own opacity 0..255, where it comes with one.
    """

    name: str
    image: UInt8Array  # (H, W, 3) RGB
    origin: Mapping[str, Scalar] = field(default_factory=dict)
    alpha: UInt8Array | None = None  # (H, W)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A source's slot whose image could not be read. why: one line without the name."""

    name: str
    why: str


@dataclass(frozen=True, slots=True, eq=False)
class Segmentation:
    """Where the object is. mask: uint8 (H, W) opacity 0..255, of the image's size.
    confidence: 0..1, how sure the segmenter is, without labels; each segmenter says how it is measured.
    is_whole: the frame itself is taken for the object, by choice; the gate lets it pass.
    """

    mask: UInt8Array  # (H, W)
    confidence: float
    is_whole: bool = False


class ObjectSource(Protocol):
    """A numbered row of object images: slot ``i`` always holds the same one."""

    @property
    def size(self) -> int | None:
        """Number of slots; None when endless (a generator)."""
        ...

    def images(self, start: int, count: int) -> Iterator[ObjectImage | Unreadable]:
        """Slots ``start`` to ``start + count`` in order, fewer where a finite source ends."""
        ...

    def identity(self) -> Mapping[str, Scalar]:
        """What fixes the slots' content (hash of the listing, of the weights): part of the fingerprint."""
        ...


class Segmenter(Protocol):
    """Finds the object, without labels."""

    def segment(self, images: Sequence[ObjectImage]) -> list[Segmentation]:
        """Masks in the order of the images. Depends on nothing but the images."""
        ...

    def identity(self) -> Mapping[str, Scalar]:
        """What fixes its masks besides its config (hash of the weights): part of the fingerprint."""
        ...


class SourceConfig(KindConfig):
    """A source kind's settings; each kind's file has one subclass."""

    def open(self, seed: int, home: Path) -> ObjectSource:
        """The source itself. Raises InputError when its files are missing or wrong."""
        raise NotImplementedError


class SegmenterConfig(KindConfig):
    """A segmenter kind's settings; each kind's file has one subclass."""

    def open(self, home: Path) -> Segmenter:
        """The segmenter itself. Raises InputError when its files are missing or wrong."""
        raise NotImplementedError
