"""Decoded pictures kept for their next use, up to a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

Kept = TypeVar("Kept")


class DecodedCache(Generic[Kept]):
    """What ``make`` gave for a key, as long as there is room.

    keep_first: what is in stays in, the best there is where all keys come once before any comes again;
    otherwise the least recently used make room. Pickles empty.
    """

    def __init__(self, limit_bytes: int, size_of: Callable[[Kept], int], *, keep_first: bool = False) -> None:
        self._limit, self._size_of, self._keep_first = limit_bytes, size_of, keep_first
        self._forget()

    def get(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """The value of a key; it is shared, so nobody may change it."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        value = make()
        size = self._size_of(value)
        if size > (self._limit - self.bytes if self._keep_first else self._limit):
            return value
        self._kept[key] = value
        self.bytes += size
        while self.bytes > self._limit:
            self.bytes -= self._size_of(self._kept.popitem(last=False)[1])
        return value

    def _forget(self) -> None:
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()  # least recently used first
        self.bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": OrderedDict(), "bytes": 0}
