import importlib.util
from pathlib import Path

import pytest

from configs.errors import InputError
from trainer.training.config import TrainingConfig
from trainer.training.progress import TrainingLog
from trainer.training.trackers import check_trackers


def test_a_tracker_that_is_not_installed_is_named(monkeypatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match="loggers: found wandb, which is not installed: pip install wandb"):
        check_trackers(["wandb"])


def scalars_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_the_figures_by_name_and_steps_that_are_trained_again_once(tmp_path) -> None:
    pytest.importorskip("tensorboard")
    config = TrainingConfig(steps=9, loggers=("tensorboard",))
    for resumed_at, steps in ((0, (1, 2, 3)), (2, (3, 4))):
        with TrainingLog(tmp_path, config, resumed_at) as log:
            for step in steps:
                log.write(step, losses={"l2": step + resumed_at}, lr=0.5)
    found = scalars_of(tmp_path / "tensorboard")
    assert found["losses/l2"] == [(1, 1.0), (2, 2.0), (3, 5.0), (4, 6.0)]
    assert found.keys() == {"losses/l2", "lr"}
