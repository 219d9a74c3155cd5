import numpy as np
import pytest

from configs.errors import InputError
from trainer.streaming.mixing import Group, Slots, balanced, label_weights


def members(*indices: int) -> np.ndarray:
    return np.array(indices, np.int64)


def shares(slots: Slots) -> dict[int, float]:
    """Each member's exact share of the slots, found where it begins and ends."""
    steps = np.linspace(0, len(slots) - 1, 100_001).astype(np.int64)
    found, counts = np.unique([slots[int(step)] for step in steps], return_counts=True)
    return dict(zip(found.tolist(), counts / len(steps), strict=True))


def test_groups_weighed_by_their_sizes_are_a_row_of_their_members() -> None:
    slots = Slots([Group(members(4, 5, 6), 3.0), Group(members(9, 7), 2.0)])
    assert [slots[i] for i in range(len(slots))] == [4, 5, 6, 9, 7]


def test_groups_are_drawn_by_weight_and_members_equally() -> None:
    slots = Slots([Group(members(0, 1, 2), 0.1), Group(members(3), 0.3), Group(members(4, 5), 0.6)])
    expected = {0: 0.1 / 3, 1: 0.1 / 3, 2: 0.1 / 3, 3: 0.3, 4: 0.3, 5: 0.3}
    assert shares(slots) == pytest.approx(expected, abs=2e-4)


def test_empty_groups_and_groups_without_weight_are_left_out() -> None:
    slots = Slots([Group(members(), 5.0), Group(members(1, 2), 0.0), Group(members(3), 0.01)])
    assert len(slots) == 1
    assert slots[0] == 3
    assert len(Slots([])) == 0


def test_a_label_keeps_its_weight_however_many_sets_share_it() -> None:
    groups = [("a", Group(members(0, 1), 2.0)), ("b", Group(members(2), 7.0)), ("a", Group(members(3), 6.0))]
    assert [group.weight for group in balanced(groups, {"a": 1.0, "b": 3.0})] == pytest.approx(
        [0.25, 3, 0.75]
    )


def test_a_set_that_lacks_a_label_leaves_it_to_the_others() -> None:
    groups = [("a", Group(members(), 2.0)), ("a", Group(members(3), 6.0))]
    assert [group.weight for group in balanced(groups, {"a": 1.0})] == [1.0]


def test_a_balance_by_name_weighs_each_class() -> None:
    assert label_weights("natural", ["a", "b"]) is None
    assert label_weights("equal", ["a", "b"]) == {"a": 1.0, "b": 1.0}
    assert label_weights({"b": 0.0, "a": 2.0}, ["a", "b"]) == {"a": 2.0, "b": 0.0}


@pytest.mark.parametrize(
    ("balance", "message"),
    [
        ({"a": 1.0, "dog": 1.0}, "balance: weighs a, dog, the crops are a, b"),
        ({"a": 1.0}, "balance: weighs a, the crops are a, b"),
        ({"a": 0.0, "b": 0.0}, "balance: all weights are 0, wanted one over 0"),
    ],
)
def test_a_balance_that_does_not_fit_the_classes_is_refused(balance, message) -> None:
    with pytest.raises(InputError, match=f"^{message}$"):
        label_weights(balance, ["a", "b"])
