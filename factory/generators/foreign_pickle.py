"""Pickles of the StyleGAN family, read without running any code that they name or carry.

Official networks come as pickles of whole objects, with their Python source inside. Here every name that
a pickle mentions is looked up in one table, whose entries build plain data; a name that is not in it is
refused. Arrays are rebuilt from their bytes, networks become `TfNetwork` and `TorchModule`.
"""

import io
import pickle
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.errors import InputError

_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before its zip files
_NUMBER_KINDS = "fiub"

Array = np.ndarray[Any, np.dtype[Any]]


class _Sealed(type):
    """A class that a pickle cannot change."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise pickle.UnpicklingError(f"it sets {cls.__name__}.{name}")


class TfNetwork(metaclass=_Sealed):
    """A ``dnnlib.tflib.network.Network``: StyleGAN and StyleGAN2 in TensorFlow, without its source text."""

    def __init__(self) -> None:
        self.name = ""
        self.version = 0
        self.static_kwargs: dict[str, Any] = {}
        self.variables: dict[str, Array] = {}
        self.components: dict[str, TfNetwork] = {}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.name, self.version = str(state.get("name", "")), int(state.get("version", 0))
        self.static_kwargs = dict(plain(state.get("static_kwargs", {})))
        self.components = dict(state.get("components", {}))
        self.variables = {str(name): np.asarray(plain(value)) for name, value in state["variables"]}

    def arrays(self, prefix: str = "") -> Iterator[tuple[str, Array]]:
        """Every variable, those of the components under ``component/``."""
        for name, value in self.variables.items():
            yield prefix + name, value
        for name, part in self.components.items():
            yield from part.arrays(f"{prefix}{name}/")


class TorchModule:
    """An object of ``torch_utils.persistence``: StyleGAN2-ADA and StyleGAN3, without its source text."""

    def __init__(self, meta: Mapping[str, Any]) -> None:
        self.class_name = str(meta["class_name"])
        self.state: dict[str, Any] = dict(plain(meta["state"]))

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """What it was made with."""
        return dict(self.state.get("_init_kwargs", {}))

    @property
    def parts(self) -> dict[str, "TorchModule"]:
        """The modules just inside."""
        modules = dict(self.state.get("_modules", {}))
        return {name: module for name, module in modules.items() if isinstance(module, TorchModule)}

    def modules(self) -> Iterator["TorchModule"]:
        """Itself and all that is inside."""
        yield self
        for module in self.parts.values():
            yield from module.modules()

    def tensors(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Parameters and buffers, named as in its state dict."""
        for group in ("_parameters", "_buffers"):
            for name, value in dict(self.state.get(group, {})).items():
                if isinstance(value, Tensor):
                    yield prefix + name, value
        for name, module in self.parts.items():
            yield from module.tensors(f"{prefix}{name}.")


class _Dtype:
    """``numpy.dtype`` of plain numbers."""

    def __init__(self, name: str, *_: object) -> None:
        self.dtype = np.dtype(str(name))
        if self.dtype.kind not in _NUMBER_KINDS:
            raise pickle.UnpicklingError(f"an array of '{name}', not of numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """``numpy.ndarray``, first empty, then given its content."""

    def __init__(self, *_: object) -> None:
        self.value = np.zeros(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        self.value = _array_of(content, dtype, shape, "F" if is_fortran else "C")


class _PlainDict(dict[Any, Any], metaclass=_Sealed):
    """``dnnlib.util.EasyDict``."""


def is_plain_pickle(path: Path) -> bool:
    """Whether the file is a pickle, and not one of torch.save's two formats."""
    with path.open("rb") as file:
        start = file.read(len(_TORCH_LEGACY))
    return start[:1] == b"\x80" and start[1:2] <= b"\x05" and start != _TORCH_LEGACY


def read_foreign_pickle(path: Path, wanted: str) -> Any:
    """The objects in a pickle: containers, numbers, arrays, tensors, `TfNetwork`, `TorchModule`.

    Raises InputError for a name outside the table, and for a file that is cut or broken.
    """
    try:
        with path.open("rb") as file:
            return plain(_Unpickler(file).load())
    except _ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{path}: not readable as a pickle of plain data ({reason}), wanted {wanted}"
        ) from error


def plain(value: Any) -> Any:
    """The value with its arrays and mappings as plain ones."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, _Dtype):
        return value.dtype.name
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


_ERRORS = (
    *(pickle.UnpicklingError, EOFError, OSError, struct.error, RuntimeError, ValueError, LookupError),
    *(TypeError, AttributeError, AssertionError, OverflowError, MemoryError),
)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        place = module.replace("numpy.core.", "numpy._core.", 1).replace("__builtin__", "builtins")
        if (place, name) not in _TABLE:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not allowed")
        entry = _TABLE[place, name]
        return entry if isinstance(entry, _Sealed) else partial(entry)  # a pickle may set attributes of it

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside itself")


def _array_of(content: Any, dtype: Any, shape: tuple[int, ...], order: str) -> Array:
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError("an array that is not made of bytes")
    if len(content) != prod(shape) * dtype.dtype.itemsize:
        raise pickle.UnpicklingError(f"{len(content)} bytes for an array of {shape}")
    flat = np.frombuffer(bytes(content), dtype.dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype: Any, content: bytes) -> float | int | bool:
    value: float | int | bool = _array_of(content, dtype, (), "C").item()
    return value


def _from_buffer(content: Any, dtype: Any, shape: tuple[int, ...], order: str) -> Any:
    return _array_of(content, dtype, shape, order)


def _encode(text: str, encoding: str) -> bytes:
    """How bytes are written by the oldest protocols."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
    return text.encode("latin1")


def _storage(content: bytes) -> Tensor:
    """Its values in a row."""
    storage = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if not isinstance(storage, torch.TypedStorage):
        raise pickle.UnpicklingError(f"a {type(storage).__name__} for a storage")
    return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage)


def _tensor(row: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    if not isinstance(row, Tensor):
        raise pickle.UnpicklingError("a tensor without its storage")
    return row.as_strided(size, stride, offset)


def _parameter(data: Any, *_: object) -> Tensor:
    if not isinstance(data, Tensor):
        raise pickle.UnpicklingError("a parameter without its tensor")
    return data


_TABLE: dict[tuple[str, str], Callable[..., Any]] = {
    ("dnnlib.tflib.network", "Network"): TfNetwork,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): TorchModule,
    ("dnnlib.util", "EasyDict"): _PlainDict,
    ("collections", "OrderedDict"): _PlainDict,
    ("builtins", "set"): set,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
    ("torch.storage", "_load_from_bytes"): _storage,
}
