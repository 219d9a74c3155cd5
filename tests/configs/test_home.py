from pathlib import Path

import pytest

from configs.home import locate


@pytest.mark.parametrize("named", ["birds", "runs/birds"])
def test_a_place_in_the_home_is_found_with_and_without_its_folders_name(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert locate(Path(named), home, "runs") == home / "runs" / "birds"


def test_what_is_in_the_working_directory_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "birds").mkdir()
    monkeypatch.chdir(tmp_path)
    assert locate(Path("birds"), tmp_path / "home", "runs") == Path("birds")
    assert locate(tmp_path / "gone", tmp_path / "home", "runs") == tmp_path / "gone"
