from pathlib import Path

import pytest

from configs.errors import InputError
from factory.photos import list_photos


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000 + "b.jpg", "\0"])
def test_a_listed_name_that_no_file_system_takes_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "list.txt").write_text(f"{name}\n")
    with pytest.raises(InputError, match=r"list.txt:1: .*no such file"):
        list_photos(tmp_path / "list.txt")
