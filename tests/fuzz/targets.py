"""What is fuzzed: each reader of foreign files with its seeds, its changes and what must hold then."""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from configs.errors import InputError
from configs.load import apply_overrides, read_yaml, to_yaml, validated
from factory.photos import UnreadablePhoto, list_photos, read_cut_out, read_photo
from factory.recipe import Recipe
from shards.codec import decode, encode
from shards.errors import ShardError
from shards.manifest import Manifest, find_manifest, fingerprint_of, manifest_from_json, write_manifest
from shards.raw import read_raw
from shards.reader import ShardSet
from shards.records import BackgroundRecord, CropRecord
from shards.stats import stats_of
from shards.store import open_store
from shards.writer import pack_shard
from tests.fuzz.mutations import Files, Mutation, of_bytes, of_jpeg, of_json, of_tar, of_text
from trainer.dataset import DatasetConfig
from trainer.datasets.coco import CocoConfig
from trainer.datasets.csv_boxes import CsvBoxesConfig
from trainer.datasets.cub import CubConfig
from trainer.datasets.fddb import FddbConfig
from trainer.datasets.stanford_cars import StanfordCarsConfig
from trainer.datasets.voc import VocConfig
from trainer.datasets.wider import WiderConfig
from trainer.datasets.yolo import YoloConfig
from trainer.evaluation.detections_file import read_detections, write_detections
from trainer.imaging.images import read_image, read_size
from trainer.networks.weights import read_state_dict
from trainer.runs.config import RunConfig
from trainer.sample import Detections
from trainer.training.checkpoint import load_checkpoint, save_checkpoint

_WIDTH, _HEIGHT = 40, 30  # of every photo here


class Broken(AssertionError):
    """What was read breaks a promise of its reader."""


@dataclass(frozen=True, slots=True)
class Target:
    """check: reads a folder; True when it was read, False when it was refused as documented; else it raises.

    make: the seeds. by_suffix: how files of a suffix are changed; others are left alone.
    fixed: files that are changed to agree with the others after a mutation, half of the time.
    """

    check: Callable[[Path], bool]
    make: Callable[[], list[Files]]
    by_suffix: Mapping[str, tuple[Mutation, ...]]
    fixed: Callable[[Files], Files] | None = None
    memory_mb: int = 512

    def mutated(self, rng: np.random.Generator, files: Files) -> Files:
        """One to four changes."""
        changed = dict(files)
        names = [name for name in changed if Path(name).suffix in self.by_suffix]
        for _ in range(int(rng.choice([1, 1, 1, 2, 2, 3, 4]))):
            name = names[int(rng.integers(len(names)))]
            mutations = self.by_suffix[Path(name).suffix]
            changed[name] = mutations[int(rng.integers(len(mutations)))](rng, changed[name])
        return self.fixed(changed) if self.fixed is not None and rng.random() < 0.7 else changed


@contextmanager
def _refusals(*errors: type[Exception]) -> Iterator[list[bool]]:
    """``[True]`` when the block ended well, ``[False]`` when it raised a documented error of one line."""
    read = [True]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)  # of arithmetic that went wrong unseen
            yield read
    except errors as error:
        _want("\n" not in str(error) and "\r" not in str(error), f"not one line: {error!r}")
        _want(len(str(error)) < 100_000, f"a message of {len(str(error))} characters")
        read[0] = False


def _want(holds: bool, what: str) -> None:
    if not holds:
        raise Broken(what)


# shards


def _records(kind: str) -> list[CropRecord | BackgroundRecord]:
    rng = np.random.default_rng(7)
    records: list[CropRecord | BackgroundRecord] = []
    for number, (height, width) in enumerate([(9, 12), (16, 16), (24, 7)]):
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        origin = {"source": "photo", "score": 0.25 * number, "frame_w": 40, "kept": True}
        if kind == "crops":
            mask = np.where(np.arange(width) < width // 2, 255, 0).astype(np.uint8)
            mask = np.broadcast_to(mask, (height, width))
            records.append(CropRecord(f"{number:06d}", "bird", image, mask, origin))
        else:
            records.append(BackgroundRecord(f"{number:06d}", image, origin))
    return records


def _set(kind: str) -> Files:
    name = f"{kind}-000000.tar"
    entry, packed = pack_shard(name, _records(kind), dropped={"small": 2}, seen=5)
    recipe = {"seed": 1, "source": {"kind": "images"}}
    classes = ("bird", "car") if kind == "crops" else ()
    manifest = Manifest(kind, classes, fingerprint_of(recipe), recipe, (entry,), True)  # type: ignore[arg-type]
    return {name: packed, "manifest.json": manifest.to_utf8()}


def _sets() -> list[Files]:
    return [_set("crops"), _set("backgrounds")]


def _manifest_of_the_tar(files: Files) -> Files:
    """The manifest says the tar's size and hash, as whoever makes a foreign set would write them."""
    import hashlib

    name = next(name for name in files if name.endswith(".tar"))
    try:
        content = json.loads(files["manifest.json"])
        content["shards"][0]["bytes"] = len(files[name])
        content["shards"][0]["sha256"] = hashlib.sha256(files[name]).hexdigest()
    except (ValueError, LookupError, TypeError, RecursionError):
        return files
    return {**files, "manifest.json": json.dumps(content).encode()}


def _check_set(folder: Path) -> bool:
    """Opened, streamed, read by index, raw, verified, measured: whatever decodes encodes again."""
    with _refusals(ShardError) as opened:
        shard_set = ShardSet.open(folder, allow_incomplete=True)
    if not opened[0]:
        return False
    with _refusals(ShardError) as read:
        keys: list[str] = []
        for record in shard_set.stream():
            _check_record(record)
            keys.append(record.key)
        _want(len(keys) == len(shard_set), f"{len(keys)} records of {len(shard_set)}")
        if keys:
            _want(shard_set[-1].key == keys[-1], "the last record is another by index")
    problems = [line for _, lines in _verified(shard_set) for line in lines]
    _want(not (not problems and not read[0]), "stream refuses what verify finds sound")
    for entry in shard_set.manifest.shards:
        with _refusals(ShardError):
            for raw in read_raw(shard_set.store, entry):
                raw.facts()
    with _refusals(ShardError):
        json.dumps(stats_of(shard_set, 10), allow_nan=False)
    return read[0]


def _verified(shard_set: ShardSet) -> list[tuple[Any, list[str]]]:
    return list(shard_set.verify())


def _check_record(record: CropRecord | BackgroundRecord) -> None:
    _want(record.image.dtype == np.uint8 and record.image.ndim == 3, "not a picture")
    _want(isinstance(record.key, str) and record.key.isascii(), "not a key")
    _want(all(type(v) in (str, int, float, bool) for v in record.origin.values()), "origin is no scalars")
    if isinstance(record, CropRecord):
        _want(record.mask.shape == record.image.shape[:2] and record.mask.dtype == np.uint8, "mask")
    again = decode(record.key, encode(record))
    _want(dict(again.origin) == dict(record.origin), "another origin when encoded again")


def _check_manifest(folder: Path) -> bool:
    """A manifest that is read can be written, and reads back the same."""
    store = open_store(folder)
    with _refusals(ShardError) as read:
        manifest = find_manifest(store)
        if manifest is not None:
            text = manifest.to_json()
            _want(manifest_from_json(text, "again") == manifest, "not the same when read again")
            write_manifest(store, manifest)
            _want(find_manifest(store) == manifest, "not the same when written and read")
            _want(len(ShardSet(store, manifest)) == manifest.records, "another length")
    return read[0]


# configurations


def _run_files() -> list[Files]:
    folder = Path(__file__).parents[2] / "configs"
    overrides = b"seeds=[0, 1]\ndetector.kind=ssd\nname=x\ncompositor.max_objects=3\npretrain.lr=1e-3\n"
    return [
        {"config.yaml": path.read_bytes(), "overrides.txt": overrides}
        for path in sorted((folder / "runs").glob("*.yaml"))
    ]


def _recipe_files() -> list[Files]:
    folder = Path(__file__).parents[2] / "configs"
    overrides = b"seed=3\nsegmenter.kind=whole\nquality.min_side_px=3\nlabel=bird\n"
    return [
        {"config.yaml": path.read_bytes(), "overrides.txt": overrides}
        for path in sorted((folder / "classes").glob("*.yaml"))
    ]


def _config_check(model: Any) -> Callable[[Path], bool]:
    def check(folder: Path) -> bool:
        """What is read is dumped, and the dump reads back the same."""
        overrides = (folder / "overrides.txt").read_bytes().decode("utf-8", "surrogateescape").splitlines()
        with _refusals(InputError) as read:
            path = folder / "config.yaml"
            try:
                config = validated(model, apply_overrides(read_yaml(path), overrides), str(path))
            except InputError:  # the file alone is worth a look too
                config = validated(model, read_yaml(path), str(path))
            again = folder / "again.yaml"
            again.write_text(to_yaml(config), encoding="utf-8")
            _want(validated(model, read_yaml(again), "again") == config, "not the same when read again")
        return read[0]

    return check


# data sets


def _photo_bytes() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (_WIDTH, _HEIGHT), (10, 200, 30)).save(stream, "JPEG")
    return stream.getvalue()


def _check_dataset(config: Callable[[Path], DatasetConfig], *names: str) -> Callable[[Path], bool]:
    def check(folder: Path) -> bool:
        with _refusals(InputError) as read:
            dataset = config(folder)
            classes = list(names) or dataset.class_names(folder) or ["object"]
            splits = dataset.split_names(folder)
            for split in splits[:2]:
                for image in dataset.read(split, classes, folder):
                    _check_boxed(image, len(classes))
        return read[0]

    return check


def _check_boxed(image: Any, num_classes: int) -> None:
    target = image.target
    boxes, width, height = target.boxes, image.width, image.height
    _want(type(width) is int and type(height) is int and width > 0 and height > 0, f"size {width}x{height}")
    _want(boxes.dtype == np.float32 and boxes.ndim == 2 and boxes.shape[1] == 4, "boxes are not (N, 4)")
    _want(target.labels.dtype == np.int64 and target.ignore.dtype == bool, "labels or ignore of another type")
    _want(len(boxes) == len(target.labels) == len(target.ignore), "of different lengths")
    _want(bool(np.isfinite(boxes).all()), "boxes that are not finite")
    inside = (boxes[:, :2] >= 0).all() and (boxes[:, :2] < boxes[:, 2:]).all()
    _want(bool(inside), f"boxes without area: {boxes}")
    _want(bool((boxes[:, 2:] <= [width, height]).all()), f"boxes outside {width}x{height}: {boxes}")
    _want(bool(((target.labels >= 1) & (target.labels <= num_classes)).all()), "labels of no class")
    _want(isinstance(image.key, str), "key is no text")
    if target.landmarks is not None:
        _want(target.landmarks.shape == (len(boxes), 5, 2), f"landmarks {target.landmarks.shape}")
        _want(bool(np.isfinite(target.landmarks).all()), "landmarks that are not finite")
        _want(target.has_landmarks.shape == (len(boxes),), "landmarks of unknown objects")
    if image.annotated is not None:
        _want(not np.isnan(image.annotated).any(), "annotated boxes of no number")


def _voc() -> list[Files]:
    sides = "<bndbox><xmin>2</xmin><ymin>3.5</ymin><xmax>20</xmax><ymax>25</ymax></bndbox>"
    size = "<size><width>40</width><height>30</height><depth>3</depth></size>"
    one = f"<object><name>car</name><difficult>1</difficult>{sides}</object>"
    xml = f'<?xml version="1.0" encoding="utf-8"?>\n<annotation>{size}{one}{one}</annotation>'
    return [
        {
            "JPEGImages/a.jpg": _photo_bytes(),
            "Annotations/a.xml": xml.encode(),
            "ImageSets/Main/train.txt": b"a\n",
        }
    ]


def _coco() -> list[Files]:
    content = {
        "images": [{"id": 7, "file_name": "one.jpg", "width": 40, "height": 30}],
        "categories": [{"id": 5, "name": "bird"}, {"id": 90, "name": "car"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 5, "bbox": [1, 2, 10.5, 5], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 90, "bbox": [0, 0, 99, 4], "iscrowd": 1},
        ],
    }
    return [{"images/one.jpg": _photo_bytes(), "instances.json": json.dumps(content).encode()}]


def _yolo() -> list[Files]:
    data = b"path: .\ntrain: images/train\nval: [images/train]\nnames: {0: bird, 1: 'no'}\n"
    listed = b"train: list.txt\nnames: [bird, car]\nnc: 2\n"
    labels = b"0 0.5 0.5 0.2 0.3\n1 0.1 0.2 0.3 0.4 0.5 0.1\n"
    photo = {"images/train/a.jpg": _photo_bytes(), "labels/train/a.txt": labels}
    return [{"data.yaml": data, **photo}, {"data.yaml": listed, "list.txt": b"images/train/a.jpg\n", **photo}]


def _csv() -> list[Files]:
    with_labels = (
        b'file,x0,y0,x1,y1,label,ignore\na.jpg,1,2,30,20,bird,0\n"a.jpg",3,3,9,9,car,true\na.jpg,,,,,,\n'
    )
    plain = b"file,x0,y0,x1,y1\na.jpg,1,2,30,20\n"
    return [{"images/a.jpg": _photo_bytes(), "boxes.csv": text} for text in (with_labels, plain)]


def _cub() -> list[Files]:
    return [
        {
            "images/a/x.jpg": _photo_bytes(),
            "images/b/y.jpg": _photo_bytes(),
            "images.txt": b"1 a/x.jpg\n2 b/y.jpg\n",
            "bounding_boxes.txt": b"1 2.0 3.0 10.0 20.0\n2 30.0 20.0 15.5 10.0\n",
            "train_test_split.txt": b"1 1\n2 0\n",
        }
    ]


def _fddb() -> list[Files]:
    fold = b"2002/a\n2\n12.5 8.25 1.5707 20 15 1\n3 2 -0.4 5 6  1\n2002/b\n0\n"
    photos = {f"originalPics/2002/{name}.jpg": _photo_bytes() for name in "ab"}
    return [{"FDDB-folds/FDDB-fold-01-ellipseList.txt": fold, **photos}]


def _wider() -> list[Files]:
    zeros = b" 0" * 6
    official = b"0--Parade/a.jpg\n2\n1 2 10 12" + zeros + b"\n3 4 5 6 0 0 0 1 0 0\n"
    official += b"0--Parade/b.jpg\n0\n0 0 0 0" + zeros + b"\n"
    points = " ".join(["3.5 4.5 0.0"] * 5)
    labelled = f"# 0--Parade/a.jpg\n1 2 10 12 {points} 0.8\n3 4 5 6 {'-1 -1 -1 ' * 5}0.2\n# 0--Parade/b.jpg\n"
    photos = {f"images/0--Parade/{name}.jpg": _photo_bytes() for name in "ab"}
    return [{"faces.txt": text, **photos} for text in (official, labelled.encode())]


def _mat_bytes(packed: bool = False, **variables: Any) -> bytes:
    from scipy.io import savemat

    stream = io.BytesIO()
    savemat(stream, variables, do_compression=packed)
    return stream.getvalue()


def _objects(*values: Any) -> Any:
    column = np.empty((len(values), 1), object)
    column[:, 0] = values
    return column


def _cars() -> list[Files]:
    kind = [(side, object) for side in ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")]
    table = np.zeros((1, 2), kind)
    for column in range(2):
        table[0, column] = (3, 4, 30, 25, 1, f"{column:05d}.jpg")
    parts = ("train", "test")
    photos = {f"cars_{part}/{number:05d}.jpg": _photo_bytes() for number in range(2) for part in parts}
    whole, packed = _mat_bytes(annotations=table), _mat_bytes(packed=True, annotations=table)
    return [{**{f"cars_{part}_annos.mat": each for part in parts}, **photos} for each in (whole, packed)]


def _wider_mat() -> list[Files]:
    boxes = np.array([[1, 2, 10, 12], [3, 4, 5, 6]], np.float64)
    faces = {
        "event_list": _objects("0--Parade"),
        "file_list": _objects(_objects("a")),
        "face_bbx_list": _objects(_objects(boxes)),
        "invalid_label_list": _objects(_objects(np.array([[0], [1]], np.uint8))),
    }
    counted = {**faces, "gt_list": _objects(_objects(np.array([[1], [2]], np.uint8)))}
    photo = {"images/0--Parade/a.jpg": _photo_bytes()}
    return [{"faces.mat": _mat_bytes(**faces), "easy.mat": _mat_bytes(**counted), **photo}]


def _wider_config(annotations: str, counted: str = "") -> Callable[[Path], DatasetConfig]:
    return lambda root: WiderConfig(
        root=root, annotations=annotations, images="images", splits=("train",), counted=counted
    )


# pictures


def _pictures() -> list[Files]:
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (24, 32, 4), np.uint8)
    colour, clear = Image.fromarray(noise[..., :3].copy()), Image.fromarray(noise)
    grey = Image.fromarray(noise[..., 0].copy())
    deep = Image.fromarray(rng.integers(0, 65536, (24, 32), np.uint16))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    made: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("JPEG", colour, {"exif": exif}),
        ("JPEG", colour, {"progressive": True, "icc_profile": b"x" * 200}),
        ("JPEG", colour.convert("CMYK"), {}),
        ("JPEG", grey, {}),
        ("PNG", colour, {"exif": exif}),
        ("PNG", clear, {}),
        ("PNG", colour.convert("P"), {"transparency": 3}),
        ("PNG", deep, {}),
        ("PNG", clear, {"save_all": True, "append_images": [clear]}),
        ("GIF", colour.convert("P"), {"save_all": True, "append_images": [grey.convert("P")]}),
        ("WEBP", clear, {"save_all": True, "append_images": [clear]}),
        ("TIFF", colour, {"compression": "tiff_lzw"}),
        ("TIFF", deep, {}),
        ("TIFF", Image.fromarray(rng.normal(size=(24, 32)).astype(np.float32)), {}),
        ("BMP", colour, {}),
        ("PPM", colour, {}),
        ("TGA", clear, {"compression": "tga_rle"}),
        ("JPEG2000", colour, {}),
        ("ICO", clear, {}),
        ("PCX", colour, {}),
        ("SGI", colour, {}),
        ("DDS", clear, {}),
        ("EPS", colour, {}),
    ]
    return [{"photo.jpg": _saved(*each)} for each in made]


def _saved(form: str, image: Image.Image, options: Mapping[str, Any]) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _check_photo(folder: Path) -> bool:
    """The factory's reader."""
    path = folder / "photo.jpg"
    with _refusals(UnreadablePhoto, InputError) as read:
        _want(list_photos(folder) == [path], "the photo is not listed")
        photo = read_photo(path, 20)
        _want(photo.dtype == np.uint8 and photo.ndim == 3 and photo.shape[2] == 3, f"{photo.shape}")
        _want(min(photo.shape[:2]) > 0 and max(photo.shape[:2]) <= 20, f"{photo.shape}")
        whole, alpha = read_cut_out(path, None)
        _want(whole.dtype == np.uint8 and whole.ndim == 3 and whole.shape[2] == 3, f"{whole.shape}")
        _want(alpha is None or (alpha.shape == whole.shape[:2] and alpha.dtype == np.uint8), "opacity")
    return read[0]


def _check_image(folder: Path) -> bool:
    """The trainer's reader."""
    path = folder / "photo.jpg"
    with warnings.catch_warnings(), _refusals(InputError) as read:
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        width, height = read_size(path)
        _want(width > 0 and height > 0, f"size {width}x{height}")
        image = read_image(path)
        _want(
            image.shape == (height, width, 3) and image.dtype == np.uint8,
            f"{image.shape} of {width}x{height}",
        )
    return read[0]


def _lists() -> list[Files]:
    text = b"# photos\nimages/a.jpg\n\nimages/../images/a.jpg\n"
    return [{"list.txt": text, "images/a.jpg": _photo_bytes()}]


def _check_list(folder: Path) -> bool:
    with _refusals(InputError) as read:
        _want(all(path.is_file() for path in list_photos(folder / "list.txt")), "lists what is no file")
    return read[0]


# what trainings leave


def _detections() -> list[Files]:
    found = [
        Detections(np.array([[1, 2, 3, 4]], np.float32), np.array([0.5], np.float32), np.array([1])),
        Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)),
    ]
    return [_written("detections.npz", lambda path: write_detections(path, ["a", "b"], found))]


def _written(name: str, write: Callable[[Path], None]) -> Files:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, name))
        return {name: Path(folder, name).read_bytes()}


def _check_detections(folder: Path) -> bool:
    with _refusals(InputError) as read:
        for key, found in read_detections(folder / "detections.npz").items():
            _want(isinstance(key, str) and found.boxes.shape == (len(found), 4), f"{found.boxes.shape}")
            _want(found.labels.shape == found.scores.shape == (len(found),), f"{found.labels.shape}")
            types = (found.boxes.dtype, found.scores.dtype, found.labels.dtype)
            _want(types == (np.float32, np.float32, np.int64), f"{types}")
    return read[0]


def _weights() -> list[Files]:
    from safetensors.torch import save

    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2, dtype=torch.int64)}
    state = {"model": tensors, "step": 3, "scores": {"ap": 0.5}}
    return [
        {**_written("last.pt", lambda path: save_checkpoint(path, state)), "w.safetensors": save(tensors)},
    ]


def _check_weights(folder: Path) -> bool:
    read = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with _refusals(InputError) as checkpoint:
            _want("model" in load_checkpoint(folder / "last.pt"), "no model")
        for name in ("last.pt", "w.safetensors"):
            with _refusals(InputError) as weights:
                state = read_state_dict(folder / name)
                _want(all(isinstance(value, torch.Tensor) for value in state.values()), "no tensors")
            read &= weights[0]
    return read and checkpoint[0]


_TEXT: tuple[Mutation, ...] = (of_text, of_text, of_text, of_bytes)

TARGETS: dict[str, Target] = {
    "set": Target(_check_set, _sets, {".tar": (of_tar,)}, _manifest_of_the_tar),
    "manifest": Target(_check_manifest, _sets, {".json": (of_json, of_json, of_text, of_bytes)}),
    "run": Target(_config_check(RunConfig), _run_files, {".yaml": _TEXT, ".txt": _TEXT}),
    "recipe": Target(_config_check(Recipe), _recipe_files, {".yaml": _TEXT, ".txt": _TEXT}),
    "voc": Target(
        _check_dataset(lambda root: VocConfig(root=root)), _voc, {".xml": _TEXT, ".txt": (of_text,)}
    ),
    "coco": Target(
        _check_dataset(lambda root: CocoConfig(root=root)),
        _coco,
        {".json": (of_json, of_json, of_text, of_bytes)},
    ),
    "yolo": Target(
        _check_dataset(lambda root: YoloConfig(root=root)), _yolo, {".yaml": _TEXT, ".txt": _TEXT}
    ),
    "csv": Target(_check_dataset(lambda root: CsvBoxesConfig(root=root)), _csv, {".csv": _TEXT}),
    "cub": Target(_check_dataset(lambda root: CubConfig(root=root), "bird"), _cub, {".txt": _TEXT}),
    "fddb": Target(
        _check_dataset(lambda root: FddbConfig(root=root, splits={"all": (1,)}), "face"),
        _fddb,
        {".txt": _TEXT},
    ),
    "wider": Target(_check_dataset(_wider_config("faces.txt"), "face"), _wider, {".txt": _TEXT}),
    "wider_mat": Target(
        _check_dataset(_wider_config("faces.mat", "easy.mat"), "face"), _wider_mat, {".mat": (of_bytes,)}
    ),
    "cars": Target(
        _check_dataset(lambda root: StanfordCarsConfig(root=root), "car"), _cars, {".mat": (of_bytes,)}
    ),
    "photo": Target(_check_photo, _pictures, {".jpg": (of_bytes, of_bytes, of_jpeg)}, memory_mb=2048),
    "image": Target(_check_image, _pictures, {".jpg": (of_bytes, of_bytes, of_jpeg)}, memory_mb=2048),
    "list": Target(_check_list, _lists, {".txt": _TEXT}),
    "detections": Target(_check_detections, _detections, {".npz": (of_bytes,)}),
    "weights": Target(_check_weights, _weights, {".pt": (of_bytes,), ".safetensors": (of_bytes,)}),
}
