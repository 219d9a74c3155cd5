"""The statistics that `trainer.streaming.window` promises."""

from collections import Counter

import numpy as np
import pytest

from trainer.streaming.window import SlidingWindow, Stretch

UNEQUAL = [7, 1, 30, 12, 0, 41]  # 91 records


def window(records=UNEQUAL, size=20, stay=4, seed=(3, 1)) -> SlidingWindow:
    return SlidingWindow(records, size, stay, seed)


def test_every_pool_is_full_and_every_record_is_in_as_many_pools() -> None:
    found, passes = window(), 40
    pools = [found.indices(block) for block in range(passes * 91 // 5)]  # 5 new records a block
    assert all(len(pool) == 20 for pool in pools)
    counts = np.bincount(np.concatenate(pools), minlength=91)
    assert np.ptp(counts) <= 2 * 4  # those in the first and last pools were there for less than a stay
    assert counts.mean() == pytest.approx(passes * 4, rel=0.01)


def test_a_place_of_the_row_is_in_just_as_many_pools_as_it_stays() -> None:
    found = window([50, 50, 50, 50], size=20, stay=4)
    row = np.concatenate([found.indices(4 * block) for block in range(20)])  # pools that do not overlap
    for place in (30, 31, 199):
        holding = [block for block in range(100) if 5 * block <= place < 5 * block + 20]
        assert len(holding) == 4
        assert all(found.indices(block)[place - 5 * block] == row[place] for block in holding)


def test_each_pass_shows_every_record_once_and_has_an_order_of_its_own() -> None:
    found = window([13] * 7, size=13, stay=1)
    rows = [np.concatenate([found.indices(block) for block in range(7 * p, 7 * p + 7)]) for p in range(3)]
    assert all(sorted(row) == list(range(91)) for row in rows)
    assert not np.array_equal(rows[0], rows[1])


def test_pools_share_less_the_further_they_are_apart() -> None:
    found = window([10] * 100, size=40, stay=8)
    first = set(found.indices(20))
    shared = [len(first & set(found.indices(20 + apart))) for apart in (0, 1, 4, 8, 9)]
    assert shared == [40, 35, 20, 0, 0]


def test_a_small_set_is_its_own_pool_in_its_own_order() -> None:
    found = window(size=100, stay=4)
    assert found.is_whole
    for block in (0, 1, 77):
        assert np.array_equal(found.indices(block), np.arange(91))
    assert not window(size=88).is_whole


def test_a_pool_depends_on_seed_and_block_alone() -> None:
    found, again = window(), window()
    backwards = [found.indices(block).tolist() for block in range(50, -1, -1)][::-1]
    assert backwards == [again.indices(block).tolist() for block in range(51)]
    assert backwards[7] != window(seed=(3, 2)).indices(7).tolist()


def test_shards_are_read_one_after_the_other_once_a_pass() -> None:
    found = window([10] * 30, size=60, stay=6)
    entered: Counter[int] = Counter()
    held: set[int] = set()
    for block in range(30 * 20):  # a shard a block: 20 passes
        now = {stretch.shard for stretch in found.stretches(block)}
        assert len(now) <= 7
        entered.update(now - held)
        held = now
    assert len(entered) == 30
    assert all(count <= 21 for count in entered.values())
    assert sum(entered.values()) <= 30 * 20 + 6


def test_stretches_are_rows_of_shards() -> None:
    found = window([10] * 3, size=15, stay=3)
    order = found.order_of_pass(0)[0].tolist()
    assert found.stretches(1) == [Stretch(order[0], 5, 10), Stretch(order[1], 0, 10)]


def test_draws_from_pools_spread_as_draws_from_the_whole_set_do() -> None:
    found, rng, draws = window([50] * 40, size=400, stay=8), np.random.default_rng(0), []
    for block in range(8, 8 + 40 * 12):  # 12 passes of 2000 records, 50 new ones a block
        pool = found.indices(block)
        draws.append(pool[rng.integers(len(pool), size=200)])
    drawn = np.concatenate(draws)
    counts = np.bincount(drawn, minlength=2000)
    assert counts.min() > 0.4 * counts.mean()
    assert counts.var() / counts.mean() == pytest.approx(1, abs=0.15)
    last_seen: dict[int, int] = {}
    distances = []
    for now, record in enumerate(drawn.tolist()):
        if record in last_seen:
            distances.append(now - last_seen[record])
        last_seen[record] = now
    assert np.mean(distances) == pytest.approx(2000, rel=0.1)  # the run's ends cut the longest off
    within_a_stay = np.mean(np.array(distances) < 8 * 200)
    assert 0.6 < within_a_stay < 0.85  # of about 4 uses a pass, 3 follow another one at once
