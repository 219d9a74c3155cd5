"""Near-duplicates by a 64-bit difference hash: equal pictures stay equal when resized or coded again."""

import cv2
import numpy as np

from factory.stages import UInt8Array


def dhash(image: UInt8Array) -> int:
    """64 bits: is each cell of an 8 by 9 grey thumbnail darker than its right neighbour?

    image: (H, W, 3) RGB. An image without any contrast hashes to 0.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    thumbnail = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA)  # (8, 9)
    bits = thumbnail[:, :-1] < thumbnail[:, 1:]  # (8, 8)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


class HashIndex:
    """The hashes seen so far; asking costs one vectorised pass over them (1 ms for a million)."""

    def __init__(self) -> None:
        self._hashes = np.empty(64, np.uint64)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def is_near(self, value: int, max_bits: int) -> bool:
        """Does any hash seen differ from this one in at most ``max_bits`` of its 64 bits?"""
        differing = np.bitwise_count(self._hashes[: self._count] ^ np.uint64(value))
        return bool((differing <= max_bits).any())

    def add(self, value: int) -> None:
        """Remember a hash."""
        if self._count == len(self._hashes):
            self._hashes = np.concatenate([self._hashes, np.empty_like(self._hashes)])
        self._hashes[self._count] = value
        self._count += 1
