"""What a set holds, said once: ``manifest.json`` beside the shards. Readers trust it, not the tars.

A shard belongs to the set when the manifest names it; the set is finished when ``complete`` is true.
"""

import builtins
import hashlib
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NoReturn

from shards.entries import ShardEntry as ShardEntry
from shards.entries import ShardTable, canonical_json
from shards.errors import ShardError
from shards.store import Store

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"

Kind = Literal["crops", "backgrounds"]

_SHARDS_GO_HERE = '"shards": [\n  0\n ]'
_SHARDS_BEGIN, _SHARDS_END = '\n "shards": [\n  ', "\n ]"
_SHARD_NAME = re.compile(r"(crops|backgrounds)-([0-9]{6,18})\.tar")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_COUNT_LIMIT = 2**40  # in one shard: more is a damaged number, and sums of more are too large for len()
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A whole set. recipe: plain JSON values, what made it; fingerprint: its hash (`fingerprint_of`).

    shards may be given as any row of entries, and is kept as a `ShardTable`.
    """

    kind: Kind
    classes: tuple[str, ...]
    fingerprint: str
    recipe: Mapping[str, Any]
    shards: Sequence[ShardEntry]
    complete: bool
    version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        object.__setattr__(self, "shards", ShardTable(self.shards))

    @property
    def records(self) -> int:
        return sum(entry.records for entry in self.shards)

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.shards)

    def to_json(self) -> str:
        """Equal manifests give equal text, a line a shard. Raises ShardError for a recipe that is no JSON."""
        return self.to_utf8().decode()

    def to_utf8(self) -> "builtins.bytes":
        """The text of `to_json`, which a large set need not have twice in memory."""
        head = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "shards"}
        before, after = canonical_json(head | {"shards": [0]}, MANIFEST_NAME, indent=1).split(_SHARDS_GO_HERE)
        lines = ShardTable(self.shards).lines
        text = b",\n  ".join(lines)
        parts = (b'"shards": [', b"\n  " if lines else b"", text, b"\n ]" if lines else b"]")
        return b"".join((before.encode(), *parts, after.encode(), b"\n"))


def shard_name(kind: Kind, index: int) -> str:
    """``crops-000017.tar``."""
    return f"{kind}-{index:06d}.tar"


def fingerprint_of(recipe: Mapping[str, Any]) -> str:
    """sha256 of the recipe's canonical JSON: the order of keys does not count. Raises ShardError likewise."""
    return hashlib.sha256(canonical_json(recipe, "recipe").encode()).hexdigest()


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
    table = ShardTable(manifest.shards)
    classes = list(manifest.classes)
    entries = (_entry(json.loads(line), manifest.kind, classes, place) for line in table.lines)
    deque(_in_order(entries, place), maxlen=0)
    store.write(MANIFEST_NAME, manifest.to_utf8())


def manifest_from_json(text: str, place: str) -> Manifest:
    """The manifest in a text, every field checked. Keys it does not know are left alone.

    Raises ShardError that starts with ``place``.
    """
    head, lines = _split(text)
    facts = _Facts(_parsed(head, place), place)
    if lines and facts.raw.get("shards") != []:
        lines, facts = (), _Facts(_parsed(text, place), place)
    version = facts.count("version")
    if version > FORMAT_VERSION:
        raise ShardError(
            f"{place}: format {version}, this program reads {FORMAT_VERSION}: update crop-foundry"
        )
    if version < 1:
        facts.fail("version", "1 or more")
    kind = _kind(facts)
    classes = facts.get("classes", list)
    if not all(_is_name(name) for name in classes) or len(set(classes)) != len(classes):
        facts.fail("classes", "different names")
    fingerprint = facts.get("fingerprint", str)
    if not fingerprint:
        facts.fail("fingerprint", "a text")
    items = (_parsed(line, place) for line in lines) if lines else iter(facts.get("shards", list))
    shards = ShardTable(_in_order((_entry(item, kind, classes, place) for item in items), place))
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
        if not 0 <= value < _COUNT_LIMIT:
            self.fail(name, "0 or more" if value < 0 else f"less than {_COUNT_LIMIT}")
        return value

    def counts(self, name: str) -> dict[str, int]:
        table: dict[str, int] = self.get(name, dict)
        if not all(type(value) is int and 0 <= value < _COUNT_LIMIT for value in table.values()):
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


def _is_name(name: object) -> bool:
    return isinstance(name, str) and bool(name) and _CONTROL.search(name) is None


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


def _in_order(shards: Iterable[ShardEntry], place: str) -> Iterator[ShardEntry]:
    """The entries as they are. Raises ShardError where one does not come after the one before."""
    before: ShardEntry | None = None
    for entry in shards:
        if before is not None and before.name == entry.name:
            raise ShardError(f"{place}: {entry.name} is listed twice")
        if before is not None and _index(before) > _index(entry):
            raise ShardError(f"{place}: {entry.name} comes after {before.name}, wanted rising order")
        before = entry
        yield entry


def _split(text: str) -> tuple[str, Sequence[str]]:
    """A manifest without its shards, and their lines; all of it, and none, where it is laid out otherwise.

    Read line by line, a large manifest is not in memory as text and as values both.
    """
    start = text.find(_SHARDS_BEGIN)
    end = text.find(_SHARDS_END, start)
    if start < 0 or end < 0:
        return text, ()
    lines = text[start + len(_SHARDS_BEGIN) : end].split(",\n  ")
    if any("\n" in line for line in lines):  # an entry takes several: the layout of older sets
        return text, ()
    return text[:start] + _SHARDS_BEGIN.rstrip() + text[end + 2 :], lines


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ShardError(f"{place}: not readable as JSON: {error}") from error


def _index(entry: ShardEntry) -> int:
    return int(entry.name.removesuffix(".tar").rsplit("-", 1)[1])


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a JSON number")
