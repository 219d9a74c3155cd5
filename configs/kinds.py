"""Settings that come in kinds: one kind a file, found by its file's name.

A field validated by ``one_of("factory.segmenters", SegmenterConfig)`` takes ``{"kind": "grabcut", ...}``, imports
``factory/segmenters/grabcut.py`` and validates the mapping with the one SegmenterConfig subclass defined there.
So adding a kind is adding a file; no list of kinds is kept anywhere.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
        hint = "".join(f"; did you mean '{m}'?" for m in difflib.get_close_matches(kind, known, 1))
        raise ValueError(f"'{kind}' is not one of {', '.join(known)}{hint}")
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
