"""Where a run's crop and background sets are: at a URL, in a folder, or shipped with the package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from configs.embedded import embedded
from configs.errors import InputError
from configs.home import locate, packaged_names
from configs.kinds import StrictModel
from shards.manifest import Kind
from shards.reader import ShardSet


class SetConfig(StrictModel):
    """A set of crops or backgrounds: its place alone, or ``{place: PLACE, weight: 2}``.

    place: see `open_set`. weight: share of the draws that goes to it, in proportion to the other sets'
    weights; sets are weighed all or none, and without weights each record counts alike.
    """

    place: str
    weight: float | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _text_is_a_place(cls, value: Any) -> Any:
        return {"place": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _plain_when_unweighted(self, handler: SerializerFunctionWrapHandler) -> Any:
        return self.place if self.weight is None else handler(self)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | dict | SetConfig) else value


def _plain_when_alone(sets: Sequence[SetConfig]) -> Any:
    plain = [each.model_dump(mode="json") for each in sets]
    return plain[0] if len(plain) == 1 else plain


SetList = Annotated[tuple[SetConfig, ...], Field(min_length=1), BeforeValidator(_listed)]
"""A config field of one set or several, written as a list."""

OneOrMoreSets = Annotated[SetList, PlainSerializer(_plain_when_alone)]
"""The same, of which a single set is written without a list around it."""


def open_set(place: str, kind: Kind, home: Path) -> ShardSet:
    """The set at a URL, an existing folder, that folder under home, or an embedded one (``embedded/NAME``).

    Raises InputError, which says how to make the set when there is no such folder, ShardError.
    """
    if place.startswith("embedded/"):
        place = str(embedded(place.removeprefix("embedded/")))
    if "://" not in place:
        folder = locate(Path(place), home)
        if not folder.exists():
            raise InputError(f"{kind}: {folder} is not there: {_maker(folder, kind)}")
        place = str(folder)
    found = ShardSet.open(place)
    if found.manifest.kind != kind or not len(found):
        held = f"{len(found)} {found.manifest.kind}"
        raise InputError(f"{kind}: {found.store.location} holds {held}, wanted a set of {kind}")
    return found


def _maker(folder: Path, kind: Kind) -> str:
    """What makes a set there, or one elsewhere."""
    if kind == "backgrounds":
        return "python -m factory.backgrounds makes one of photos, embedded/backgrounds needs none"
    if folder.parent.parts[-2:] == ("data", "crops") and folder.name in packaged_names("classes"):
        return f"python -m factory.build --class {folder.name} makes it"
    return "python -m factory.build makes sets of crops"


def open_sets(sets: Sequence[SetConfig], kind: Kind, home: Path) -> tuple[list[ShardSet], list[float] | None]:
    """Each as `open_set` does, and their weights, None where none has any.

    Raises InputError also when only some of them have a weight, ShardError.
    """
    weights = [each.weight for each in sets if each.weight is not None]
    if weights and len(weights) < len(sets):
        without = ", ".join(each.place for each in sets if each.weight is None)
        raise InputError(f"{kind}: {without}: found no weight, wanted one for all sets or for none")
    return [open_set(each.place, kind, home) for each in sets], weights or None
