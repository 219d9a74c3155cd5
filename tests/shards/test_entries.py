import pickle
from itertools import repeat

import pytest

from shards.entries import ShardEntry, ShardTable, line_of
from shards.errors import ShardError


def entry(index: int) -> ShardEntry:
    return ShardEntry(f"crops-{index:06d}.tar", 5, 1234, "a" * 64, {"bird": 5}, {"ünsure": 2}, 7)


def test_a_table_is_the_row_of_its_entries() -> None:
    row = (entry(0), entry(1), entry(5))
    table = ShardTable(row)
    assert len(table) == 3
    assert tuple(table) == row
    assert table[2] == table[-1] == entry(5)
    assert table == row
    assert table[1:] == row[1:]
    assert isinstance(table[1:], ShardTable)
    assert table != row[:2]
    assert entry(1) in table
    with pytest.raises(IndexError):
        table[3]


def test_equal_tables_have_equal_hashes_and_travel() -> None:
    table = ShardTable(map(entry, range(3)))
    assert hash(ShardTable.of_lines(line_of(entry(i)) for i in range(3))) == hash(table)
    assert pickle.loads(pickle.dumps(table)) == table
    assert ShardTable(table).lines is table.lines


def test_an_entry_that_is_no_json_is_named() -> None:
    bad = ShardEntry("crops-000001.tar", 1, 1, "a" * 64, {"bird": repeat(1)})  # type: ignore[dict-item]
    with pytest.raises(ShardError, match=r"^crops-000001\.tar: not plain JSON: "):
        ShardTable([bad])
