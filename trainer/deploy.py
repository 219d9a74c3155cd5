"""A trained detector as a file that needs none of this code: ``python -m trainer.deploy``."""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import torch

from configs.entry import Parser, run
from configs.errors import InputError
from configs.home import find_home, locate
from trainer.candidates import Selecting
from trainer.deployment import onnx_file, pt2_file
from trainer.deployment.agreement import compare
from trainer.deployment.program import LEAST_PX, Call
from trainer.detector import Detector
from trainer.imaging.images import read_image, resize_antialiased
from trainer.runs.trained import Trained, open_trained
from trainer.sample import UInt8Array

_FORMS: Mapping[str, ModuleType] = {".onnx": onnx_file, ".pt2": pt2_file}
_BATCH = 4
_ROUNDS = 5  # of which the fastest counts

_EXAMPLES = """examples:
  python -m trainer.deploy runs/birds/seed-0/n-50/finetune --to birds.onnx
  python -m trainer.deploy runs/birds/seed-0/n-50/finetune --to birds.pt2 --check photos/*.jpg

The file takes uint8 images (B, 3, H, W) RGB, any B, and gives, best first,
  boxes   (B, N, 4)   float32  x0 y0 x1 y1, pixels of the input
  scores  (B, N)      float32  0..1
  labels  (B, N)      int64    1 is the first of the classes
  counts  (B,)        int64    how many of the N places hold a detection; the others hold zeros
and landmarks (B, N, 5, 2) of a RetinaFace that has them. Normalisation, decoding, the NMS of each class and
the best N are inside. An ssd wants squares of its image_size; a RetinaFace takes any size from 33 px on.
Inside are also texts: classes (JSON), input, detector (JSON), checkpoint_sha256; in the metadata_props of
ONNX, in the extra_files of torch.export. A .onnx runs in onnxruntime, a .pt2 with torch and torchvision:
  import torch, torchvision
  detect = torch.export.load("birds.pt2").module()

What the file finds is compared with what the detector finds, on photos or on made images. If they differ
the file is left as NAME.refused, and the exit status is 1."""


def main(argv: list[str]) -> int:
    """Parse, write, check, say what came of it."""
    args = _parse(argv)
    form = _form_of(args.to)
    home = find_home()
    trained = open_trained(locate(args.checkpoint, home), home)
    if not isinstance(trained.detector, Selecting):
        raise InputError(f"{trained.path}: found a '{trained.config.kind}', wanted a kind with candidates")
    batches = list(_batches(trained.detector, args.check))
    beside = args.to.with_name(f".{args.to.name}.tmp-{os.getpid()}")
    args.to.parent.mkdir(parents=True, exist_ok=True)
    try:
        form.write(trained.detector, _about(trained, trained.detector), beside)
        if not form.is_runnable():
            print(f"{args.to}: NOT checked: {form.RUNTIME} is not installed", file=sys.stderr)
        elif not _finds_the_same(trained.detector, form, beside, batches):
            args.to = args.to.with_name(f"{args.to.name}.refused")
            print(f"{args.to}: does not find what {trained.path} finds", file=sys.stderr)
        _rename(beside, args.to)
        print(f"{args.to}: {args.to.stat().st_size / 1e6:.1f} MB")
        return int(args.to.suffix == ".refused")
    finally:
        beside.unlink(missing_ok=True)


def _finds_the_same(
    detector: Detector, form: ModuleType, written: Path, batches: Sequence[UInt8Array]
) -> bool:
    """Compare, say how much they differ, and which is faster."""
    call = form.open_file(written)
    found = compare(detector, call, batches)
    print(f"{form.RUNTIME} and torch on {found}")
    if not found.both:
        print("found nothing in these images: check it on photos (--check)", file=sys.stderr)
    ratio = _speed(detector, call, batches[0][:1])
    print(f"one image: {form.RUNTIME} takes {ratio:.2f} of the time that the detector takes in torch")
    return found.holds


def _rename(written: Path, path: Path) -> None:
    """Once it is on the disk: a crash leaves the old file or the new one."""
    with written.open("rb+") as file:
        os.fsync(file.fileno())
    written.replace(path)


def _about(trained: Trained, detector: Selecting) -> dict[str, str]:
    """What the file says of itself."""
    side = f"{LEAST_PX} or more" if detector.any_size else str(detector.config.image_size)
    return {
        "classes": json.dumps(trained.classes),
        "input": f"uint8 RGB (any, 3, {side}, {side})",
        "detector": trained.config.without_weights().model_dump_json(),
        "checkpoint_sha256": hashlib.sha256(trained.path.read_bytes()).hexdigest(),
    }


def _batches(detector: Detector, photos: Sequence[Path]) -> Iterator[UInt8Array]:
    """Images (B, 3, H, W): photos, or made ones; of their own sizes where the detector takes such."""
    assert isinstance(detector, Selecting)
    images = [read_image(path) for path in photos] or list(_made_images())
    for path, image in zip(photos, images, strict=False):
        if min(image.shape[:2]) < LEAST_PX:
            raise InputError(f"{path}: found a side of {min(image.shape[:2])} px, wanted {LEAST_PX} or more")
    if not detector.any_size:
        size = detector.config.image_size
        images = [resize_antialiased(image, size, size) for image in images]
    for _, group in groupby(images, key=np.shape):
        planes = np.stack([image.transpose(2, 0, 1) for image in group])
        yield from np.split(planes, range(_BATCH, len(planes), _BATCH))


def _made_images() -> Iterator[UInt8Array]:
    """Coarse noise with discs on it, in two sizes."""
    rng = np.random.default_rng(0)
    for height, width in [(160, 208)] * 3 + [(333, 250)] * 3:
        image = cv2.resize(rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8), (width, height))
        for _ in range(5):
            x, y, radius = (int(value) for value in rng.integers(20, 150, 3))
            cv2.circle(image, (x, y), radius // 3, rng.integers(0, 256, 3).tolist(), -1)
        yield image.astype(np.uint8, copy=False)


def _speed(detector: Detector, call: Call, image: UInt8Array) -> float:
    """The call's seconds over the detector's, the best of each of some rounds by turns."""
    tensor = torch.from_numpy(image)
    in_torch, in_file = [], []
    for _ in range(_ROUNDS):
        in_torch.append(_seconds(lambda: detector.detect(tensor)))
        in_file.append(_seconds(lambda: call(image)))
    return min(in_file) / min(in_torch)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _form_of(path: Path) -> ModuleType:
    if path.suffix not in _FORMS:
        raise InputError(f"--to: found {path.name}, wanted a name that ends in {' or '.join(_FORMS)}")
    if path.is_dir():
        raise InputError(f"--to: {path}: found a folder, wanted a file")
    return _FORMS[path.suffix]


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        "trainer.deploy",
        "Write a trained detector, NMS included, as a file of ONNX or of torch.export.",
        _EXAMPLES,
    )
    parser.add_argument("checkpoint", type=Path, help="a checkpoint, or the folder of a training")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE", help="FILE.onnx or FILE.pt2")
    parser.add_argument(
        "--check", type=Path, nargs="+", default=[], metavar="PHOTO", help="to compare on [made images]"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(main)
