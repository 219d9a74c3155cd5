import pytest
import torch
from torch import nn

from configs.errors import InputError
from trainer.training.config import TrainingConfig
from trainer.training.precision import autocast, check_precision, device_settings, place

_CPU = torch.device("cpu")


def test_float16_wants_a_gpu() -> None:
    check_precision("bfloat16", _CPU)
    with pytest.raises(InputError, match="found float16, which wants a GPU"):
        check_precision("float16", _CPU)


def test_strided_depthwise_convolutions_alone_stay_in_float32_under_bfloat16() -> None:
    layers = nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3, stride=2, groups=4)
    )
    names = list(layers.state_dict())
    place(layers, TrainingConfig(precision="bfloat16"), _CPU)
    assert list(layers.state_dict()) == names
    kinds, x = [], torch.rand(2, 4, 16, 16)
    with autocast("bfloat16", _CPU):
        for layer in layers:
            x = layer(x)
            kinds.append(x.dtype)
    assert kinds == [torch.bfloat16, torch.bfloat16, torch.float32]
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_float32_is_left_alone() -> None:
    layer = nn.Conv2d(4, 4, 3, stride=2, groups=4)
    place(layer, TrainingConfig(), _CPU)
    assert type(layer) is nn.Conv2d
    with autocast("float32", _CPU):
        assert layer(torch.rand(1, 4, 8, 8)).dtype == torch.float32


def test_the_settings_of_tf32_last_as_long_as_the_training() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    with device_settings(TrainingConfig(tf32=False)):
        assert not torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "highest"
    assert (torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()) == before
