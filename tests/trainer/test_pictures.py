from pathlib import Path

import cv2
import numpy as np
import pytest

from configs.errors import InputError
from trainer.imaging.pictures import find_sources, video_frames


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def video(path: Path, count: int = 6) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for number in range(count):
        writer.write(np.full((48, 64, 3), (0, 0, 40 * number), np.uint8))
    writer.release()
    return path


def names(sources) -> list[str]:
    return [str(source.name) for source in sources]


def test_photos_of_one_name_in_two_folders_stay_apart(tmp_path: Path) -> None:
    touch(tmp_path / "a/x.jpg", tmp_path / "b/x.jpg", tmp_path / "b/deep/y.PNG", tmp_path / "b/.z.jpg")
    out = tmp_path / "out"
    assert names(find_sources([str(tmp_path / "a"), str(tmp_path / "b")], out)) == [
        "a/x.jpg",
        "b/deep/y.PNG",
        "b/x.jpg",
    ]
    assert names(find_sources([str(tmp_path / "a")], out)) == ["x.jpg"]


def test_no_name_leaves_the_folder_and_nothing_is_taken_twice(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path / "photos/x.jpg", tmp_path / "photos/notes.txt", tmp_path / "work/in.jpg")
    monkeypatch.chdir(tmp_path / "work")
    places = ["../photos/x.jpg", "in.jpg", "../photos", "../photos/*", str(tmp_path / "photos" / "*.jpg")]
    sources = find_sources(places, Path("out"))
    assert names(sources) == ["photos/x.jpg", "work/in.jpg"]
    assert [str(source.path) for source in sources] == ["../photos/x.jpg", "in.jpg"]


def test_what_was_written_before_is_not_looked_at(tmp_path: Path, monkeypatch) -> None:
    touch(tmp_path / "x.jpg", tmp_path / "out/images/x.jpg")
    monkeypatch.chdir(tmp_path)
    for place in (".", "**/*.jpg"):
        assert names(find_sources([place], Path("out"))) == ["x.jpg"]


def test_a_file_of_another_sort_is_taken_when_it_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "x", tmp_path / "x.png", tmp_path / "clip.mp4")
    assert names(find_sources([str(tmp_path / "x"), str(tmp_path / "clip.mp4")], tmp_path / "out")) == [
        "x.png",
        "clip.mp4",
    ]
    with pytest.raises(InputError, match=r"would both be written as x\.png"):
        find_sources([str(tmp_path / "x"), str(tmp_path / "x.png")], tmp_path / "out")


def test_a_place_without_pictures_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "notes.txt")
    for place, what in (
        (tmp_path, "no photo"),
        (tmp_path / "no.jpg", "nothing there"),
        (tmp_path / "*.jpg", "no photo"),
    ):
        with pytest.raises(InputError, match=f"found {what}"):
            find_sources([str(place)], tmp_path / "out")


def test_each_nth_frame_of_a_video_is_seen(tmp_path: Path) -> None:
    frames = list(video_frames(video(tmp_path / "clip.avi"), every=2))
    assert [number for number, _ in frames] == [0, 2, 4]
    for number, pixels in frames:
        assert pixels.shape == (48, 64, 3)
        assert abs(pixels.mean(axis=(0, 1)) - [40 * number, 0, 0]).max() < 6


def test_a_video_that_cannot_be_decoded_is_named(tmp_path: Path, capfd) -> None:
    touch(tmp_path / "empty.mp4")
    (tmp_path / "text.avi").write_text("no video " * 100)
    for name in ("empty.mp4", "text.avi"):
        with pytest.raises(InputError, match=f"{name}: no frame can be decoded"):
            list(video_frames(tmp_path / name))
