import pytest
import torch
from torch import nn

from configs.errors import InputError
from factory.device import placed
from factory.sources.fastgan import FastganConfig


def test_without_a_device_the_network_stays_where_it_is() -> None:
    network = nn.Linear(2, 2)
    assert placed(network, None, "source.device") is network


def test_a_gpu_that_is_not_there_is_an_error_that_names_the_setting(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=r"segmenter\.device: found cuda, but torch sees no GPU here"):
        placed(nn.Linear(2, 2), "cuda", "segmenter.device")


def test_an_unset_device_is_no_part_of_a_recipes_identity() -> None:
    assert FastganConfig().model_dump()["device"] is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_network_moves_to_the_gpu() -> None:
    network = placed(nn.Linear(2, 2), "cuda", "source.device")
    assert next(network.parameters()).is_cuda
