import pytest
import torch

from configs.errors import InputError
from trainer.training.checkpoint import Checkpoints, load_checkpoint, save_checkpoint, weights_of


def test_a_foreign_checkpoint_is_refused_in_one_line(tmp_path) -> None:
    (tmp_path / "x.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="wanted a checkpoint of this program") as caught:
        load_checkpoint(tmp_path / "x.pt")
    assert "\n" not in str(caught.value)


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"model": {}, "step": 1})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(path, {"model": {}, "step": 2})
    assert load_checkpoint(path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize(("keep", "left"), [(0, []), (1, [40]), (3, [20, 30, 40])])
def test_the_newest_steps_stay_beside_the_last(tmp_path, keep, left) -> None:
    checkpoints = Checkpoints(tmp_path, keep)
    for step in (10, 20, 30, 40):
        checkpoints.save(step, {"model": {}})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last.pt", *(f"step-{s:08d}.pt" for s in left)]
    assert load_checkpoint(checkpoints.last)["step"] == 40


def test_the_average_is_handed_on_where_there_is_one() -> None:
    raw, average = {"w": torch.zeros(1)}, {"w": torch.ones(1)}
    assert weights_of({"model": raw}) is raw
    assert weights_of({"model": raw, "ema": average}) is average
