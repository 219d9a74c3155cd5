import pytest
import torch

from configs.errors import InputError
from trainer.detectors.ssd import SsdConfig
from trainer.runs.trained import TrainedAs, open_trained
from trainer.training.checkpoint import Checkpoints, save_checkpoint


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A finished training's folder and the weights that it hands on."""
    folder = tmp_path_factory.mktemp("training")
    config = SsdConfig(weights="none", image_size=96)
    torch.manual_seed(0)
    average, best = config.build(2, folder).state_dict(), config.build(2, folder).state_dict()
    said = TrainedAs(detector=SsdConfig(image_size=96), classes=("bird", "car"), keep="best")
    checkpoints = Checkpoints(folder / "checkpoints", 1, said.model_dump(mode="json"))
    checkpoints.save(7, {"model": best, "ema": average})
    checkpoints.save_best(best, 5, {"AP": 0.5})
    return folder, average, best


@pytest.mark.parametrize("place", ["", "checkpoints", "checkpoints/best.pt"])
def test_a_training_is_opened_by_the_checkpoint_to_hand_on(training, place, tmp_path) -> None:
    folder, _, best = training
    trained = open_trained(folder / place, tmp_path)
    assert trained.classes == ("bird", "car")
    assert trained.config == SsdConfig(image_size=96)
    assert not trained.detector.training
    assert all(torch.equal(value, best[key]) for key, value in trained.detector.state_dict().items())


@pytest.mark.parametrize("name", ["last.pt", "step-00000007.pt"])
def test_of_a_training_with_a_moving_average_that_is_taken(training, name, tmp_path) -> None:
    folder, average, _ = training
    found = open_trained(folder / "checkpoints" / name, tmp_path).detector.state_dict()
    assert all(torch.equal(value, average[key]) for key, value in found.items())


def test_what_is_no_checkpoint_of_a_detector_is_named(training, tmp_path) -> None:
    average = training[1]
    with pytest.raises(InputError, match=r"nowhere\.pt: no such checkpoint"):
        open_trained(tmp_path / "nowhere.pt", tmp_path)
    save_checkpoint(tmp_path / "old.pt", {"model": average})
    with pytest.raises(InputError, match=r"old\.pt: does not say of which detector it is: wanted"):
        open_trained(tmp_path / "old.pt", tmp_path)
    said = {"detector": {"kind": "ssd", "ratios": [1.0], "image_size": 96}, "classes": ["bird"]}
    save_checkpoint(tmp_path / "other.pt", {"model": average, "trained_as": said})
    with pytest.raises(InputError, match=r"other\.pt: size mismatch .*: wanted the weights of the detector"):
        open_trained(tmp_path / "other.pt", tmp_path)
    save_checkpoint(tmp_path / "kind.pt", {"model": average, "trained_as": said | {"classes": []}})
    with pytest.raises(InputError, match=r"kind\.pt: trained_as: classes: "):
        open_trained(tmp_path / "kind.pt", tmp_path)
