import pickle

import pytest

from trainer.streaming.decoded import DecodedCache


@pytest.fixture
def made() -> list[int]:
    return []


def ask(cache: DecodedCache[bytes], made: list[int], keys: list[int], size: int = 10) -> None:
    for key in keys:

        def make(key: int = key) -> bytes:
            made.append(key)
            return bytes([key]) * size

        assert cache.get(key, make) == bytes([key]) * size


def test_what_was_made_is_made_once_while_there_is_room(made) -> None:
    cache = DecodedCache[bytes](30, len)
    ask(cache, made, [1, 2, 3, 1, 2, 3])
    assert made == [1, 2, 3]
    assert cache.bytes == 30


def test_the_least_recently_used_make_room(made) -> None:
    cache = DecodedCache[bytes](30, len)
    ask(cache, made, [1, 2, 3, 1, 4, 1, 2])
    assert made == [1, 2, 3, 4, 2]
    assert cache.bytes == 30


def test_the_first_stay_where_they_are_told_to(made) -> None:
    cache = DecodedCache[bytes](25, len, keep_first=True)
    ask(cache, made, [1, 2, 3, 1, 2, 3])
    assert made == [1, 2, 3, 3]
    assert cache.bytes == 20


@pytest.mark.parametrize("keep_first", [False, True])
def test_what_is_larger_than_the_room_is_not_kept(made, keep_first) -> None:
    cache = DecodedCache[bytes](9, len, keep_first=keep_first)
    ask(cache, made, [1, 1])
    assert made == [1, 1]
    assert cache.bytes == 0


def test_a_cache_travels_empty(made) -> None:
    cache = DecodedCache[bytes](30, len)
    ask(cache, made, [1])
    again = pickle.loads(pickle.dumps(cache))
    assert again.bytes == 0
    ask(again, made, [1])
    assert made == [1, 1]
