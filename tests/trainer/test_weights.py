from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from configs.errors import InputError
from trainer.networks.weights import load_strictly, read_state_dict


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_tensors_are_read_whatever_they_are_wrapped_in(wrapper: str | None, tmp_path: Path) -> None:
    state = {"module.weight": torch.ones(2)}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "a.pth")
    assert list(read_state_dict(tmp_path / "a.pth")) == ["weight"]


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file({"weight": torch.ones(2)}, tmp_path / "a.safetensors")
    assert read_state_dict(tmp_path / "a.safetensors")["weight"].tolist() == [1, 1]


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(Path, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth: found no readable tensors \(it names pathlib"):
        read_state_dict(tmp_path / "a.pth")


def test_a_file_without_names_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"a\.pth: found list, wanted tensors by name"):
        read_state_dict(tmp_path / "a.pth")


def test_counters_of_batches_may_be_missing_and_nothing_else() -> None:
    state = {key: value + 1 for key, value in nn.BatchNorm2d(2).state_dict().items()}
    del state["num_batches_tracked"]
    norm = nn.BatchNorm2d(2)
    load_strictly(norm, state, "a.pth", "a norm")
    assert norm.weight.tolist() == [2, 2]
    with pytest.raises(
        InputError, match=r"^a\.pth: found 3 tensors, 1 missing, first bias, wanted the 4 of a"
    ):
        load_strictly(norm, {key: value for key, value in state.items() if key != "bias"}, "a.pth", "a norm")
