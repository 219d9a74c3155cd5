"""MATLAB's ``.mat`` files of versions 5 to 7.2, as data sets come with them: read here, bounds checked.

The format is The MathWorks' "MAT-File Format": a header of 128 bytes, then elements, each a tag of type and
size with its content, padded to 8 bytes; a matrix is an element of elements. (SciPy's reader, tried first,
ended the whole program on damaged files.)
"""

import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from configs.errors import InputError

_HEADER_BYTES, _TAG_BYTES = 128, 8
_MATRIX, _COMPRESSED = 14, 15
_STORED = dict(enumerate(("i1", "u1", "i2", "u2", "i4", "u4", "f4"), 1)) | {9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_CELL, _STRUCT, _CHAR = 1, 2, 4
_NUMBERS = dict(enumerate(("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"), 6))
_COMPLEX = 0x0800
_MOST_BYTES = 2**26  # of one variable, unpacked; the largest published table of boxes has a quarter of it
_MOST_SIDES = 8


def read_mat(path: Path, wanted: Sequence[str]) -> dict[str, Any]:
    """These variables of a file, in this order: arrays as MATLAB shapes them, numbers in their own type.

    Cells are arrays of objects; structs have named fields of objects; rows of text are one str each.
    Raises InputError for a file that is missing, of another kind, damaged, or without one of them.
    """
    what = "wanted a .mat file of version 5 to 7.2, whole"
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, wanted MATLAB's {', '.join(wanted)}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}, {what}") from error
    try:
        content = _variables(data, wanted)
    except RecursionError:
        raise InputError(f"{path}: nested too deeply, {what}") from None
    except (ValueError, struct.error, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: {reason}, {what}") from error
    if missing := [name for name in wanted if name not in content]:
        raise InputError(f"{path}: no variable '{missing[0]}', wanted {', '.join(wanted)}")
    return {name: content[name] for name in wanted}


@dataclass(frozen=True, slots=True)
class _Element:
    kind: int
    content: memoryview


def _variables(data: bytes, wanted: Sequence[str]) -> dict[str, Any]:
    if len(data) < _HEADER_BYTES or data[126:128] not in (b"IM", b"MI"):
        raise ValueError("no header of MATLAB's")
    order = "<" if data[126:128] == b"IM" else ">"
    (version,) = struct.unpack_from(f"{order}H", data, 124)
    if version != 0x0100:
        raise ValueError(f"version {version >> 8}.{version & 255} of the format")
    found: dict[str, Any] = {}
    for element in _elements(memoryview(data)[_HEADER_BYTES:], order):
        if element.kind == _COMPRESSED:
            element = _next(_elements(_unpacked(element.content), order))
        if element.kind != _MATRIX:
            raise ValueError(f"an element of type {element.kind} where a variable is wanted")
        parts = _elements(element.content, order)
        flags, shape, name = _head(parts, order)
        if name in wanted:
            found[name] = _array(flags, shape, parts, len(element.content), order)
    return found


def _unpacked(packed: memoryview) -> memoryview:
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(packed, _MOST_BYTES)
    if not unpacking.eof:
        raise ValueError(f"a variable cut short, or of more than {_MOST_BYTES:,} bytes")
    return memoryview(content)


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """Each element. Raises ValueError where one goes past the end, also when one more is asked for there."""
    at = 0
    while at < len(data):
        if len(data) - at < _TAG_BYTES:
            raise ValueError("cut off in a tag")
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + _TAG_BYTES
        if kind >> 16:  # four bytes or less lie in the tag itself
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        end = start + size
        if end > len(data) or (start == at + 4 and size > 4):
            raise ValueError("cut off in an element")
        yield _Element(kind, data[start:end])
        at = end if kind == _COMPRESSED else at + _TAG_BYTES if start == at + 4 else end + -size % 8


def _next(parts: Iterator[_Element]) -> _Element:
    part = next(parts, None)
    if part is None:
        raise ValueError("cut off where an element is wanted")
    return part


def _head(parts: Iterator[_Element], order: str) -> tuple[int, tuple[int, ...], str]:
    """Flags and class, shape, and name of a matrix."""
    flags = _stored(_next(parts), order)
    shape = tuple(_stored(_next(parts), order).tolist())
    name = str(_next(parts).content, "latin-1")
    if len(flags) < 1 or flags.dtype.kind != "u" or not 2 <= len(shape) <= _MOST_SIDES:
        raise ValueError("a matrix without class or shape")
    if not all(isinstance(side, int) and 0 <= side <= _MOST_BYTES for side in shape):
        raise ValueError(f"a matrix of shape {shape}")
    return int(flags[0]), shape, name


def _array(flags: int, shape: tuple[int, ...], parts: Iterator[_Element], size: int, order: str) -> Any:
    """A matrix's values. size: its bytes, which bound the parts that it can have."""
    kind, count = flags & 0xFF, math.prod(shape)
    if kind == _CHAR:
        return _rows_of_text(_next(parts), shape, order)
    if kind in _NUMBERS:
        values = _stored(_next(parts), order).astype(_NUMBERS[kind])
        if flags & _COMPLEX or len(values) != count:
            raise ValueError(f"{len(values)} numbers, or complex ones, in a matrix of shape {shape}")
        return values.reshape(shape, order="F")
    if kind not in (_CELL, _STRUCT):
        raise ValueError(f"a matrix of class {kind}: only numbers, text, cells and structs are read")
    if count * _TAG_BYTES > size:
        raise ValueError(f"a matrix of shape {shape} in {size} bytes")
    if kind == _STRUCT:
        return _records(shape, parts, size, order)
    cells = np.empty(count, object)
    for place in range(count):
        cells[place] = _inner(_next(parts), order)
    return cells.reshape(shape, order="F")


def _records(shape: tuple[int, ...], parts: Iterator[_Element], size: int, order: str) -> Any:
    (length, *_), text = _stored(_next(parts), order).tolist() or [0], bytes(_next(parts).content)
    if not isinstance(length, int) or not 0 < length <= max(len(text), 1):
        raise ValueError("a struct without names of fields")
    names = [text[at : at + length].partition(b"\0")[0].decode() for at in range(0, len(text), length)]
    count = math.prod(shape)
    if not all(names) or len(set(names)) < len(names) or count * len(names) * _TAG_BYTES > size:
        raise ValueError(f"a struct of shape {shape} with the fields {names}")
    records = np.empty(count, [(name, object) for name in names])
    for place in range(count):
        for name in names:
            records[name][place] = _inner(_next(parts), order)
    return records.reshape(shape, order="F")


def _inner(element: _Element, order: str) -> Any:
    """A matrix in a cell or a field."""
    if element.kind != _MATRIX:
        raise ValueError(f"an element of type {element.kind} where a matrix is wanted")
    if not element.content:
        return np.zeros((0, 0))
    parts = _elements(element.content, order)
    flags, shape, _ = _head(parts, order)
    return _array(flags, shape, parts, len(element.content), order)


def _stored(element: _Element, order: str) -> Any:
    """The numbers of an element, in the type they are stored as, which may be smaller than their own."""
    if element.kind not in _STORED:
        raise ValueError(f"an element of type {element.kind} where numbers are wanted")
    return np.frombuffer(element.content, np.dtype(f"{order}{_STORED[element.kind]}"))


def _rows_of_text(element: _Element, shape: tuple[int, ...], order: str) -> Any:
    """A text of (rows, columns) characters as (rows,) of str, without the blanks at their ends."""
    if element.kind not in _TEXTS:
        raise ValueError(f"an element of type {element.kind} where text is wanted")
    code = _TEXTS[element.kind]
    suffix = ("-le" if order == "<" else "-be") if code in ("utf-16", "utf-32") else ""
    text = str(element.content, code + suffix)
    rows = shape[0] if math.prod(shape) else 0
    if len(shape) != 2 or rows * shape[1] != len(text):
        raise ValueError(f"{len(text)} characters in a text of shape {shape}")
    return np.array([text[row::rows].rstrip(" \0") for row in range(rows)], np.str_)
