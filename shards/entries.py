"""The committed shards of a set, one by one and as a table that fits in memory when they are many."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self, overload

from shards.errors import ShardError


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


_FIELDS = tuple(item.name for item in fields(ShardEntry))
_LINE = json.JSONEncoder(sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def line_of(entry: ShardEntry) -> bytes:
    """Its line of a manifest; equal entries give equal lines. Raises ShardError for one that is no JSON."""
    facts = {name: getattr(entry, name) for name in _FIELDS}
    try:
        return _LINE.encode(facts).encode()
    except (TypeError, ValueError) as error:
        raise ShardError(f"{entry.name}: not plain JSON: {error}") from error


def entry_of(line: bytes) -> ShardEntry:
    """The entry of a line that `line_of` made."""
    return ShardEntry(**json.loads(line))


def canonical_json(value: Any, place: str, indent: int | None = None) -> str:
    """Equal values give equal text. Raises ShardError, which starts with ``place``, for what is no JSON."""
    separators = (",", ":") if indent is None else (",", ": ")
    try:
        text = json.dumps(
            value, sort_keys=True, allow_nan=False, ensure_ascii=False, indent=indent, separators=separators
        )
        text.encode()  # half of a surrogate pair is text in JSON, but not in UTF-8
    except (TypeError, ValueError) as error:
        raise ShardError(f"{place}: not plain JSON: {error}") from error
    return text


class ShardTable(Sequence[ShardEntry]):
    """Entries, each kept as its line and made anew when asked for: a quarter of their memory.

    A set of a hundred million crops has 390,000 of them, in every process that reads it.
    """

    __slots__ = ("lines",)

    def __init__(self, entries: Iterable[ShardEntry] = ()) -> None:
        self.lines: tuple[bytes, ...] = (
            entries.lines if isinstance(entries, ShardTable) else tuple(map(line_of, entries))
        )

    @classmethod
    def of_lines(cls, lines: Iterable[bytes]) -> Self:
        """Of lines that `line_of` made."""
        table = cls()
        table.lines = tuple(lines)
        return table

    def __len__(self) -> int:
        return len(self.lines)

    @overload
    def __getitem__(self, place: int) -> ShardEntry: ...
    @overload
    def __getitem__(self, place: slice) -> "ShardTable": ...
    def __getitem__(self, place: int | slice) -> "ShardEntry | ShardTable":
        if isinstance(place, slice):
            return ShardTable.of_lines(self.lines[place])
        return entry_of(self.lines[place])

    def __iter__(self) -> Iterator[ShardEntry]:
        return map(entry_of, self.lines)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ShardTable):
            return self.lines == other.lines
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(self.lines)

    def __repr__(self) -> str:
        return f"ShardTable({list(self)!r})"
