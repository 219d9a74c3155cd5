"""Print a resolved configuration with where each value comes from: ``python -m configs.show birds``."""

import argparse
import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from configs.entry import Parser, run
from configs.errors import InputError
from configs.home import find_config, packaged_names
from configs.kinds import did_you_mean
from configs.load import apply_overrides, read_yaml, validated

FAMILIES: Mapping[str, tuple[str, str, str]] = {
    "class": ("classes", "factory.recipe", "Recipe"),
    "run": ("runs", "trainer.runs.config", "RunConfig"),
    "gan": ("gan", "factory.gan.learner", "GanConfig"),
    "copy_paste": ("copy_paste", "factory.copy_paste.learner", "CopyPasteConfig"),
}
"""What is configured: the folder of its packaged files, and the model that reads them."""

_NOT_SET = object()
_EXAMPLES = """examples:
  python -m configs.show birds
  python -m configs.show run/birds pretrain.steps=100
  python -m configs.show class/cars segmenter.kind=grabcut
  python -m configs.show run/my-run.yaml

NAME alone is looked for among classes, runs and presets, and each that has it is shown. Beside each value
stands where it is from: the file, the command line, a preset that another value chose, or the default."""


def main(argv: list[str]) -> int:
    """Parse, resolve, print."""
    args = _parse(argv)
    names = [text for text in args.arguments if "=" not in text]
    overrides = [text for text in args.arguments if "=" in text]
    if len(names) != 1:
        raise InputError(f"found {len(names)} names ({', '.join(names)}), wanted one, for example birds")
    families = _families_of(names[0])
    if overrides and len(families) > 1:
        raise InputError(f"{names[0]}: of which? wanted {' or '.join('/'.join(pair) for pair in families)}")
    for number, (family, name) in enumerate(families):
        print("\n" * bool(number) + "\n".join(resolved_lines(family, name, overrides)))
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        "configs.show", "Print a resolved configuration with where each value comes from.", _EXAMPLES
    )
    known = "; ".join(f"{family}/ {', '.join(packaged_names(FAMILIES[family][0]))}" for family in FAMILIES)
    parser.add_argument("arguments", nargs="+", metavar="NAME key=value", help=f"{known}; or a YAML file")
    return parser.parse_intermixed_args(argv)


def _families_of(name: str) -> list[tuple[str, str]]:
    family, slash, rest = name.partition("/")
    if slash and family in FAMILIES:
        return [(family, rest)]
    found = [(key, name) for key, (folder, _, _) in FAMILIES.items() if name in packaged_names(folder)]
    if found:
        return found
    if name.endswith((".yaml", ".yml")):
        raise InputError(f"{name}: of a class, a run or a preset? wanted for example run/{name}")
    known = sorted({stem for folder, _, _ in FAMILIES.values() for stem in packaged_names(folder)})
    raise InputError(f"no configuration {did_you_mean(name, known)}")


def resolved_lines(family: str, name: str, overrides: Sequence[str]) -> list[str]:
    """YAML that the same model reads back, its origins as comments. Raises InputError."""
    folder, module, model_name = FAMILIES[family]
    path = find_config(folder, name, family)
    given = read_yaml(path)
    model: type[BaseModel] = getattr(importlib.import_module(module), model_name)
    config = validated(model, apply_overrides(given, overrides), f"{family} {name}")
    of_command = apply_overrides({}, overrides)
    lines = [(f"# {family} {name}: {_shown(path)}", "")]
    for depth, key, value, place in _leaves(config.model_dump(mode="json"), ()):
        text = f"{'  ' * depth}{key}:" + ("" if value is _NOT_SET else f" {_inline(value)}")
        origin = "" if value is _NOT_SET else _origin(place, value, given, of_command, config, _shown(path))
        lines.append((text, origin))
    width = min(max(len(text) for text, _ in lines), 60)
    return [f"{text:<{width}}  # {origin}" if origin else text for text, origin in lines]


def _leaves(
    value: Mapping[str, Any], place: tuple[str, ...]
) -> Iterator[tuple[int, str, Any, tuple[str, ...]]]:
    for key, item in value.items():
        here = (*place, key)
        if isinstance(item, Mapping) and item:
            yield len(place), key, _NOT_SET, here
            yield from _leaves(item, here)
        else:
            yield len(place), key, item, here


def _origin(
    place: tuple[str, ...],
    value: Any,
    of_file: Mapping[str, Any],
    of_command: Mapping[str, Any],
    config: BaseModel,
    file: str,
) -> str:
    if _is_given(of_command, place):
        return "command line"
    if _is_given(of_file, place):
        return file
    default = _default(config, place)
    return "default" if default is _NOT_SET or default == value else "preset"


def _is_given(data: Mapping[str, Any], place: tuple[str, ...]) -> bool:
    """Whether the value is written out there, alone or within a larger one."""
    below: Any = data
    for key in place:
        if not isinstance(below, Mapping):
            return True
        if key not in below:
            return False
        below = below[key]
    return True


def _default(config: BaseModel, place: tuple[str, ...]) -> Any:
    """As JSON has it; not set where the value lies in no model's field, or the field has none."""
    for key in place[:-1]:
        below = getattr(config, key, None)
        if not isinstance(below, BaseModel):
            return _NOT_SET
        config = below
    field = type(config).model_fields.get(place[-1])
    if field is None or field.is_required():
        return _NOT_SET
    bare = type(config).model_construct(**{place[-1]: field.get_default(call_default_factory=True)})
    return bare.model_dump(mode="json", include={place[-1]}, warnings=False)[place[-1]]


def _inline(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def _shown(path: Path) -> str:
    """A packaged file as ``configs/...``, another as it was named."""
    packaged = Path(__file__).parent
    return f"configs/{path.relative_to(packaged)}" if path.is_relative_to(packaged) else str(path)


if __name__ == "__main__":
    run(main)
