"""A generator as a numbered row of images: slot ``i`` is a function of (seed, i), whoever asks for it."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

T = TypeVar("T")


def aligned_slots(
    start: int, count: int, batch_size: int, make: Callable[[int], Iterable[T]]
) -> Iterator[tuple[int, T]]:
    """Slots ``start`` to ``start + count`` with their numbers. ``make(first)`` makes ``batch_size`` of them.

    A slot is always made in the same batch, the one that starts at the multiple of the batch size below it:
    kernels may round differently in batches of another size.
    """
    for first in range(start - start % batch_size, start + count, batch_size):
        for index, item in zip(range(first, start + count), make(first), strict=False):
            if index >= start:
                yield index, item


def draw_latents(seed: int, start: int, count: int, length: int) -> Tensor:  # (count, length)
    """Standard normal float32 vectors, each drawn from (seed, its own number)."""
    rows = [np.random.default_rng([seed, i]).standard_normal(length) for i in range(start, start + count)]
    return torch.from_numpy(np.stack(rows).astype(np.float32))
