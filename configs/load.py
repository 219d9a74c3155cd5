"""Read a YAML file, apply ``key=value`` overrides, validate: the one way a configuration comes in.

YAML as written here is YAML 1.2's core schema: only ``true`` and ``false`` are booleans (``no`` and ``on``
stay text), ``1e-3`` is a number, ``010`` is ten, dates stay text; a key given twice is refused.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from configs.errors import InputError

M = TypeVar("M", bound=BaseModel)


_PLAIN_YAML = {  # what the parser says -> what is the matter
    "found character '\\t'": "a tab where spaces are wanted",
    "mapping values are not allowed here": "a ':' too many, or one that the line above lacks",
    "could not find expected ':'": "a ':' is missing",
    "found undefined alias": "a '*' begins a text: quote it",
}
_WANTED = {  # pydantic's type of error -> what is wanted
    "tuple_type": "a list: [one, another]",
    "list_type": "a list: [one, another]",
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "model_type": "settings: {{key: value}}",
    "dict_type": "settings: {{key: value}}",
    "finite_number": "a finite number",
    "greater_than_equal": "{ge} or more",
    "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less",
    "less_than": "less than {lt}",
    "too_short": "at least {min_length}",
    "too_long": "at most {max_length}",
    "string_too_short": "some text",
    "string_pattern_mismatch": "text like {pattern}",
}


_MOST_VALUES = 100_000


class _CoreLoader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's scalars and without duplicate keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012


_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


def _resolver(tag: str, pattern: str, first: str) -> None:
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})$"), list(first))


_resolver("null", r"~|null|Null|NULL|", "~nN")
_CoreLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"$"), [""])
_resolver("bool", r"true|True|TRUE|false|False|FALSE", "tTfF")
_resolver("int", _INT.pattern, "-+0123456789")
_resolver("float", _FLOAT.pattern, "-+.0123456789")


def _construct_int(loader: _CoreLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node))
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _construct_mapping(loader: _CoreLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} is not text", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"key '{key}' stands twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_CoreLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_CoreLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


class _CoreDumper(yaml.SafeDumper):
    """SafeDumper that also quotes what our loader would not take for text: ``1e3``, ``08``."""


for _first, _resolvers in _CoreLoader.yaml_implicit_resolvers.items():
    for _tag, _pattern in _resolvers:
        _CoreDumper.add_implicit_resolver(_tag, _pattern, [_first])


def _represent_text(dumper: _CoreDumper, text: str) -> yaml.ScalarNode:
    style = '"' if "\x85" in text else None  # PyYAML's other styles take this old line end for blanks
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_CoreDumper.add_representer(str, _represent_text)


def parse_yaml(text: str, place: str) -> Any:
    """The value that a YAML text holds. Raises InputError with the line where it breaks."""
    try:
        return _plain_value(_CoreLoader(text))  # a SafeLoader: builds plain values only
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f":{mark.line + 1}" if mark is not None else ""
        problem = str(error.problem)
        plain = next((said for sign, said in _PLAIN_YAML.items() if sign in problem), problem)
        raise InputError(f"{place}{line}: {plain}: not valid YAML") from error
    except RecursionError:
        raise InputError(f"{place}: nested too deeply: not valid YAML") from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:  # the latter of '!!bool x'
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{place}: {reason}: not valid YAML") from error


def _plain_value(loader: _CoreLoader) -> Any:
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size_of(node, {}) > _MOST_VALUES:
            raise ValueError(f"aliases that make more than {_MOST_VALUES:,} values")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _size_of(node: yaml.Node, known: dict[int, int]) -> int:
    """Values below a node with each alias written out, without writing it out."""
    if id(node) not in known:
        known[id(node)] = 1  # what an alias inside of what it names counts as; the constructor refuses it
        below = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else []
        below = node.value if isinstance(node, yaml.SequenceNode) else below
        known[id(node)] = 1 + sum(_size_of(part, known) for part in below)
    return known[id(node)]


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; an empty file is an empty mapping. Raises InputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text: {error}") from error
    value = parse_yaml(text, str(path))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds {_kind_of(value)}, wanted 'key: value' lines")
    return value


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``data`` with every ``dotted.key=value`` put in; values are read as YAML.

    Choosing another ``kind`` drops the settings of the kind that was there. Raises InputError.
    """
    merged: dict[str, Any] = _copied(data)
    pairs = [_split_override(text) for text in overrides]
    for keys, value in sorted(pairs, key=lambda pair: pair[0][-1] != "kind"):
        _put(merged, keys, value)
    return merged


def _split_override(text: str) -> tuple[list[str], Any]:
    name, equals, value = text.partition("=")
    keys = name.strip().split(".")
    if not equals or not all(keys):
        raise InputError(
            f"'{text}': not an override, wanted key=value, for example seed=3 or segmenter.kind=whole"
        )
    return keys, parse_yaml(value, name.strip())


def _put(data: dict[str, Any], keys: Sequence[str], value: Any) -> None:
    place = data
    for depth, key in enumerate(keys[:-1]):
        below = place.setdefault(key, {})
        if below is None:
            below = place[key] = {}
        if not isinstance(below, dict):
            held = ".".join(keys[: depth + 1])
            raise InputError(f"{'.'.join(keys)}: {held} is {_kind_of(below)}, not a group of settings")
        place = below
    if keys[-1] == "kind" and place.get("kind") != value:
        place.clear()
    place[keys[-1]] = value


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value


def _kind_of(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, (list, tuple)) else repr(value)


def validated(model: type[M], data: Mapping[str, Any], place: str) -> M:
    """``data`` as a model. Raises InputError with the dotted key, what was found and what was wanted."""
    try:
        return model.model_validate(dict(data))
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: found {error.object!r}, wanted text without half characters") from error
    except ValidationError as error:
        problems = _problems(error, ())
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(f"{place}: {problems[0]}{more}") from error


def _problems(error: ValidationError, prefix: tuple[str | int, ...]) -> list[str]:
    problems: list[str] = []
    for item in error.errors():
        where = prefix + item["loc"]
        cause = item.get("ctx", {}).get("error")
        if isinstance(cause, ValidationError):
            problems += _problems(cause, where)
            continue
        dotted = ".".join(str(part) for part in where)
        place = f"{dotted}: " if dotted else ""
        if isinstance(cause, ValueError):
            problems.append(f"{place}{cause}")
        elif item["type"] == "missing":
            problems.append(f"{place}is not set")
        else:
            problems.append(f"{place}found {_kind_of(item['input'])}, wanted {_wanted(item)}")
    return problems


def _wanted(item: Mapping[str, Any]) -> str:
    """What pydantic would have taken, in YAML's words."""
    form = _WANTED.get(item["type"])
    if form is not None:
        return form.format_map(item.get("ctx", {}))
    text = str(item["msg"]).removeprefix("Input should be ")
    return text[0].lower() + text[1:]


def load_config(model: type[M], path: Path | None, overrides: Sequence[str] = ()) -> M:
    """A model from a YAML file (or from its defaults) with overrides. Raises InputError."""
    data = {} if path is None else read_yaml(path)
    return validated(model, apply_overrides(data, overrides), str(path or "command line"))


def to_yaml(model: BaseModel) -> str:
    """The resolved configuration as YAML, in the order of the model's fields."""
    return yaml.dump(model.model_dump(mode="json"), Dumper=_CoreDumper, sort_keys=False, allow_unicode=True)
