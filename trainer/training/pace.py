"""How fast a training goes, and what it waits for."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

_Item = TypeVar("_Item")


class Pace:
    """Images a second, and the share of the time spent waiting for data, since `take` was last called."""

    def __init__(self) -> None:
        self.images, self._waited = 0, 0.0
        self._since = time.monotonic()

    def waiting(self, items: Iterator[_Item]) -> Iterator[_Item]:
        while True:
            before = time.monotonic()
            item = next(items, None)
            self._waited += time.monotonic() - before
            if item is None:
                return
            yield item

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Time that does not count."""
        before = time.monotonic()
        yield
        self._since += time.monotonic() - before

    def take(self) -> dict[str, float]:
        seconds = time.monotonic() - self._since
        pace = {
            "images_per_s": round(self.images / seconds, 1),
            "data_frac": round(self._waited / seconds, 3),
        }
        self.images, self._waited, self._since = 0, 0.0, time.monotonic()
        return pace


def peak_memory_mb(device: torch.device) -> int:
    """Of the device where it has its own, else of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device) >> 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
