"""The detector that a user names on the command line: a training's, or one of others' weights."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from configs.entry import names_in
from configs.errors import InputError
from configs.home import locate
from configs.kinds import config_class, did_you_mean, kinds_in
from configs.load import apply_overrides, validated
from trainer.detector import DetectorConfig
from trainer.evaluation.detection import Size, check_size, size_of
from trainer.runs.trained import Trained, open_trained

_KINDS = "trainer.detectors"


def add_detector_arguments(parser: argparse.ArgumentParser) -> None:
    """``--detector``, ``--names`` and ``--size``."""
    parser.add_argument(
        "--detector",
        nargs="+",
        metavar=("KIND", "checkpoint=FILE"),
        help=f"others' weights instead of a training's: {', '.join(kinds_in(_KINDS))}, and its settings",
    )
    parser.add_argument("--names", type=names_in, metavar="A,B", help="the classes of that detector [object]")
    parser.add_argument(
        "--size",
        type=_size,
        metavar="native|N|square",
        help="show the detector a picture as it is, with its longer side N px, or as the square that it was "
        "trained on [square, with --detector native where it can]",
    )


def check_folder(path: Path) -> None:
    """Raises InputError where a folder to write in is something else."""
    if path.exists() and not path.is_dir():
        raise InputError(f"--out: {path} is a file, wanted a folder")


def open_given(
    place: Path | None, args: argparse.Namespace, home: Path, device: torch.device
) -> tuple[Trained, Size]:
    """The detector on a device and what it is to be shown. Raises InputError."""
    if (place is None) == (args.detector is None):
        raise InputError(f"found {'both a' if place else 'no'} checkpoint and --detector: wanted one of them")
    trained = _of_others(args.detector, args.names or ["object"], home) if place is None else None
    if trained is None:
        assert place is not None
        if args.names:
            raise InputError("--names: wanted with --detector alone: a training knows its classes")
        trained = open_trained(locate(place, home, "runs"), home, device)
    size: Size = args.size or ("native" if args.detector and trained.detector.any_size else "square")
    check_size(size, trained.detector, trained.config)
    trained.detector.to(device)
    return trained, size


def _of_others(words: Sequence[str], names: Sequence[str], home: Path) -> Trained:
    kind, *settings = words
    for word in settings:
        if "=" not in word:
            raise InputError(f"--detector: found {word}, wanted key=value (name the pictures before it)")
    if kind not in kinds_in(_KINDS):
        raise InputError(f"--detector: unknown kind {did_you_mean(kind, kinds_in(_KINDS))}")
    family = config_class(_KINDS, kind, DetectorConfig)
    assert issubclass(family, DetectorConfig)
    config = validated(family, apply_overrides({"kind": kind}, settings), f"--detector {kind}")
    checkpoint = getattr(config, "checkpoint", None)
    if checkpoint is None:
        raise InputError(f"--detector {kind}: found no checkpoint=FILE, wanted trained weights")
    return Trained(config.build(len(names), home).eval(), config, tuple(names), Path(checkpoint))


def _size(text: str) -> Size:
    try:
        return size_of(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text}, wanted native, square or a number of px") from None
