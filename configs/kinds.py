"""Settings that come in kinds: one kind a file, found by its file's name.

A field validated by ``one_of("factory.segmenters", SegmenterConfig)`` takes ``{"kind": "grabcut", ...}``,
imports ``factory/segmenters/grabcut.py`` and validates the mapping with its one SegmenterConfig subclass.
So adding a kind is adding a file; no list of kinds is kept anywhere.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationInfo,
    field_validator,
    model_validator,
)


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys, with a did-you-mean, and text where a number is wanted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key {did_you_mean(str(key), list(cls.model_fields))}")
        return data

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_coercion(cls, value: Any, info: ValidationInfo) -> Any:
        wanted = cls.model_fields[str(info.field_name)].annotation
        if wanted is bool and not isinstance(value, bool):
            raise ValueError(f"found {value!r}, wanted true or false")
        if wanted in (int, float) and isinstance(value, (bool, str)):
            raise ValueError(f"found {value!r}, wanted a number")
        return value


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """``'sede', did you mean 'seed'?``, or what is known when nothing is near."""
    near = difflib.get_close_matches(word, known, 1)
    return f"'{word}', did you mean '{near[0]}'?" if near else f"'{word}', known: {', '.join(known)}"


class KindConfig(StrictModel):
    """Settings of one kind; a subclass narrows ``kind`` to ``Literal["its-file-name"]``."""

    kind: str


def kinds_in(package: str) -> list[str]:
    """Names of the kinds that a package holds: its modules without a leading underscore."""
    paths = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(paths) if not m.name.startswith("_"))


def config_class(package: str, kind: str, family: type[KindConfig]) -> type[KindConfig]:
    """The subclass of ``family`` that the kind's file defines. Raises ValueError for an unknown kind."""
    known = kinds_in(package)
    if kind not in known:
        raise ValueError(f"unknown kind {did_you_mean(kind, known)}")
    module = importlib.import_module(f"{package}.{kind}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, family) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} defines {len(found)} subclasses of {family.__name__}, wanted one")
    return found[0]


def one_of(package: str, family: type[KindConfig]) -> BeforeValidator:
    """Validates a field that holds one kind of a package.

    ``segmenter: Annotated[SegmenterConfig, SerializeAsAny(), one_of("factory.segmenters", SegmenterConfig)]``
    """

    def pick(value: Any) -> Any:
        if isinstance(value, family):
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("kind"), str):
            raise ValueError(f"wanted a mapping with a 'kind', one of {', '.join(kinds_in(package))}")
        return config_class(package, value["kind"], family).model_validate(value)

    return BeforeValidator(pick)
