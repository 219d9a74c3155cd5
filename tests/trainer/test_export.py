"""Exports: the samples' own boxes and masks in every format, the same bytes however they were made."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO

from configs.errors import InputError
from shards.manifest import Manifest, fingerprint_of, shard_name, write_manifest
from shards.records import CropRecord
from shards.store import open_store
from shards.writer import write_shard
from trainer.dataset import DatasetConfig
from trainer.datasets.coco import CocoConfig
from trainer.datasets.voc import VocConfig
from trainer.export import main
from trainer.exporting.materialise import ExportJob, materialise
from trainer.exports.coco import CocoExport
from trainer.exports.voc import VocExport
from trainer.exports.yolo import YoloExport
from trainer.imaging.images import read_image
from trainer.runs.config import load_run
from trainer.runs.open_scenes import Scenes, open_scenes
from trainer.sample import Target, make_target

# pycocotools' own, under numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

_SCENES = 8
Job = Callable[..., ExportJob]


@pytest.fixture
def config(sets, tmp_path) -> Path:
    """Crowded scenes of discs, some of which are ignored."""
    path = tmp_path / "discs.yaml"
    path.write_text(
        f"""
crops: [{sets[0]}]
backgrounds: {sets[1]}
dataset: {{kind: voc, root: nowhere}}
detector: {{kind: ssd, backbone: mobilenet_v2, weights: none, image_size: 96}}
compositor: {{max_objects: 5, max_overlap: 0.8, min_visible: 0.7, truncation: 0.5}}
"""
    )
    return path


@pytest.fixture
def job(config, tmp_path) -> Job:
    def make(form, name="out", first=0, overrides=()) -> ExportJob:
        return ExportJob(load_run(str(config), list(overrides)), tmp_path, form, tmp_path / name, 7, first)

    return make


def scenes_of(job: ExportJob) -> Scenes:
    return open_scenes(job.config, job.home, job.seed)


def targets_of(job: ExportJob) -> list[Target]:
    return [scenes_of(job).stream[number].target for number in range(_SCENES)]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_equal(found: list[Target], wanted: list[Target]) -> None:
    assert len(found) == len(wanted) > 0
    for one, other in zip(found, wanted, strict=True):
        assert np.array_equal(one.boxes, other.boxes) and np.array_equal(one.labels, other.labels)
        assert np.array_equal(one.ignore, other.ignore)


def read_back(dataset: DatasetConfig) -> list[Target]:
    return [photo.target for photo in dataset.read("train", ["disc"], Path())]


def test_the_scenes_of_these_tests_show_ignored_and_truncated_objects(job) -> None:
    targets = targets_of(job(CocoExport()))
    assert {bool(flag) for target in targets for flag in target.ignore} == {True, False}
    assert any((target.boxes == 0).any() for target in targets)


@pytest.mark.parametrize("masks", ["rle", "polygons", "none"])
def test_pycocotools_reads_the_samples_boxes(job, masks) -> None:
    made = job(CocoExport(masks=masks))
    summary = materialise(made, _SCENES)
    coco = COCO(made.folder / "annotations" / "instances_train.json")
    for number, target in enumerate(targets_of(made)):
        notes = coco.loadAnns(coco.getAnnIds(imgIds=[number + 1]))
        xywh = np.array([note["bbox"] for note in notes]).reshape(-1, 4)
        assert np.array_equal(np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]), target.boxes)
        assert [note["iscrowd"] for note in notes] == target.ignore.tolist()
    assert summary.objects == len(coco.anns) and 0 not in coco.anns
    assert summary.ignored == sum(note["iscrowd"] for note in coco.anns.values())


@pytest.mark.parametrize("masks", ["rle", "polygons"])
def test_cocos_masks_fill_their_boxes(job, masks) -> None:
    made = job(CocoExport(masks=masks))
    materialise(made, _SCENES)
    coco = COCO(made.folder / "annotations" / "instances_train.json")
    for note in coco.anns.values():
        mask = coco.annToMask(note)
        assert list(cv2.boundingRect(mask)) == note["bbox"]
        assert masks == "polygons" or mask.sum() == note["area"]


def test_our_own_readers_read_the_samples(job) -> None:
    coco, voc = job(CocoExport(), "coco"), job(VocExport(), "voc")
    for made in (coco, voc):
        materialise(made, _SCENES)
    instances = {"train": "annotations/instances_train.json"}
    assert_equal(
        read_back(CocoConfig(root=coco.folder, annotations=instances, images="images/{split}")),
        targets_of(coco),
    )
    assert_equal(read_back(VocConfig(root=voc.folder, one_based=True)), targets_of(voc))


def test_boxes_between_pixels_are_equal_too(job) -> None:
    overrides = ["compositor.preset=paper-birds", "detector.image_size=100"]
    made = job(VocExport(), overrides=overrides)
    materialise(made, _SCENES)
    found = read_back(VocConfig(root=made.folder, one_based=True))
    assert_equal(found, targets_of(made))
    assert any((target.boxes % 1).any() for target in found)


def read_yolo(folder: Path, part: str) -> list[np.ndarray]:
    """Lines of numbers of each image, as `data.yaml` says where, in the order of the names."""
    images = folder / yaml.safe_load((folder / "data.yaml").read_text())["train"]
    texts = [
        Path(re.sub("/images/", f"/{part}/", str(image))).with_suffix(".txt")
        for image in sorted(images.iterdir())
    ]
    return [[np.array(line.split(), np.float64) for line in path.read_text().splitlines()] for path in texts]


def test_yolo_has_the_boxes_that_are_not_ignored(job) -> None:
    made = job(YoloExport())
    materialise(made, _SCENES)
    assert yaml.safe_load((made.folder / "data.yaml").read_text())["names"] == {0: "disc"}
    for lines, target in zip(read_yolo(made.folder, "labels"), targets_of(made), strict=True):
        rows = np.array(lines).reshape(-1, 5)
        centre, side = 96 * rows[:, 1:3], 96 * rows[:, 3:]
        corners = np.clip(np.hstack([centre - side / 2, centre + side / 2]), 0, 96)
        found = make_target(corners, rows[:, 0] + 1)
        assert np.array_equal(found.boxes, target.boxes[~target.ignore])
        assert np.array_equal(found.labels, target.labels[~target.ignore])


def test_yolos_polygons_reach_to_their_boxes(job) -> None:
    made = job(YoloExport())
    materialise(made, _SCENES)
    for lines, target in zip(read_yolo(made.folder, "segments"), targets_of(made), strict=True):
        points = [96 * line[1:].reshape(-1, 2) for line in lines]
        boxes = [[*ring.min(0), *ring.max(0)] for ring in points]
        assert np.array_equal(np.array(boxes, np.float32).reshape(-1, 4), target.boxes[~target.ignore])


def test_vocs_masks_show_each_object_within_its_box(job) -> None:
    made = job(VocExport())
    materialise(made, _SCENES)
    for number, target in enumerate(targets_of(made)):
        name = f"{number:08d}.png"
        numbers, classes = (
            np.array(Image.open(made.folder / part / name))
            for part in ("SegmentationObject", "SegmentationClass")
        )
        assert set(np.unique(classes)) <= {0, 1, 255}
        assert np.array_equal(numbers == 255, classes == 255)
        for place, box in enumerate(target.boxes):
            if not target.ignore[place]:
                x, y, w, h = cv2.boundingRect((numbers == place + 1).astype(np.uint8))
                assert [x, y, x + w, y + h] == box.tolist()


def test_distractors_are_in_no_mask_and_no_box(job, tmp_path) -> None:
    store = open_store(tmp_path / "squares")
    green = np.full((40, 40, 3), (10, 240, 10), np.uint8)
    square = CropRecord("0", "square", green, np.full((40, 40), 255, np.uint8))
    entry = write_shard(store, shard_name("crops", 0), [square])
    write_manifest(store, Manifest("crops", ("square",), fingerprint_of({}), {}, (entry,), complete=True))
    wanted = ["compositor.distractors.max=3", f"distractors=[{tmp_path / 'squares'}]"]
    made = job(VocExport(image="png"), overrides=wanted)
    materialise(made, _SCENES)
    assert_equal(read_back(VocConfig(root=made.folder, one_based=True)), targets_of(made))
    shown = np.stack([read_image(path) for path in sorted((made.folder / "JPEGImages").iterdir())])
    masks = [np.array(Image.open(path)) for path in sorted((made.folder / "SegmentationObject").iterdir())]
    distracting = (shown[..., 1] > 170) & (shown[..., 0] < 60)
    assert distracting.sum() > 500 and not np.stack(masks)[distracting].any()


def test_vocs_palette_is_the_original_one(job) -> None:
    made = job(VocExport())
    materialise(made, 1)
    palette = Image.open(made.folder / "SegmentationClass" / "00000000.png").getpalette()
    assert palette[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
    assert palette[-3:] == [224, 224, 192]


def test_truncated_objects_touch_the_edge(job) -> None:
    made = job(VocExport())
    materialise(made, _SCENES)
    flags = []
    for path in sorted((made.folder / "Annotations").iterdir()):
        for item in path.read_text().split("<object>")[1:]:
            x0, y0, x1, y1 = (float(v) for v in re.findall(r"<[xy]m..>(.*?)<", item))
            flags.append("<truncated>1" in item)
            assert not flags[-1] or x0 == 1 or y0 == 1 or x1 == 96 or y1 == 96
    assert set(flags) == {True, False}


def test_png_images_are_the_samples_pixels(job) -> None:
    made = job(CocoExport(image="png"), first=5)
    materialise(made, 2)
    for number in (5, 6):
        image = read_image(made.folder / "images" / "train" / f"{number:08d}.png")
        assert np.array_equal(image, scenes_of(made).stream[number].image)


@pytest.mark.parametrize("form", [CocoExport, YoloExport, VocExport])
def test_a_share_of_the_scenes_is_the_split_val(job, form) -> None:
    made = job(form(val_share=0.25))
    materialise(made, _SCENES)
    if form is CocoExport:
        images = [
            json.loads((made.folder / "annotations" / f"instances_{s}.json").read_text())["images"]
            for s in ("train", "val")
        ]
        counts = [len(each) for each in images]
    elif form is YoloExport:
        counts = [len(list((made.folder / "labels" / split).iterdir())) for split in ("train", "val")]
    else:
        lists = made.folder / "ImageSets" / "Main"
        counts = [len((lists / f"{split}.txt").read_text().split()) for split in ("train", "val")]
    assert counts == [6, 2]


# The same bytes, however they came about


class _Interrupt(Exception):
    pass


@pytest.mark.parametrize("form", [CocoExport(), YoloExport(), VocExport()])
def test_an_interrupted_export_goes_on_to_the_same_bytes(job, form) -> None:
    straight, halting = job(form, "straight"), job(form, "halting")
    materialise(straight, _SCENES)

    def interrupt(done: int) -> None:
        if done == 3:
            raise _Interrupt

    with pytest.raises(_Interrupt):
        materialise(halting, _SCENES, tell=interrupt)
    assert not any((halting.folder / part).exists() for part in ("annotations", "data.yaml", "ImageSets"))
    with (halting.folder / "export.jsonl").open("ab") as journal:
        journal.write(b'{"scene":3,"fi')  # as a lost process leaves it
    images = sorted(p for p in halting.folder.rglob("*.jpg"))
    before = [path.stat().st_mtime_ns for path in images]
    assert materialise(halting, _SCENES).made == _SCENES - 3
    assert [path.stat().st_mtime_ns for path in images] == before
    assert bytes_of(halting.folder) == bytes_of(straight.folder)


def test_a_killed_export_with_workers_goes_on_to_the_bytes_of_one_process(job, config, tmp_path) -> None:
    straight = job(CocoExport(), "straight")
    materialise(straight, 400)
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "trainer.export", str(config), str(killed), "--to", "coco"]
    command += ["--images", "400", "--seed", "7", "--workers", "2"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    journal, until = killed / "export.jsonl", time.monotonic() + 120
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = materialise(job(CocoExport(), "killed"), 400)
    assert 0 < done.made < 400
    assert bytes_of(killed) == bytes_of(straight.folder)


def test_more_images_are_added_to_an_export_and_fewer_are_refused(job) -> None:
    grown, straight = job(CocoExport(), "grown"), job(CocoExport(), "straight")
    materialise(grown, 3)
    assert materialise(grown, 5).made == 2
    materialise(straight, 5)
    assert bytes_of(grown.folder) == bytes_of(straight.folder)
    with pytest.raises(InputError, match="holds 5 images, wanted at most --images 4"):
        materialise(grown, 4)


def test_lost_and_cut_files_are_made_again(job) -> None:
    made = job(YoloExport())
    materialise(made, 4)
    before = bytes_of(made.folder)
    (made.folder / "images" / "train" / "00000001.jpg").unlink()
    (made.folder / "segments" / "train" / "00000002.txt").write_text("0 0.")
    (made.folder / "data.yaml").unlink()
    assert materialise(made, 4).made == 2
    assert bytes_of(made.folder) == before


def test_the_same_export_again_writes_nothing(job) -> None:
    made = job(VocExport())
    materialise(made, 3)
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*") if path.is_file()}
    assert materialise(made, 3).made == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


# What is refused


def test_a_damaged_journal_is_refused(job) -> None:
    made = job(CocoExport())
    materialise(made, 3)
    journal = made.folder / "export.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[1:]))
    with pytest.raises(InputError, match=r"export.jsonl: line 1 is damaged, wanted the record of scene 0"):
        materialise(made, 3)


def test_a_folder_of_something_else_is_refused(job, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("!")
    with pytest.raises(InputError, match="out: holds something else, wanted a new or empty folder"):
        materialise(job(CocoExport()), 2)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("form", "first", "overrides", "differing"),
    [
        (CocoExport(masks="none"), 0, [], "export"),
        (CocoExport(), 9, [], "first"),
        (CocoExport(), 0, ["compositor.max_objects=2"], "compositor"),
    ],
)
def test_another_export_in_the_folder_is_refused(job, form, first, overrides, differing) -> None:
    materialise(job(CocoExport()), 2)
    with pytest.raises(InputError, match=f"holds an export with another {differing}$"):
        materialise(job(form, first=first, overrides=overrides), 2)


def test_two_exports_at_a_time_are_refused(job) -> None:
    made = job(CocoExport())

    def intrude(done: int) -> None:
        with pytest.raises(InputError, match="another export is writing to it"):
            materialise(made, 3)

    assert materialise(made, 2, tell=intrude).images == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "0"], "--images: found 0, wanted at least 1"),
        (["--images", "2", "--masks", "png"], "masks: found 'png', wanted 'rle'"),
        (["--images", "2", "--quality", "101"], "quality: found 101"),
        (["--images", "2", "more"], "wanted a configuration and a folder"),
    ],
)
def test_wrong_arguments_are_one_line(config, tmp_path, arguments, message) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        main([str(config), str(tmp_path / "out"), "--to", "coco", *arguments])
    assert not (tmp_path / "out").exists()


def test_the_command_exports_and_says_how_to_read_it(config, tmp_path, capsys) -> None:
    out = tmp_path / "yolo"
    assert main([str(config), str(out), "--to", "yolo", "--images", "3", "compositor.max_objects=1"]) == 0
    said = capsys.readouterr().out
    assert f"{out}: 3 images (3 made now), 3 objects" in said and f"data={out}/data.yaml" in said
