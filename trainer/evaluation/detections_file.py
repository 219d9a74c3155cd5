"""What a detector found in named images, kept exactly, so that metrics and reports need not detect again."""

import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import InputError
from trainer.sample import Detections

_ARRAYS = ("keys", "counts", "boxes", "scores", "labels")


# What zipfile and NumPy raise on a file that is cut, damaged or lies about itself (RuntimeError: encrypted).
_FOREIGN = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RuntimeError, MemoryError),
    *(SyntaxError, OverflowError, struct.error, zlib.error, zipfile.BadZipFile),
)


def write_detections(path: Path, keys: Sequence[str], detections: Sequence[Detections]) -> None:
    """A compressed NumPy archive, whole or not at all. keys: the images' names, in the same order.

    Arrays: keys (N,) text; counts (N,) int64, detections of each image; then of all images' detections in
    one row: boxes (D, 4) float32 xyxy in pixels of the file, scores (D,) float32, labels (D,) int64.
    """
    arrays = {
        "keys": np.array(keys, dtype=np.str_),
        "counts": np.array([len(found.scores) for found in detections], np.int64),
        "boxes": np.concatenate([np.zeros((0, 4), np.float32), *(d.boxes for d in detections)]),
        "scores": np.concatenate([np.zeros(0, np.float32), *(d.scores for d in detections)]),
        "labels": np.concatenate([np.zeros(0, np.int64), *(d.labels for d in detections)]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with beside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def read_detections(path: Path) -> dict[str, Detections]:
    """Detections by the images' names. Raises InputError for a missing or foreign file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            keys, counts, boxes, scores, labels = (archive[name] for name in _ARRAYS)
            _check(keys, counts, boxes, scores, labels)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except _FOREIGN as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: {reason}: wanted detections that trainer.run wrote") from error
    ends = np.cumsum(counts)
    return {
        str(key): Detections(boxes[end - n : end], scores[end - n : end], labels[end - n : end])
        for key, n, end in zip(keys, counts, ends, strict=True)
    }


def _check(keys: Any, counts: Any, boxes: Any, scores: Any, labels: Any) -> None:
    """Raises ValueError where the arrays are not what `write_detections` says of them."""
    types = [array.dtype for array in (counts, boxes, scores, labels)]
    dimensions = [array.ndim for array in (keys, counts, boxes, scores, labels)]
    is_ours = keys.dtype.kind == "U" and types == [np.int64, np.float32, np.float32, np.int64]
    if not is_ours or dimensions != [1, 1, 2, 1, 1] or len(keys) != len(counts):
        raise ValueError("arrays of other types or shapes")
    total = len(scores)
    if boxes.shape != (total, 4) or len(labels) != total:
        raise ValueError(f"{total} scores, {len(labels)} labels and boxes of shape {boxes.shape}")
    if (counts.size and not 0 <= counts.min() <= counts.max() <= total) or int(counts.sum()) != total:
        raise ValueError(f"counts that do not sum to {total}")
