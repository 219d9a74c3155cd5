"""A detector as a program of `torch.export`, which torch and torchvision alone can load."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from trainer.candidates import UNFIT, Selecting
from trainer.deployment.program import OUTPUTS, Arrays, Call, Operators, trace
from trainer.sample import UInt8Array

RUNTIME = "torch.export"


def write(detector: Selecting, about: Mapping[str, str], path: Path) -> None:
    """One file, ``about`` among its extra_files, each as a text of its own."""
    with warnings.catch_warnings():
        # torchvision 0.29's shape rule of nms calls torch by a name that torch 2.15 wants replaced
        warnings.filterwarnings("ignore", "`create_unbacked_symint` is deprecated", FutureWarning)
        exported = trace(detector, Operators(rank, suppress))
    with path.open("wb") as file:
        torch.export.save(exported, file, extra_files=dict(about))


def is_runnable() -> bool:
    """Whether the runtime is installed."""
    return True


def open_file(path: Path) -> Call:
    """The file as a function of images."""
    with path.open("rb") as file:
        module = torch.export.load(file).module()

    def call(images: UInt8Array) -> Arrays:
        with torch.inference_mode():
            outputs = module(torch.from_numpy(images))
        return {name: output.numpy() for name, output in zip(OUTPUTS, outputs, strict=False)}

    return call


def rank(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """See `Operators`."""
    values, places = scores.sort(dim=1, descending=True, stable=True)
    return values[:, :count], places[:, :count]


def suppress(boxes: Tensor, scores: Tensor, category: Tensor, num_classes: int, iou: float) -> Tensor:
    """See `Operators`. One NMS for all: each image's categories are moved apart, where float64 has room.

    The two empty boxes at the end are always kept: torchvision's shape rule says that at least two are.
    """
    image = torch.arange(boxes.shape[0])[:, None]
    group = (image * num_classes + category).flatten()
    flat = boxes.flatten(0, 1).double()
    apart = F.pad(flat + (group * (flat.amax() - flat.amin() + 1))[:, None], (0, 0, 0, 2))
    ranked = F.pad(scores.flatten().double(), (0, 2), value=UNFIT)
    fits = F.pad(scores.flatten() > UNFIT, (0, 2), value=True)
    index = fits.nonzero()[:, 0]
    kept = index[nms(apart[index], ranked[index], iou)]
    return torch.zeros_like(fits).index_fill(0, kept, True)[:-2].view_as(scores)
