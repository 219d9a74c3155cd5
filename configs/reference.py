"""The configuration reference, made of the models themselves: ``python -m configs.reference``."""

import importlib
import inspect
import types
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from configs.entry import Parser, run
from configs.kinds import KindConfig, config_class, kinds_in
from configs.show import FAMILIES

_TITLES = {
    "class": "A class: `factory.build --class`",
    "run": "A run: `trainer.run`",
    "gan": "`factory.train_gan`",
    "copy_paste": "`factory.train_copy_paste`",
}
_MORE = {"redo": ("`factory.train_redo`", "factory.redo.settings", "RedoTraining")}
_KIND_PACKAGES: Mapping[str, str] = {
    "SourceConfig": "factory.sources",
    "SegmenterConfig": "factory.segmenters",
    "DatasetConfig": "trainer.datasets",
    "DetectorConfig": "trainer.detectors",
}
_LIMITS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
_EXAMPLES = """examples:
  python -m configs.reference > docs/configuration.md"""
_HEAD = """# Configuration

Every key of every configuration, with its type and default. This page is made of the models themselves:
`python -m configs.reference > docs/configuration.md`. What a key resolves to, and where that is from:
`python -m configs.show NAME key=value`.
"""


def main(argv: list[str]) -> int:
    """Print the page."""
    Parser("configs.reference", "Print the configuration reference as Markdown.", _EXAMPLES).parse_args(argv)
    print(reference(), end="")
    return 0


def reference() -> str:
    """The page as Markdown."""
    parts = [_HEAD]
    told: set[type[BaseModel]] = set()
    tops = [(_TITLES[family], *FAMILIES[family][1:]) for family in FAMILIES] + list(_MORE.values())
    for title, module, name in tops:
        model = getattr(importlib.import_module(module), name)
        parts += [f"## {title}\n", *_sections(model, told, heading=False)]
    return "\n".join(parts)


def _sections(model: type[BaseModel], told: set[type[BaseModel]], *, heading: bool = True) -> Iterator[str]:
    """The model, and then each model it holds that was not told before."""
    if model in told:
        return
    told.add(model)
    if heading:
        yield f"### {model.__name__}\n"
    if (text := inspect.getdoc(model)) and text != inspect.getdoc(BaseModel):
        yield f"{text}\n"
    yield _table(model)
    for field in model.model_fields.values():
        for held in _models_in(field.annotation):
            if issubclass(held, KindConfig) and held.__name__ in _KIND_PACKAGES:
                yield from _kinds(held, told)
            else:
                yield from _sections(held, told)


def _kinds(family: type[KindConfig], told: set[type[BaseModel]]) -> Iterator[str]:
    if family in told:
        return
    told.add(family)
    package = _KIND_PACKAGES[family.__name__]
    for kind in kinds_in(package):
        yield f"### {family.__name__.removesuffix('Config')} `{kind}`\n"
        yield from _sections(config_class(package, kind, family), told, heading=False)


def _table(model: type[BaseModel]) -> str:
    rows = ["| key | type | default |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        text = f"{field.description}; " if field.description else ""
        rows.append(f"| `{name}` | {text}{_type(field.annotation)}{_limits(field)} | {_default(field)} |")
    return "\n".join(rows) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "–"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "its own"
    dumped = yaml.safe_dump(_plain(value), default_flow_style=True, width=10**6, allow_unicode=True)
    return f"`{dumped.removesuffix(chr(10)).removesuffix(chr(10) + '...')}`"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _limits(field: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(item, name)}"
        for item in field.metadata
        for name, sign in _LIMITS.items()
        if getattr(item, name, None) is not None
    ]
    return f", {' and '.join(found)}" if found else ""


def _type(annotation: Any) -> str:
    """As a user writes it in YAML."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = FieldInfo.from_annotation(annotation)
        return f"{_type(arguments[0])}{_limits(limits)}"
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(argument) for argument in arguments)
    if origin in (tuple, list, Sequence):
        return _list_type([argument for argument in arguments if argument is not Ellipsis], arguments)
    if origin in (dict, Mapping):
        return f"mapping of name to {_type(arguments[1])}"
    return _plain_type(annotation)


def _list_type(held: Sequence[Any], arguments: Sequence[Any]) -> str:
    if Ellipsis in arguments or len(held) == 1:
        return f"list of {_type(held[0])}"
    return f"list of {len(held)}: " + ", ".join(_type(argument) for argument in held)


def _plain_type(annotation: Any) -> str:
    names = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}
    if annotation in names:
        return names[annotation]
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        if annotation.__name__ in _KIND_PACKAGES:
            kinds = kinds_in(_KIND_PACKAGES[annotation.__name__])
            return f"a kind: {', '.join(f'`{kind}`' for kind in kinds)}"
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return ", ".join(f"`{item.value}`" for item in annotation)
    return {"Path": "path"}.get(getattr(annotation, "__name__", ""), str(annotation))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        if get_origin(annotation) is not Annotated or argument is get_args(annotation)[0]:
            yield from _models_in(argument)


if __name__ == "__main__":
    run(main)
