"""The place of a process among those that train one detector together."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn


def _as_it_is(module: nn.Module) -> nn.Module:
    return module


def _own(flag: bool) -> bool:
    return flag


@dataclass(frozen=True, slots=True)
class Ranks:
    """One process alone, unless told otherwise.

    rank: 0 writes files, logs and validates. world: number of processes.
    wrap: makes a module whose backward pass averages gradients over the ranks (DistributedDataParallel); its
    forward takes a Batch and returns named losses. any_of: true on every rank when it is on one; it waits
    for all.
    """

    rank: int = 0
    world: int = 1
    wrap: Callable[[nn.Module], nn.Module] = _as_it_is
    any_of: Callable[[bool], bool] = _own

    @property
    def is_first(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all are here."""
        self.any_of(False)


ALONE = Ranks()
