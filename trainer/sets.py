"""Where a run's crop and background sets are: at a URL, in a folder, or shipped with the package."""

from pathlib import Path

from configs.embedded import embedded
from configs.errors import InputError
from configs.home import locate
from shards.manifest import Kind
from shards.reader import ShardSet


def open_set(place: str, kind: Kind, home: Path) -> ShardSet:
    """The set at a URL, an existing folder, that folder under home, or an embedded one (``embedded/NAME``).

    Raises InputError, ShardError.
    """
    if place.startswith("embedded/"):
        place = str(embedded(place.removeprefix("embedded/")))
    found = ShardSet.open(place if "://" in place else locate(Path(place), home))
    if found.manifest.kind != kind or not len(found):
        held = f"{len(found)} {found.manifest.kind}"
        raise InputError(f"{kind}: {found.store.location} holds {held}, wanted a set of {kind}")
    return found
