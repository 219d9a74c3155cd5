"""Pickles of strangers: plain data come out, code never runs."""

import os
import pickle
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import InputError
from factory.generators.foreign_pickle import TfNetwork, is_plain_pickle, read_foreign_pickle


class _Runs:
    """Pickled, it is a call."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self._call = (function, args)

    def __reduce__(self):
        return self._call


def _read(path: Path):
    return read_foreign_pickle(path, "a network")


def _written(tmp_path: Path, content: object, protocol: int = 4) -> Path:
    path = tmp_path / "network.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_come_back(tmp_path: Path, protocol: int) -> None:
    content = {
        "array": np.arange(6, dtype=np.float32).reshape(2, 3),
        "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big-endian": np.array([1, 2], ">i4"),
        "scalar": np.float64(0.7),
        "tensor": torch.arange(6.0).reshape(2, 3).t(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "ordered": OrderedDict(a=(1, None, True)),
        "set": {3},
        "bytes": b"\xff",
    }
    path = _written(tmp_path, content, protocol)
    assert is_plain_pickle(path)
    found = _read(path)
    for name in ("array", "columns", "big-endian", "tensor"):
        np.testing.assert_array_equal(found[name], content[name])
    assert torch.equal(found["parameter"], torch.ones(2))
    assert (found["scalar"], found["ordered"], found["set"]) == (0.7, {"a": (1, None, True)}, {3})
    assert found["bytes"] == b"\xff"


def test_files_of_torch_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    for is_zip in (False, True):
        torch.save({"a": torch.ones(1)}, path, _use_new_zipfile_serialization=is_zip)
        assert not is_plain_pickle(path)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("system", (os.system, "touch {}")),
        ("eval", (eval, "open({!r}, 'w')")),
        ("exec", (exec, "open({!r}, 'w')")),
        ("open", (open, "{}", "w")),
        ("getattr", (getattr, "{}", "upper")),
    ],
)
def test_a_call_is_refused_by_name_and_never_made(tmp_path: Path, name: str, args) -> None:
    planted = tmp_path / "planted"
    function, *texts = args
    hostile = _Runs(function, *(text.format(str(planted)) for text in texts))
    path = _written(tmp_path, (np.zeros(1), hostile))
    with pytest.raises(InputError, match=rf"it names \w+\.{name}, which is not allowed\), wanted a network"):
        _read(path)
    assert not planted.exists()


def test_attributes_reached_through_an_allowed_module_are_refused(tmp_path: Path) -> None:
    for module, name in (
        ("dnnlib.util", "EasyDict.__init__"),
        ("numpy", "load"),
        ("torch", "load"),
        ("torch.storage", "os.system"),
        ("factory.generators.foreign_pickle", "TfNetwork"),
    ):
        path = tmp_path / "a.pkl"
        path.write_bytes(b"\x80\x02c" + f"{module}\n{name}\n.".encode())
        with pytest.raises(InputError, match="which is not allowed"):
            _read(path)


def test_a_pickle_cannot_change_what_it_is_read_with(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    for name in ("dnnlib.tflib.network\nNetwork", "dnnlib.util\nEasyDict", "_codecs\nencode"):
        state = b"N}X\x05\x00\x00\x00items" + b"K\x07s\x86"  # (None, {"items": 7}): set attributes
        path.write_bytes(b"\x80\x02c" + name.encode() + b"\n" + state + b"b.")
        with pytest.raises(InputError):
            _read(path)
        assert not hasattr(TfNetwork, "items")
    assert _read(_written(tmp_path, OrderedDict(a=1))) == {"a": 1}


@pytest.mark.parametrize(
    "content",
    [
        np.array(["text"]),
        np.array([object()], dtype=object)[:0],
        np.zeros(2, dtype=[("a", "f4"), ("b", "i4")]),
        np.array([1], "datetime64[s]"),
    ],
)
def test_arrays_of_anything_but_numbers_are_refused(tmp_path: Path, content) -> None:
    with pytest.raises(InputError, match=r"not of numbers|is not allowed"):
        _read(_written(tmp_path, content))


def test_an_array_whose_bytes_do_not_fit_its_shape_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path, np.zeros(3, np.float32))
    path.write_bytes(path.read_bytes().replace(b"K\x03\x85", b"K\x09\x85"))
    with pytest.raises(InputError, match="12 bytes for an array of"):
        _read(path)


def test_a_tensor_that_reaches_past_its_storage_is_refused(tmp_path: Path) -> None:
    whole = torch.zeros(4).__reduce_ex__(4)
    path = _written(tmp_path, _Runs(whole[0], whole[1][0], 2, (4,), (1,), False, OrderedDict()))
    with pytest.raises(InputError, match="out of bounds"):
        _read(path)


def test_a_truncated_pickle_is_refused(tmp_path: Path) -> None:
    path = _written(tmp_path, {"array": np.arange(99), "text": "x" * 50})
    whole = path.read_bytes()
    for length in (2, 30, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(
            InputError, match=r"network\.pkl: not readable as a pickle .*, wanted a network"
        ) as error:
            _read(path)
        assert "\n" not in str(error.value)


def test_references_to_other_objects_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02X" + struct.pack("<I", 1) + b"aQ.")
    with pytest.raises(InputError, match="outside itself"):
        _read(path)
