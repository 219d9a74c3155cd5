"""Brings the weights of others to safetensors, and says what they are: ``python -m factory.convert FILE``."""

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from configs.entry import Parser, run
from configs.errors import InputError
from factory.generators.captions import convert_captions
from factory.generators.found import Found, read_content, write_found
from factory.weights import sha256_of

_PACKAGES = ("factory.generators", "factory.redo")

_EXAMPLES = """examples:
  python -m factory.convert karras2019stylegan-ffhq-1024x1024.pkl
  python -m factory.convert stylegan2-car-config-f.pkl --to data/weights/cars.safetensors
  python -m factory.convert captions.pickle --to data/weights/birds-vocabulary.json
  python -m factory.convert lfw_netM_state.pth --to data/weights/redo-faces.safetensors

No code that a file carries is run. Recipes take the file as it is, too; converted it opens faster,
and needs less space without the discriminator."""


def main(argv: list[str]) -> int:
    """Read, say what was found, write where asked."""
    parser = Parser(
        "factory.convert", "Say what a weight file holds, and write it as safetensors.", _EXAMPLES
    )
    parser.add_argument("file", type=Path, help="a .pkl, .pth, .pt or .safetensors file")
    parser.add_argument("--to", type=Path, metavar="NAME.safetensors", help="where to write it [nowhere]")
    args = parser.parse_args(argv)
    if args.to is not None and args.to.suffix == ".json":
        print(convert_captions(args.file, args.to))
        return 0
    if args.to is not None and args.to.suffix != ".safetensors":
        raise InputError(
            f"--to: found {args.to}, wanted a name that ends with .safetensors (or .json, for captions)"
        )
    found = identify(args.file)
    print(described(found))
    if args.to is not None:
        digest = write_found(found, args.to)
        print(f"{args.to}: {args.to.stat().st_size / 1e6:.1f} MB, sha256 {digest}")
    return 0


def identify(path: Path) -> Found:
    """What the file holds, with a foreign file's name and sha256. Raises InputError when nobody knows it."""
    modules = dict(_recogniser_modules())
    wanted = f"weights that one of {', '.join(modules)} knows"
    content = read_content(path, wanted)
    if isinstance(content, Found):
        return content
    for module in modules.values():
        found: Found | None = module.recognise(content, path)
        if found is not None:
            origin = {"source_file": path.name, "source_sha256": sha256_of(path)}
            return replace(found, facts={**origin, **found.facts})
    raise InputError(f"{path}: holds {_kind_of(content)}, wanted {wanted}")


def described(found: Found) -> str:
    """Family, facts and sizes, a line each."""
    num_values = sum(tensor.numel() for tensor in found.tensors.values())
    lines = {"family": found.family, "tensors": f"{len(found.tensors)}, {num_values:,} values", **found.facts}
    width = max(len(name) for name in lines)
    return "\n".join(f"{name:{width}}  {value}" for name, value in lines.items())


def _recogniser_modules() -> Iterator[tuple[str, Any]]:
    """Modules named ``*_files``, by what stands before that."""
    for package in _PACKAGES:
        for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
            if found.name.endswith("_files"):
                yield found.name.removesuffix("_files"), importlib.import_module(f"{package}.{found.name}")


def _kind_of(content: Any) -> str:
    if isinstance(content, Mapping):
        first = next(iter(content), None)
        what = "tensor" if isinstance(content.get(first), Tensor) else type(content.get(first)).__name__
        return f"{len(content)} entries, the first '{first}' a {what}"
    return f"a {type(content).__name__}"


if __name__ == "__main__":
    run(main)
