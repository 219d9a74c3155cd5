"""What a weight file turned out to hold, and the safetensors file in which this project keeps it.

A recogniser is a function ``recognise(content, path) -> Found | None`` in a module named ``*_files.py`` of
`factory.generators` or `factory.redo`; `factory.convert` finds it by that name. ``content`` is what
`read_content` made of the file at ``path``, when that is no `Found`. None means that the file is of another
kind; InputError, that it is of this kind and broken.
"""

import json
import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from configs.errors import InputError
from factory.generators.foreign_pickle import is_plain_pickle, read_foreign_pickle
from factory.weights import read_weights, sha256_of

FORMAT = "crop-foundry"

Fact = str | int | float


@dataclass(frozen=True)
class Found:
    """A network's weights under our names, with what they do not say themselves.

    family: which network, for example "stylegan2". facts: sizes, defaults, where it came from.
    """

    family: str
    facts: Mapping[str, Fact]
    tensors: dict[str, Tensor]


def read_content(path: Path, wanted: str) -> Any:
    """What a file holds, whose code is never run: a `Found` from our own safetensors file, the objects of
    a pickle (see `read_foreign_pickle`), or what `read_weights` reads.

    Raises InputError, naming what was wanted, for a file that cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, wanted {wanted}")
    if path.suffix != ".safetensors" and is_plain_pickle(path):
        return read_foreign_pickle(path, wanted)
    content = read_weights(path, wanted, allowed=[Namespace])
    if path.suffix == ".safetensors" and _header_of(path).get("format") == FORMAT:
        return _found(_header_of(path), content, path)
    return content


def read_found(path: Path) -> Found:
    """The network that `write_found` wrote. Raises InputError for any other file."""
    content = read_content(path, "a safetensors file of factory.convert")
    if not isinstance(content, Found):
        raise InputError(f"{path}: its header has no format '{FORMAT}', wanted a file of factory.convert")
    return content


def write_found(found: Found, path: Path) -> str:
    """Write the network as safetensors, whole or not at all; returns its sha256. Equal input, equal bytes.

    The header says ``format``, ``family`` and ``facts`` (as JSON).
    """
    facts = json.dumps(dict(found.facts), sort_keys=True)
    header = {"format": FORMAT, "family": found.family, "facts": facts}
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(found.tensors.items())}
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(_with_sorted_header(save(tensors, header)))
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return sha256_of(path)


def _with_sorted_header(file: bytes) -> bytes:
    """The library writes the header's texts in random order; here they are sorted."""
    size = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[8 + size :]


def _header_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _found(header: Mapping[str, str], tensors: dict[str, Tensor], path: Path) -> Found:
    try:
        facts = json.loads(header["facts"])
        if not all(isinstance(value, Fact) for value in facts.values()):
            raise ValueError("a fact is neither text nor number")
        return Found(header["family"], facts, tensors)
    except (KeyError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: broken header ({error}), wanted one of factory.convert") from error
