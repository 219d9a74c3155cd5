"""MATLAB's files: the same values as SciPy reads, and a damaged file never ends the program."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.errors import InputError
from trainer.boxed_data.matlab import read_mat

io = pytest.importorskip("scipy.io")
DATA = Path(__file__).parents[3] / "shared" / "data"


def cells(*values: Any) -> Any:
    column = np.empty((len(values), 1), object)
    column[:, 0] = values
    return column


def table() -> Any:
    rows = np.zeros((1, 2), [("x", object), ("name", object)])
    rows[0, 0], rows[0, 1] = (3, "a.jpg"), (np.array([[1.5, 2], [3, 4]]), "bé")
    return rows


VALUES: dict[str, Any] = {
    "number": 3.5,
    "grid": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
    "flags": np.array([[0], [1]], np.uint8),
    "nothing": np.zeros((0, 4)),
    "texts": np.array(["one", "three"]),
    "cells": cells("a", cells(np.array([[1, 2], [3, 4]], np.uint16), np.zeros((0, 0)))),
    "table": table(),
}


def same(one: Any, other: Any) -> bool:
    """Equal in shape and value; fields' names too."""
    if one.shape != other.shape or one.dtype.names != other.dtype.names:
        return False
    if one.dtype.names:
        return all(same(one[name], other[name]) for name in one.dtype.names)
    if one.dtype == object:
        pairs = zip(one.ravel(), other.ravel(), strict=True)
        return all(same(a, b) for a, b in pairs)
    return bool(np.array_equal(np.char.rstrip(one) if one.dtype.kind == "U" else one, other))


@pytest.mark.parametrize("packed", [False, True])
def test_every_kind_of_value_is_read_as_scipy_reads_it(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / "a.mat"
    io.savemat(path, VALUES, do_compression=packed)
    theirs, ours = io.loadmat(path), read_mat(path, list(VALUES))
    assert list(ours) == list(VALUES)
    assert [name for name in VALUES if not same(theirs[name], ours[name])] == []


def test_the_published_tables_are_read_as_scipy_reads_them() -> None:
    path = DATA / "wider_gt" / "wider_easy_val.mat"
    if not path.is_file():
        pytest.skip("the development data is not here")
    names = ["event_list", "file_list", "face_bbx_list", "gt_list"]
    theirs, ours = io.loadmat(path), read_mat(path, names)
    assert all(same(theirs[name], ours[name]) for name in names)


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def file_of(*elements: bytes) -> bytes:
    return b"MATLAB".ljust(124) + b"\x00\x01IM" + b"".join(elements)


def matrix(kind: int, shape: tuple[int, ...], *parts: bytes, name: bytes = b"x") -> bytes:
    sides = element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, element(6, struct.pack("<II", kind, 0)) + sides + element(1, name) + b"".join(parts))


NESTED = b""
for _ in range(2000):
    NESTED = matrix(1, (1, 1), NESTED)

DAMAGED = {
    "another class": matrix(5, (1, 1), element(9, bytes(8))),
    "shape of more than there is": matrix(1, (2**15, 2**15)),
    "negative shape": matrix(6, (-1, 1), element(9, b"")),
    "too few numbers": matrix(6, (2, 2), element(9, bytes(8))),
    "no content": matrix(6, (1, 1)),
    "cut off": matrix(6, (1, 1), element(9, bytes(8)))[:-8],
    "size past the end": struct.pack("<II", 14, 2**31),
    "not a variable": element(9, bytes(8)),
    "fields without length": matrix(2, (1, 1), element(5, struct.pack("<i", 0)), element(1, b"a")),
    "text of another shape": matrix(4, (1, 9), element(16, b"abc")),
    "not text": matrix(4, (1, 2), element(16, b"\xff\xff")),
    "nested too deeply": NESTED,
    "a bomb": element(15, zlib.compress(bytes(2**27), 9)),
    "not compressed": element(15, b"hello"),
    "nothing compressed": element(15, zlib.compress(b"")),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_refused(tmp_path: Path, what: str) -> None:
    (tmp_path / "a.mat").write_bytes(file_of(DAMAGED[what]))
    with pytest.raises(InputError, match=r"a.mat: .*wanted a .mat file of version 5"):
        read_mat(tmp_path / "a.mat", ["x"])


@pytest.mark.parametrize("content", [b"", b"\x89HDF", file_of()[:127], b"MATLAB".ljust(124) + b"\x00\x02IM"])
def test_a_file_of_another_kind_or_version_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(InputError, match=r"wanted a .mat file of version 5"):
        read_mat(tmp_path / "a.mat", ["x"])


def test_a_file_of_the_other_byte_order_is_read(tmp_path: Path) -> None:
    def tag(kind: int, content: bytes) -> bytes:
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    parts = [tag(6, struct.pack(">II", 6, 0)), tag(5, struct.pack(">2i", 1, 2)), tag(1, b"x")]
    whole = tag(14, b"".join([*parts, tag(9, struct.pack(">2d", 1.5, -2))]))
    (tmp_path / "a.mat").write_bytes(b"MATLAB".ljust(124) + b"\x01\x00MI" + whole)
    assert read_mat(tmp_path / "a.mat", ["x"])["x"].tolist() == [[1.5, -2]]
