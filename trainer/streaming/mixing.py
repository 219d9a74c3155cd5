"""How often each class and each set is drawn, as weights that equally likely numbers carry out."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from math import gcd
from typing import Annotated, Literal

from pydantic import Field

from configs.errors import InputError
from trainer.streaming.window import IntArray

Balance = Literal["natural", "equal"] | dict[str, Annotated[float, Field(ge=0)]]
_FINEST = 1 << 30


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Records among which a draw does not choose. weight: of the group as a whole."""

    members: IntArray
    weight: float


class Slots:
    """Numbers 0 to ``len - 1``: one drawn uniformly shows each group by its weight, its members equally.

    Groups whose weights are their sizes are simply their members in a row, one slot each. Otherwise the
    weight of a member is off by up to 2**-30 of the largest member's. Groups of no member or weight are left
    out; there may be no slot at all.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        groups = [group for group in groups if len(group.members) and group.weight > 0]
        self._members = [group.members for group in groups]
        self._slots_a_member = _as_integers([group.weight / len(group.members) for group in groups])
        counts = zip(self._members, self._slots_a_member, strict=True)
        self._ends = list(accumulate(len(members) * slots for members, slots in counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, slot: int) -> int:
        group = bisect_right(self._ends, slot)
        start = self._ends[group - 1] if group else 0
        return int(self._members[group][(slot - start) // self._slots_a_member[group]])


def _as_integers(weights: Sequence[float]) -> list[int]:
    """Whole numbers in these proportions, as small as they can be."""
    if not weights:
        return []
    scaled = [max(1, round(_FINEST * weight / max(weights))) for weight in weights]
    divisor = reduce(gcd, scaled)
    return [number // divisor for number in scaled]


def label_weights(balance: Balance, labels: Sequence[str]) -> Mapping[str, float] | None:
    """Weight of each label; None for ``natural``, where each crop counts alike.

    Raises InputError when a mapping does not name just these labels, or weighs all of them 0.
    """
    if balance == "natural":
        return None
    if isinstance(balance, str):
        return dict.fromkeys(labels, 1.0)
    if set(balance) != set(labels):
        raise InputError(f"balance: weighs {', '.join(sorted(balance))}, the crops are {', '.join(labels)}")
    if not any(balance.values()):
        raise InputError("balance: all weights are 0, wanted one over 0")
    return balance


def balanced(groups: Sequence[tuple[str, Group]], weights: Mapping[str, float]) -> list[Group]:
    """The groups of (label, group) with each label at its weight, shared by its groups as they were."""
    held = [(label, group) for label, group in groups if len(group.members)]
    totals: dict[str, float] = {}
    for label, group in held:
        totals[label] = totals.get(label, 0.0) + group.weight
    return [
        Group(group.members, weights[label] * group.weight / totals[label])
        for label, group in held
        if totals[label] > 0
    ]
