"""Near hashes among millions: exact, by tables of permuted bits (Manku, Jain and Das Sarma 2007)."""

from itertools import combinations

import numpy as np
import numpy.typing as npt

MAX_BITS = 8
_WIDTH = 64
_AGREEING = 2  # chunks that make a table's key
_BLOCK = 512  # hashes compared with one another at once
_RECENT = 8192  # hashes searched without a table, until they are sorted into the tables
_PAIRS = 1 << 20  # candidates looked at together: bounds the memory of a search

Hashes = npt.NDArray[np.uint64]
Flags = npt.NDArray[np.bool_]


class NearHashes:
    """Lets hashes through unless they differ in at most ``bits`` of 64 from one let through before.

    The 64 bits are dealt out to ``bits + 2`` chunks. Two hashes that differ in at most ``bits`` bits agree on
    two chunks at least, so they are neighbours in the table sorted by those two; there is a table for each of
    the (bits + 2 over 2) pairs: 15 for 4 bits, whose keys have 20 to 22 bits. Neighbours are compared bit by
    bit, so nothing is missed and nothing wrongly found. For n hashes let through that is 8 bytes a table and
    hash, O(n log n) for the search and O(n² / 2²¹) comparisons a table for hashes that are spread evenly
    (measured, one core: a million in 25 s and 0.2 GB).
    """

    def __init__(self, bits: int) -> None:
        """bits: 0 to 8. Raises ValueError outside: pictures that differ in more are not the same."""
        if not 0 <= bits <= MAX_BITS:
            raise ValueError(f"bits: found {bits}, wanted 0 to {MAX_BITS}")
        self.bits = bits
        orders = _orders(bits)
        self._orders = [order for order, _ in orders]
        self._low_bits = [np.uint64((1 << (_WIDTH - key_bits)) - 1) for _, key_bits in orders]
        self._tables: list[Hashes] = [np.empty(0, np.uint64) for _ in orders]  # each sorted
        self._recent = np.empty(0, np.uint64)

    def let_through(self, hashes: Hashes) -> Flags:
        """Which of the hashes (N,) pass, in their order: (N,) bool. What passes is remembered.

        The result does not depend on how a row of hashes is cut into calls.
        """
        parts = [self._pass(hashes[at : at + _BLOCK]) for at in range(0, len(hashes), _BLOCK)]
        return np.concatenate(parts) if parts else np.empty(0, np.bool_)

    def _pass(self, hashes: Hashes) -> Flags:
        passed = ~_near_any(hashes, self._recent, self.bits)
        passed[passed] = ~self._near_tables(hashes[passed])
        passed[passed] = _first_of_each(hashes[passed], self.bits)
        self._recent = np.concatenate([self._recent, hashes[passed]])
        if len(self._recent) > _RECENT:
            self._sort_in()
        return passed

    def _near_tables(self, hashes: Hashes) -> Flags:
        near = np.zeros(len(hashes), np.bool_)
        bits = _unpacked(hashes)
        for order, low_bits, table in zip(self._orders, self._low_bits, self._tables, strict=True):
            left = np.flatnonzero(~near)
            if len(table) and len(left):
                near[left] = _near_neighbours(_packed(bits[left][:, order]), table, low_bits, self.bits)
        return near

    def _sort_in(self) -> None:
        bits = _unpacked(self._recent)
        for place, order in enumerate(self._orders):
            new = np.sort(_packed(bits[:, order]))
            # timsort merges two sorted runs in one pass
            self._tables[place] = np.sort(np.concatenate([self._tables[place], new]), kind="stable")
        self._recent = np.empty(0, np.uint64)


def _orders(bits: int) -> list[tuple[list[int], int]]:
    """For each table the order of the 64 bits, its key's first, and the key's length.

    Chunks take every (bits + 2)-th bit: neighbouring bits of a picture's hash agree too often for a good key.
    """
    count = bits + _AGREEING
    chunks = [list(range(start, _WIDTH, count)) for start in range(count)]
    orders: list[tuple[list[int], int]] = []
    for chosen in combinations(range(count), _AGREEING):
        key = [bit for chunk in chosen for bit in chunks[chunk]]
        orders.append((key + [bit for bit in range(_WIDTH) if bit not in set(key)], len(key)))
    return orders


def _unpacked(hashes: Hashes) -> npt.NDArray[np.uint8]:
    """(N, 64) of 0 and 1, the highest bit first."""
    return np.unpackbits(hashes.astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)


def _packed(bits: npt.NDArray[np.uint8]) -> Hashes:
    """(N,) from (N, 64)."""
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(">u8").reshape(-1).astype(np.uint64)


def _near_neighbours(hashes: Hashes, table: Hashes, low_bits: np.uint64, bits: int) -> Flags:
    """Which hashes are near one of the sorted table that has the same key: (N,) bool."""
    first = np.searchsorted(table, hashes & ~low_bits)
    counts = np.searchsorted(table, hashes | low_bits, side="right") - first
    near = np.zeros(len(hashes), np.bool_)
    ends = np.cumsum(counts)
    start = 0
    while start < len(hashes):
        before = ends[start] - counts[start]
        stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS, side="right")))
        rows = np.repeat(np.arange(start, stop), counts[start:stop])
        steps = np.arange(len(rows)) - (ends - counts - before)[rows]
        differing = np.bitwise_count(table[first[rows] + steps] ^ hashes[rows])
        near[rows[differing <= bits]] = True
        start = stop
    return near


def _near_any(hashes: Hashes, others: Hashes, bits: int) -> Flags:
    """Which hashes (N,) are near any of the others (M,): every pair is looked at."""
    near = np.zeros(len(hashes), np.bool_)
    rows = max(1, _PAIRS // max(1, len(others)))
    for at in range(0, len(hashes), rows):
        differing = np.bitwise_count(hashes[at : at + rows, None] ^ others)
        near[at : at + rows] = (differing <= bits).any(axis=1)
    return near


def _first_of_each(hashes: Hashes, bits: int) -> Flags:
    """Which hashes are not near an earlier one of these that is kept: (N,) bool."""
    close = np.triu(np.bitwise_count(hashes[:, None] ^ hashes) <= bits, k=1)
    kept = np.ones(len(hashes), np.bool_)
    for row in np.flatnonzero(close.any(axis=1)):
        if kept[row]:
            kept &= ~close[row]
    return kept
