"""Numbers of fewer bits where they are faster, and the device's settings for them."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from configs.errors import InputError
from trainer.training.config import Precision, TrainingConfig

_TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def check_precision(precision: Precision, device: torch.device) -> None:
    """Raises InputError when the device does not compute in it."""
    if precision == "float16" and device.type != "cuda":
        raise InputError("precision: found float16, which wants a GPU: wanted bfloat16 or float32 here")
    if precision == "bfloat16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        name = torch.cuda.get_device_name(device)
        raise InputError(f"precision: found bfloat16, which {name} lacks: wanted float16 or float32")


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """The context of a forward pass."""
    return torch.autocast(device.type, _TYPES[precision], enabled=precision != "float32")


def place(detector: nn.Module, config: TrainingConfig, device: torch.device) -> None:
    """Move to the device, channels last: faster convolutions in every precision.

    In bfloat16 on the processor strided depthwise convolutions stay in float32, where their backward pass is
    7 times faster (torch 2.15): it took a third of a MobileNet v2 step.
    """
    check_precision(config.precision, device)
    detector.to(device).to(memory_format=torch.channels_last)
    if config.precision == "bfloat16" and device.type == "cpu":
        for module in detector.modules():
            if type(module) is nn.Conv2d and module.groups > 1 and module.stride != (1, 1):
                module.__class__ = _Float32Conv2d


class _Float32Conv2d(nn.Conv2d):
    """A convolution kept out of autocast; its parameters keep their names."""

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


@contextmanager
def device_settings(config: TrainingConfig) -> Iterator[None]:
    """TF32 as configured, while a training runs."""
    matmul, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = config.tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(matmul)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def compiled(module: nn.Module, enabled: bool) -> Iterator[None]:
    """Its forward pass through torch.compile, as long as the context lasts."""
    if not enabled:
        yield
        return
    module.forward = torch.compile(module.forward)  # hides the class's own, until it is deleted
    try:
        yield
    finally:
        del module.forward
