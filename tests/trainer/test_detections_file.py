import numpy as np
import pytest

from configs.errors import InputError
from trainer.evaluation.detections_file import read_detections, write_detections
from trainer.sample import Detections


def test_detections_come_back_exactly(tmp_path) -> None:
    rng = np.random.default_rng(0)
    written = [
        Detections(
            rng.random((n, 4), np.float32), rng.random(n, np.float32), rng.integers(1, 4, n).astype(np.int64)
        )
        for n in (3, 0, 5)
    ]
    path = tmp_path / "a" / "detections.npz"
    write_detections(path, ["x/1.jpg", "empty", "ü"], written)
    found = read_detections(path)
    assert list(found) == ["x/1.jpg", "empty", "ü"]
    for before, after in zip(written, found.values(), strict=True):
        for name in ("boxes", "scores", "labels"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name), strict=True)
    assert [file.name for file in path.parent.iterdir()] == ["detections.npz"]


def test_no_images_are_no_detections(tmp_path) -> None:
    write_detections(tmp_path / "none.npz", [], [])
    assert read_detections(tmp_path / "none.npz") == {}


def test_a_file_of_another_kind_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"none\.npz: no such file"):
        read_detections(tmp_path / "none.npz")
    for name, content in (("text.npz", b"abc"), ("empty.npz", b""), ("cut.npz", b"PK\x03\x04abc")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=rf"{name}: .*: wanted detections that trainer.run wrote"):
            read_detections(tmp_path / name)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(InputError, match=r"other\.npz: "):
        read_detections(tmp_path / "other.npz")
