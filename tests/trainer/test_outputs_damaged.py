"""What fuzzing found in the files that trainings leave."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from configs.errors import InputError
from trainer.evaluation.detections_file import read_detections, write_detections
from trainer.sample import Detections
from trainer.training.checkpoint import load_checkpoint


def arrays() -> dict[str, Any]:
    return {
        "keys": np.array(["a", "b"]),
        "counts": np.array([1, 0]),
        "boxes": np.ones((1, 4), np.float32),
        "scores": np.ones(1, np.float32),
        "labels": np.array([1]),
    }


@pytest.mark.parametrize(
    "change",
    [
        {"counts": np.array([1, 1])},
        {"counts": np.array([2, -1])},
        {"counts": np.array([1])},
        {"counts": np.array(["1", "0"])},
        {"keys": np.array([1, 2])},
        {"boxes": np.ones((1, 5), np.float32)},
        {"boxes": np.ones((1, 4))},
        {"scores": np.float32(1)},
        {"labels": np.array([1, 2])},
    ],
)
def test_detections_of_other_types_or_shapes_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    np.savez(tmp_path / "a.npz", **(arrays() | change))
    with pytest.raises(InputError, match=r"a.npz: .*: wanted detections that trainer.run wrote"):
        read_detections(tmp_path / "a.npz")


@pytest.mark.parametrize(("offset", "value"), [(4, 250), (6, 1), (8, 99), (40, 255)])
def test_a_damaged_archive_of_detections_is_refused(tmp_path: Path, offset: int, value: int) -> None:
    path = tmp_path / "a.npz"
    write_detections(
        path, ["a"], [Detections(np.ones((1, 4), np.float32), np.ones(1, np.float32), np.array([1]))]
    )
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("boxes.npy").header_offset
    middle = content.index(b"PK\x01\x02")  # the archive's table of contents
    content[start + offset] = content[middle + offset + 2] = value
    path.write_bytes(content)
    with pytest.raises(InputError, match="wanted detections that"):
        read_detections(path)


def test_one_array_is_no_file_of_detections(tmp_path: Path) -> None:
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="wanted detections"):
        read_detections(tmp_path / "a.npz")


def test_a_checkpoint_whose_error_says_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise EOFError

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(InputError, match="EOFError: wanted a checkpoint of this program"):
        load_checkpoint(tmp_path / "last.pt")
