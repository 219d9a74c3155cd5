"""A program of ``torch.export`` (a .pt2 file), read as data and run here, one operator after the other.

`torch.export.load` is not for files of strangers: torch 2.15 reads sample inputs, pickled weights and
constants with ``weights_only=False`` where the safe way fails, evaluates the text of symbolic sizes with
sympy and that of guards as Python, and opens compiled libraries that the archive carries. None of this is
touched here. The archive is a zip; its graph is JSON, a list of calls of torch's ``aten`` operators; its
weights are bare bytes. Calls of any other thing are refused. What is left to trust is that torch's kernels
stand any arguments.
"""

import json
import math
import operator
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import InputError

WANTED = "a program saved by torch.export.save of torch 2.9 or later"

_NO_GRAD = "torch.ops.higher_order.wrap_with_set_grad_enabled"
_DENIED = ("from_file", "save")  # the operators of aten that touch files
_ARITHMETIC = frozenset(
    [
        *("add", "sub", "mul", "floordiv", "truediv", "mod", "neg"),
        *("eq", "ne", "lt", "le", "gt", "ge"),
    ]
)
_ON_SIZES: Mapping[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in _ARITHMETIC},
    "_operator.getitem": operator.getitem,
    "math.ceil": math.ceil,
    "math.floor": math.floor,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch.sym_float": float,
}
# The numbers of torch/_export/serde/schema.py.
_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}
_STRIDED = 7
_PLAIN = ("as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string", "as_int_lists")
_FORM_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, LookupError),
    *(TypeError, ValueError, AttributeError),
)

Argument = Mapping[str, Any]


class ExportedProgram:
    """A function of one tensor, on the CPU. input_shape: its shape, None for an axis of any length.

    input_dtype: float32, or what the program was exported with.
    """

    def __init__(self, model: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """``model``: the archive's ``models/model.json``. Raises ValueError for what is not supported."""
        module = model["graph_module"]
        graph, signature = module["graph"], module["signature"]
        self._values: dict[str, Any] = {}
        inputs = [self._bind(spec, tensors) for spec in signature["input_specs"]]
        names = [name for name in inputs if name is not None]
        outputs = [_only(spec) for spec in signature["output_specs"]]
        if len(names) != 1 or [kind for kind, _ in outputs] != ["user_output"]:
            kinds = ", ".join(kind for kind, _ in outputs)
            raise ValueError(f"{len(names)} inputs and the outputs {kinds}, wanted one tensor in and one out")
        self._input = names[0]
        self._output = outputs[0][1]["arg"]["as_tensor"]["name"]
        self._steps = _steps_of(graph)
        meta = graph["tensor_values"][self._input]
        self.input_dtype = _DTYPES[meta["dtype"]]
        self.input_shape = tuple(size.get("as_int") for size in meta["sizes"])

    def __call__(self, values: Tensor) -> Tensor:
        """The program's output. Raises what torch raises when it does not fit the input."""
        held = {**self._values, self._input: values}
        for step in self._steps:
            step.run(held)
        output: Tensor = held[self._output]
        return output

    def _bind(self, spec: Argument, tensors: Mapping[str, Tensor]) -> str | None:
        """Give one of the graph's inputs its weight; the name of an input that is the user's."""
        kind, content = _only(spec)
        if kind == "user_input":
            return str(content["arg"]["as_tensor"]["name"])
        title = {
            "parameter": "parameter_name",
            "buffer": "buffer_name",
            "tensor_constant": "tensor_constant_name",
        }
        if kind not in title:
            raise ValueError(f"an input of kind '{kind}', wanted weights and one tensor")
        self._values[content["arg"]["name"]] = tensors[content[title[kind]]]
        return None


class _Call:
    """A node of the graph that calls an operator."""

    def __init__(self, node: Argument) -> None:
        target = str(node["target"])
        self._function = _function_of(target)
        self._is_on_sizes = target in _ON_SIZES
        self._inputs = [(item["name"], *_only(item["arg"])) for item in node["inputs"]]
        self._outputs = [_only(item) for item in node["outputs"]]

    def run(self, held: dict[str, Any]) -> None:
        """Put the outputs among the values held."""
        values = {name: _value(kind, content, held) for name, kind, content in self._inputs}
        results = self._function(*values.values()) if self._is_on_sizes else self._function(**values)
        if len(self._outputs) < 2:
            results = [results] * len(self._outputs)
        for (kind, content), result in zip(self._outputs, results, strict=True):
            _keep(kind, content, result, held)


class _Block:
    """A node that holds a graph of its own: the body of ``with torch.no_grad()``, run as if it stood here."""

    def __init__(self, node: Argument) -> None:
        _, body, *operands = (_only(item["arg"]) for item in node["inputs"])
        graph = body[1]["graph"]
        self._steps = _steps_of(graph)
        inner = [_only(item)[1] for item in graph["inputs"]]
        outer = [content for _, content in operands]
        self._given = list(zip(map(_label, inner), outer, strict=True))
        returned = [_only(item)[1] for item in graph["outputs"]]
        self._taken = list(zip((_only(item) for item in node["outputs"]), returned, strict=True))

    def run(self, held: dict[str, Any]) -> None:
        """Put the outputs among the values held; the names inside stay inside."""
        scope = {name: _named(content, held) for name, content in self._given}
        for step in self._steps:
            step.run(scope)
        for (kind, content), returned in self._taken:
            _keep(kind, content, _named(returned, scope), held)


def _steps_of(graph: Argument) -> list[_Call | _Block]:
    return [_Block(node) if node["target"] == _NO_GRAD else _Call(node) for node in graph["nodes"]]


def read_exported_program(path: Path) -> ExportedProgram:
    """The program in a .pt2 file. Raises InputError, saying what was found, for anything else."""
    try:
        with zipfile.ZipFile(path) as archive:
            read = _reader(archive)
            tensors = _read_tensors(read, "weights") | _read_tensors(read, "constants")
            return ExportedProgram(json.loads(read("models/model.json")), tensors)
    except _FORM_ERRORS as error:
        reason = str(error).partition("\n")[0].strip("'\"") or type(error).__name__
        raise InputError(f"{path}: not a program that can be run here ({reason}), wanted {WANTED}") from error


def _reader(archive: zipfile.ZipFile) -> Callable[[str], bytes]:
    names = archive.namelist()
    root = names[0].partition("/")[0] if names else ""

    def read(name: str) -> bytes:
        if f"{root}/{name}" not in names:
            raise ValueError(f"there is no '{name}' in it")
        return archive.read(f"{root}/{name}")

    return read


def _read_tensors(read: Callable[[str], bytes], group: str) -> dict[str, Tensor]:
    """Weights or constants by name; those that share a payload share their memory. No pickle is read."""
    config = json.loads(read(f"data/{group}/model_{group}_config.json"))["config"]
    payloads: dict[str, bytearray] = {}
    tensors: dict[str, Tensor] = {}
    for name, entry in config.items():
        if entry["use_pickle"] or entry["tensor_meta"] is None:
            raise ValueError(f"'{name}' is pickled, which may run code")
        place = str(entry["path_name"])
        if place not in payloads:
            payloads[place] = bytearray(read(f"data/{group}/{place}"))
        tensors[name] = _tensor_of(payloads[place], entry["tensor_meta"])
    return tensors


def _tensor_of(payload: bytearray, meta: Mapping[str, Any]) -> Tensor:
    dtype = _DTYPES[meta["dtype"]]
    sizes, strides = ([size["as_int"] for size in meta[key]] for key in ("sizes", "strides"))
    if not payload:
        return torch.zeros(sizes, dtype=dtype)
    flat = torch.frombuffer(payload, dtype=dtype)
    return torch.as_strided(flat, sizes, strides, meta["storage_offset"]["as_int"])


def _function_of(target: str) -> Callable[..., Any]:
    """The operator of that name. Raises ValueError for anything but aten's and arithmetic on sizes."""
    if target in _ON_SIZES:
        return _ON_SIZES[target]
    match = re.fullmatch(r"torch\.ops\.aten\.([A-Za-z0-9_]+)\.([A-Za-z0-9_]+)", target)
    if match is None or match[1] in _DENIED:
        raise ValueError(f"it calls {target}, wanted operators torch.ops.aten only")
    found = getattr(getattr(torch.ops.aten, match[1]), match[2])
    if not isinstance(found, torch._ops.OpOverload):
        raise ValueError(f"it calls {target}, which is no operator of this torch")
    return found


def _value(kind: str, content: Any, held: Mapping[str, Any]) -> Any:
    """An argument's value. Devices are all the CPU, whatever the program was exported on."""
    if kind == "as_none":
        return None
    if kind in _PLAIN:
        return content
    if kind in ("as_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
        return _named(content, held)
    if kind in ("as_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools"):
        return [_named(item, held) for item in content]
    if kind in ("as_optional_tensor", "as_optional_tensors"):
        several = [
            _value(*_only(item), held) for item in (content if isinstance(content, list) else [content])
        ]
        return several if kind.endswith("s") else several[0]
    if kind == "as_device":
        return torch.device("cpu")
    return _constant(kind, content)


def _constant(kind: str, content: Any) -> Any:
    if kind == "as_scalar_type":
        return _DTYPES[content]
    if kind == "as_memory_format":
        return _MEMORY_FORMATS[content]
    if kind == "as_layout" and content == _STRIDED:
        return torch.strided
    raise ValueError(f"an argument of kind '{kind}', which is not supported")


def _named(content: Argument, held: Mapping[str, Any]) -> Any:
    """A value held under a name, or a number that stands among such."""
    if "name" in content:
        return held[content["name"]]
    kind, value = _only(content)
    return held[value] if kind == "as_name" else value


def _keep(kind: str, content: Any, result: Any, held: dict[str, Any]) -> None:
    if kind == "as_none":
        return
    if kind == "as_tensors":
        held.update((item["name"], value) for item, value in zip(content, result, strict=True))
        return
    held[_label(content)] = result


def _label(content: Argument) -> str:
    """The name under which a tensor or a size is held."""
    return str(content["name"] if "name" in content else content["as_name"])


def _only(union: Argument) -> tuple[str, Any]:
    """The one entry of a tagged value."""
    ((kind, content),) = union.items()
    return str(kind), content


def names_in(path: Path) -> Sequence[str]:
    """The names in a zip archive, without the folder that torch puts first; none for another file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.partition("/")[2] for name in archive.namelist()]
    except _FORM_ERRORS:
        return []
