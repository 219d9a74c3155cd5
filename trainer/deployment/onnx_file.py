"""A detector as an ONNX file, whose operators need nothing but a runtime of opset 20."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import nms

from configs.errors import InputError
from configs.log_file import without_warnings_of
from trainer.candidates import UNFIT, Selecting
from trainer.deployment.program import OUTPUTS, Call, Operators, trace

RUNTIME = "onnxruntime"

_WANTED = ("onnx", "onnxscript")
_OPSET = 20
_ALL = 2**63 - 1


def write(detector: Selecting, about: Mapping[str, str], path: Path) -> None:
    """One file, ``about`` in its metadata_props. Raises InputError where a package is missing."""
    missing = [name for name in _WANTED if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"ONNX: found no package {', '.join(missing)}, wanted it: pip install 'crop-foundry[onnx]'"
        )
    axes = {0: "batch", **({2: "height", 3: "width"} if detector.any_size else {})}
    traced = trace(detector, Operators(rank, suppress))
    with without_warnings_of("onnx_ir"):  # it guesses the type of an empty list rightly, and says so
        exported = torch.onnx.export(
            traced,
            input_names=["images"],
            output_names=OUTPUTS[: len(traced.graph_signature.user_outputs)],
            dynamic_shapes={"images": axes},
            dynamo=True,
            custom_translation_table=_translations(),
            opset_version=_OPSET,
            verbose=False,
        )
    assert exported is not None
    exported.model.metadata_props.update(about)
    exported.save(path)


def is_runnable() -> bool:
    """Whether the runtime is installed."""
    return importlib.util.find_spec(RUNTIME) is not None


def open_file(path: Path) -> Call:
    """The file as a function of images, on the CPU, with as many threads as torch has."""
    onnxruntime = importlib.import_module(RUNTIME)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: dict(zip(OUTPUTS, session.run(None, {"images": images}), strict=False))


def rank(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """See `Operators`. Of equal scores ONNX takes the first, which torch's topk does not promise."""
    values, places = scores.topk(count, 1)
    return values, places


def suppress(boxes: Tensor, scores: Tensor, category: Tensor, num_classes: int, iou: float) -> Tensor:
    """See `Operators`."""
    is_of = category[:, None] == torch.arange(num_classes)[:, None]  # (B, classes, K)
    kept = non_max_suppression(boxes, scores[:, None].where(is_of, UNFIT), iou)
    flat = kept[:, 0] * scores.shape[1] + kept[:, 2]
    return torch.zeros_like(scores, dtype=torch.bool).flatten().index_fill(0, flat, True).view_as(scores)


@torch.library.custom_op("crop_foundry::non_max_suppression", mutates_args=())
def non_max_suppression(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """ONNX's operator: of boxes (B, K, 4) xyxy and scores (B, classes, K) what is kept, (M, 3): the number of
    the image, of the class and of the box. Those scored `UNFIT` are not looked at.
    """
    kept = [scores.new_zeros(0, 3, dtype=torch.int64)]
    for image, of_image in enumerate(scores):
        for category, of_class in enumerate(of_image):
            index = (of_class > UNFIT).nonzero()[:, 0]
            index = index[nms(boxes[image, index], of_class[index], iou)]
            kept.append(F.pad(index[:, None], (2, 0)) + index.new_tensor([image, category, 0]))
    return torch.cat(kept)


@non_max_suppression.register_fake
def _(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    return scores.new_empty(torch.library.get_ctx().new_dynamic_size(), 3, dtype=torch.int64)


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    op = importlib.import_module("onnxscript").opset20

    def translate(boxes: Any, scores: Any, iou: float) -> Any:
        return op.NonMaxSuppression(boxes, scores, _ALL, iou, UNFIT)

    return {torch.ops.crop_foundry.non_max_suppression.default: translate}
