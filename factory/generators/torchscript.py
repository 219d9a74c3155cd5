"""TorchScript programs of strangers: looked through before they are loaded, and again before they run.

`torch.jit.load` imports no Python and runs no pickle of Python's: its own reader knows tensors, numbers,
containers and classes whose methods are TorchScript. But it runs a class's ``__setstate__`` while loading,
and a program may call ``torch.save`` and ``torch.from_file``, which write and read any file. So a file whose
source has ``__setstate__`` is not loaded, and a program whose graph holds anything but calls of torch's
``aten`` operators without these two, and the language's own, is not run.

TorchScript is deprecated since torch 2.5 and not supported on Python 3.14: prefer ``torch.export``.
"""

import io
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import InputError

WANTED = "a TorchScript program of torch.jit.save that only calls torch's own operators"

_DENIED = frozenset(["aten::save", "aten::from_file"])
_LANGUAGE = frozenset(
    [
        *("Constant", "CreateObject", "EnumValue", "GetAttr", "If", "ImplicitTensorToNum", "Loop", "SetAttr"),
        *("DictConstruct", "ListConstruct", "ListUnpack", "TupleConstruct", "TupleIndex", "TupleSlice"),
        *("TupleUnpack", "NumToTensor", "Print", "RaiseException", "Uninitialized", "isinstance", "tolist"),
        *("unchecked_cast", "unchecked_unwrap_optional", "abs", "data", "device", "dtype", "grad", "is_cuda"),
        *("layout", "max", "min", "requires_grad", "shape", "type"),
    ]
)


class TorchScriptProgram:
    """A function of one tensor, on the CPU.

    Not optimised, for torch does that in the course of its first runs, and kernels that it fuses may round
    differently from then on.
    """

    def __init__(self, module: Any) -> None:
        self._module = module

    def __call__(self, values: Tensor) -> Tensor:
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            output: Tensor = self._module.forward(values)  # and none of the module's hooks
        return output


def read_torchscript(path: Path) -> TorchScriptProgram:
    """The program in a TorchScript archive. Raises InputError, naming what it does that is not allowed."""
    archive = _without_code_at_loading(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*torch.jit.* is (deprecated|not supported).*")
            module = torch.jit.load(archive, map_location="cpu").eval()  # type: ignore[no-untyped-call]
        graph = module.forward.inlined_graph
        num_inputs = len(list(graph.inputs())) - 1  # the first is the module
        nodes = sorted({node.kind() for node in _nodes(graph)})
    except (RuntimeError, ValueError, AttributeError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{path}: cannot be loaded ({reason}), wanted {WANTED}") from error
    foreign = next((kind for kind in nodes if not _is_allowed(kind)), None)
    if foreign is not None:
        raise InputError(f"{path}: it calls {foreign}, wanted {WANTED}")
    if num_inputs != 1:
        raise InputError(f"{path}: takes {num_inputs} inputs, wanted one tensor of latent vectors")
    return TorchScriptProgram(module)


def _without_code_at_loading(path: Path) -> io.BytesIO:
    """The archive, written anew: torch's zip reader and Python's may take a crafted one for two."""
    anew = io.BytesIO()
    try:
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(anew, "w") as copy:
            for name in dict.fromkeys(archive.namelist()):
                content = archive.read(name)
                if name.lower().endswith(".py") and b"__setstate__" in content:
                    raise InputError(
                        f"{path}: {name} has __setstate__, which runs at loading, wanted {WANTED}"
                    )
                copy.writestr(name, content)
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: not an archive ({error}), wanted {WANTED}") from error
    anew.seek(0)
    return anew


def _nodes(block: Any) -> Iterator[Any]:
    """The nodes of a graph or block, and of the blocks inside."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _is_allowed(kind: str) -> bool:
    """Whether a node is an operator of aten or of the language; calls that hide where they lead are not."""
    space, _, name = kind.partition("::")
    return (space == "aten" and kind not in _DENIED) or (space == "prim" and name in _LANGUAGE)
