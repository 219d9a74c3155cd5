import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shards import inspect
from shards.records import CropRecord

from .conftest import MakeSet, make_background, make_crop, smooth_image


def test_the_summary_says_what_the_set_holds(make_set: MakeSet, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([make_set()]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["kind"] == "crops, complete"
    assert lines["records"].startswith("12 in 3 shards, ")
    assert lines["classes"] == "bird"
    assert lines["labels"] == "bird 12"
    assert lines["dropped"] == "small 3"


def test_json_holds_the_same_facts(make_set: MakeSet, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([make_set("backgrounds"), "--json", "--verify"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["kind"], facts["records"], facts["shards"], facts["seen"]) == ("backgrounds", 12, 3, 15)
    assert (facts["complete"], facts["dropped"], facts["problems"]) == (True, {"small": 3}, [])


def test_an_incomplete_set_is_shown(make_set: MakeSet, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([make_set(complete=False), "--verify"]) == 0
    out = capsys.readouterr().out
    assert "incomplete: run the command that made it again to finish it" in out
    assert "hashes, counts and records are right" in out


def test_each_problem_is_a_line_and_the_status_is_two(
    make_set: MakeSet, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path(make_set())
    (place / "crops-000000.tar").unlink()
    (place / "crops-000002.tar").write_bytes(bytes(1024))
    assert inspect.main([str(place), "--verify"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"error: {place}/crops-000000.tar: not found"
    assert lines[1].startswith(f"error: {place}/crops-000002.tar: 1024 bytes, the manifest says ")
    assert len(lines) == 2


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_folder_that_is_no_set_is_one_line_and_status_two(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    command = [sys.executable, "-m", "shards.inspect", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wanted = f"error: {tmp_path / name}: no manifest.json: not a crop or background set\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", wanted)


def test_help_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        inspect.main(["--help"])
    assert caught.value.code == 0
    assert "--verify" in capsys.readouterr().out.split("examples:")[1]


@pytest.mark.parametrize("kind", ["crops", "backgrounds"])
def test_the_preview_is_a_grid_of_equal_cells(make_set: MakeSet, tmp_path: Path, kind: str) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    assert inspect.main([make_set(kind), "--preview", str(sheet)]) == 0
    with Image.open(sheet) as image:
        assert image.size == (8 * 132 + 4, 2 * 132 + 4)


def test_the_preview_is_spread_over_a_large_set(make_set: MakeSet) -> None:
    found = inspect.ShardSet.open(make_set(shards=2, each=60))
    keys = [record.key for record in inspect._spread(found)]
    assert len(keys) == len(set(keys)) == 48
    assert (keys[0], keys[-1]) == (make_crop(0).key, make_crop(119).key)


def test_a_crop_lies_on_a_checkerboard_with_its_aspect_kept() -> None:
    mask = np.zeros((32, 64), np.uint8)
    mask[:, 32:] = 255
    red = np.zeros((32, 64, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    cell = inspect.contact_sheet([CropRecord("k", "bird", red, mask)])[4:132, 4:132]
    assert (cell[40:90, 80:120] == [255, 0, 0]).all()  # opaque half
    assert set(np.unique(cell[40:90, :56])) == {160, 208}  # clear half
    assert set(np.unique(cell[:32])) == {160, 208}  # above the crop, twice as wide as high


def test_a_background_fills_its_cell() -> None:
    sheet = inspect.contact_sheet([make_background(0)])
    assert (sheet[4 + 10] == 255).all()  # 40x30: a strip above stays paper
    assert np.abs(sheet[4 + 64, 4 + 64].astype(int) - smooth_image(40, 30)[15, 20]).max() < 12


def test_a_preview_of_nothing_is_refused(make_set: MakeSet, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([make_set(shards=0), "--preview", "never.png"]) == 2
    assert "error: preview: the set has no records" in capsys.readouterr().err


def test_a_preview_of_unknown_format_is_refused(
    make_set: MakeSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect.main([make_set(), "--preview", str(tmp_path / "sheet.what")]) == 2
    assert "sheet.what: preview not written" in capsys.readouterr().err
