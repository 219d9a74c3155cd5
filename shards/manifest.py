"""What a set holds, said once: ``manifest.json`` beside the shards. Readers trust it, not the tars.

A shard belongs to the set when the manifest names it; the set is finished when ``complete`` is true.
"""

import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from typing import Any, Literal, NoReturn

from shards.errors import ShardError
from shards.store import Store

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"

Kind = Literal["crops", "backgrounds"]

_SHARDS_GO_HERE = '"shards": [\n  0\n ]'
_SHARD_NAME = re.compile(r"(crops|backgrounds)-([0-9]{6,})\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ShardEntry:
    """One committed shard.

    labels: label -> records (empty for backgrounds). dropped: reason -> source slots not kept.
    seen: source slots looked at to make it, 0 when not counted.
    """

    name: str
    records: int
    bytes: int
    sha256: str
    labels: Mapping[str, int]
    dropped: Mapping[str, int] = field(default_factory=dict)
    seen: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole set. recipe: plain JSON values, what made it; fingerprint: its hash (`fingerprint_of`)."""

    kind: Kind
    classes: tuple[str, ...]
    fingerprint: str
    recipe: Mapping[str, Any]
    shards: tuple[ShardEntry, ...]
    complete: bool
    version: int = FORMAT_VERSION

    @property
    def records(self) -> int:
        return sum(entry.records for entry in self.shards)

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.shards)

    def to_json(self) -> str:
        """Equal manifests give equal text, a line a shard. Raises ShardError for a recipe that is no JSON."""
        head = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "shards"}
        before, after = _canonical(head | {"shards": [0]}, MANIFEST_NAME, indent=1).split(_SHARDS_GO_HERE)
        text = io.StringIO()  # a large manifest is there once, not in lines and whole
        text.write(f'{before}"shards": [')
        for place, entry in enumerate(self.shards):
            text.write(f"{',' if place else ''}\n  {_canonical(_facts_of(entry), entry.name)}")
        text.write("\n ]" if self.shards else "]")
        text.write(f"{after}\n")
        return text.getvalue()


def _facts_of(entry: ShardEntry) -> dict[str, Any]:
    return {item.name: getattr(entry, item.name) for item in fields(entry)}


def shard_name(kind: Kind, index: int) -> str:
    """``crops-000017.tar``."""
    return f"{kind}-{index:06d}.tar"


def fingerprint_of(recipe: Mapping[str, Any]) -> str:
    """sha256 of the recipe's canonical JSON: the order of keys does not count. Raises ShardError likewise."""
    return hashlib.sha256(_canonical(recipe, "recipe").encode()).hexdigest()


def find_manifest(store: Store) -> Manifest | None:
    """The store's manifest, None when it has none. Raises ShardError when it is not a good one."""
    if not store.exists(MANIFEST_NAME):
        return None
    place = f"{store.location}/{MANIFEST_NAME}"
    try:
        text = store.read(MANIFEST_NAME).decode()
    except UnicodeDecodeError as error:
        raise ShardError(f"{place}: not UTF-8 text: {error}") from error
    return manifest_from_json(text, place)


def read_manifest(store: Store) -> Manifest:
    """The store's manifest. Raises ShardError when there is none or it is not a good one."""
    manifest = find_manifest(store)
    if manifest is None:
        raise ShardError(f"{store.location}: no {MANIFEST_NAME}: not a crop or background set")
    return manifest


def write_manifest(store: Store, manifest: Manifest) -> None:
    """Replaces the store's manifest whole. Raises ShardError when it would not read back."""
    place = f"{store.location}/{MANIFEST_NAME}"
    manifest_from_json(replace(manifest, shards=()).to_json(), place)
    for entry in manifest.shards:
        _entry(_facts_of(entry), manifest.kind, list(manifest.classes), place)
    _check_order(manifest.shards, place)
    store.write(MANIFEST_NAME, manifest.to_json().encode())


def manifest_from_json(text: str, place: str) -> Manifest:
    """The manifest in a text, every field checked. Keys it does not know are left alone.

    Raises ShardError that starts with ``place``.
    """
    try:
        raw = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{place}: not readable as JSON: {error}") from error
    facts = _Facts(raw, place)
    version = facts.count("version")
    if version > FORMAT_VERSION:
        raise ShardError(
            f"{place}: format {version}, this program reads {FORMAT_VERSION}: update crop-foundry"
        )
    if version < 1:
        facts.fail("version", "1 or more")
    kind = _kind(facts)
    classes = facts.get("classes", list)
    if not all(isinstance(name, str) and name for name in classes) or len(set(classes)) != len(classes):
        facts.fail("classes", "different names")
    fingerprint = facts.get("fingerprint", str)
    if not fingerprint:
        facts.fail("fingerprint", "a text")
    shards = tuple(_entry(item, kind, classes, place) for item in facts.get("shards", list))
    _check_order(shards, place)
    return Manifest(
        kind,
        tuple(classes),
        fingerprint,
        facts.get("recipe", dict),
        shards,
        facts.get("complete", bool),
        version,
    )


class _Facts:
    """A mapping out of JSON whose fields are read by type. Raises ShardError at ``place``."""

    def __init__(self, raw: object, place: str) -> None:
        if not isinstance(raw, dict):
            raise ShardError(f"{place}: holds a {type(raw).__name__}, wanted a mapping")
        self.raw: dict[str, Any] = raw
        self.place = place

    def get(self, name: str, wanted: type) -> Any:
        if name not in self.raw:
            raise ShardError(f"{self.place}: no '{name}', wanted {wanted.__name__}")
        if type(self.raw[name]) is not wanted:
            self.fail(name, wanted.__name__)
        return self.raw[name]

    def count(self, name: str) -> int:
        value: int = self.get(name, int)
        if value < 0:
            self.fail(name, "0 or more")
        return value

    def counts(self, name: str) -> dict[str, int]:
        table: dict[str, int] = self.get(name, dict)
        if not all(type(value) is int and value >= 0 for value in table.values()):
            self.fail(name, "a count of 0 or more for each name")
        return table

    def fail(self, name: str, wanted: str) -> NoReturn:
        raise ShardError(f"{self.place}: {name} is {self.raw[name]!r}, wanted {wanted}")


def _kind(facts: _Facts) -> Kind:
    kind = facts.get("kind", str)
    if kind == "crops":
        return "crops"
    if kind == "backgrounds":
        return "backgrounds"
    return facts.fail("kind", "crops or backgrounds")


def _entry(raw: object, kind: Kind, classes: list[str], place: str) -> ShardEntry:
    name = _Facts(raw, f"{place}: shards").get("name", str)
    found = _SHARD_NAME.fullmatch(name)
    if found is None or name != shard_name(kind, int(found[2])):
        raise ShardError(
            f"{place}: shards: {name!r} is no shard's name here, wanted {shard_name(kind, 0)} and so on"
        )
    facts = _Facts(raw, f"{place}: {name}")
    sha256 = facts.get("sha256", str)
    if not _SHA256.fullmatch(sha256):
        facts.fail("sha256", "64 hexadecimal digits")
    records, labels = facts.count("records"), facts.counts("labels")
    if (kind == "crops" or labels) and sum(labels.values()) != records:
        facts.fail("labels", f"{records} together, the number of records")
    if not set(labels) <= set(classes):
        facts.fail("labels", f"only classes of the set: {', '.join(classes)}")
    dropped = facts.counts("dropped") if "dropped" in facts.raw else {}
    seen = facts.count("seen") if "seen" in facts.raw else 0
    return ShardEntry(name, records, facts.count("bytes"), sha256, labels, dropped, seen)


def _check_order(shards: tuple[ShardEntry, ...], place: str) -> None:
    for before, after in pairwise(shards):
        if before.name == after.name:
            raise ShardError(f"{place}: {after.name} is listed twice")
        if _index(before) > _index(after):
            raise ShardError(f"{place}: {after.name} comes after {before.name}, wanted rising order")


def _index(entry: ShardEntry) -> int:
    return int(entry.name.removesuffix(".tar").rsplit("-", 1)[1])


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")


def _canonical(value: Any, place: str, indent: int | None = None) -> str:
    separators = (",", ":") if indent is None else (",", ": ")
    try:
        return json.dumps(
            value, sort_keys=True, allow_nan=False, ensure_ascii=False, indent=indent, separators=separators
        )
    except (TypeError, ValueError) as error:
        raise ShardError(f"{place}: not plain JSON: {error}") from error
