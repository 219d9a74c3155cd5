"""What the tables let through is what comparing every pair would."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory.managing import near_hashes
from factory.managing.near_hashes import MAX_BITS, Flags, Hashes, NearHashes


def _by_every_pair(hashes: Hashes, bits: int) -> list[bool]:
    kept: list[int] = []
    passed = []
    for value in hashes.tolist():
        passed.append(all((value ^ other).bit_count() > bits for other in kept))
        if passed[-1]:
            kept.append(value)
    return passed


def _hashes(count: int, mask: int, seed: int) -> Hashes:
    """Two thirds anywhere in the mask's bits, one third a few bits away from one of those."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    near = hashes[rng.integers(0, 2 * count // 3, count - 2 * count // 3)]
    for _ in range(6):
        bit = np.uint64(1) << rng.integers(0, 64, len(near), dtype=np.uint64)
        near = near ^ np.where(rng.random(len(near)) < 0.7, bit, np.uint64(0))
    hashes[2 * count // 3 :] = near
    return hashes & np.uint64(mask)


@pytest.mark.parametrize("bits", [0, 1, 4, MAX_BITS])
@pytest.mark.parametrize("mask", [2**64 - 1, 0xFFFFFFFF, 0x00003C7E7E7E3C00], ids=["spread", "half", "rows"])
def test_what_passes_is_what_comparing_every_pair_lets_pass(bits: int, mask: int, monkeypatch) -> None:
    monkeypatch.setattr(near_hashes, "_RECENT", 200)  # so that most are found by the tables
    monkeypatch.setattr(near_hashes, "_PAIRS", 100)
    hashes = _hashes(1500, mask, seed=bits)
    assert NearHashes(bits).let_through(hashes).tolist() == _by_every_pair(hashes, bits)


@given(st.lists(st.integers(0, 63), max_size=MAX_BITS, unique=True), st.integers(0, 2**64 - 1))
def test_the_tables_find_every_hash_within_reach(flipped: list[int], value: int) -> None:
    seen = NearHashes(MAX_BITS)
    seen.let_through(np.array([value], np.uint64))
    seen._sort_in()
    other = value
    for bit in flipped:
        other ^= 1 << bit
    assert not seen.let_through(np.array([other], np.uint64))[0]


def test_how_a_row_is_cut_into_calls_changes_nothing() -> None:
    hashes = _hashes(3000, 2**64 - 1, seed=3)
    whole = NearHashes(4).let_through(hashes)
    seen = NearHashes(4)
    parts: list[Flags] = [seen.let_through(part) for part in np.split(hashes, [0, 1, 700, 2999])]
    assert np.concatenate(parts).tolist() == whole.tolist()


@pytest.mark.parametrize("bits", [-1, MAX_BITS + 1])
def test_bits_out_of_reach_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="wanted 0 to 8"):
        NearHashes(bits)
