"""Two workers of a Ray Train group on this machine; each start of one takes seconds."""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("pyarrow", reason="Ray Train is not installed: pip install 'crop-foundry[cluster]'")

import ray
from ray import cloudpickle

from configs.errors import InputError
from trainer.cluster.config import ClusterConfig
from trainer.cluster.workers import Workers
from trainer.detector import Detector
from trainer.run import main
from trainer.sample import Batch, Sample, make_target
from trainer.training.checkpoint import load_checkpoint
from trainer.training.config import TrainingConfig
from trainer.training.loop import train
from trainer.training.ranks import Ranks
from trainer.training.stopping import Stopped

cloudpickle.register_pickle_by_value(sys.modules[__name__])

_TWO = ClusterConfig(workers=2, max_failures=1)
_SETTINGS = TrainingConfig(steps=8, batch_size=8, checkpoint_every=3, ema_decay=0.9, lr=1e-2, log_every=1)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


class Convolutions(Detector):
    """What differs when going on is not exact: batch norm, dropout."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.Conv2d(8, 1, 3)
        )

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        images = batch.images.float() / 255
        return {"error": (self.layers(images).mean((1, 2, 3)) - images.mean((1, 2, 3))).square().mean()}


@dataclass
class Greys:
    """Sample j is one grey. Reading sample ``index`` sends a signal, once: ``spent`` tells."""

    spent: Path
    index: int = -1
    number: int = 0
    process: int = 0  # 0: the one that reads

    def __getitem__(self, index: int) -> Sample:
        if index == self.index and not self.spent.exists():
            self.spent.touch()
            os.kill(self.process or os.getpid(), self.number)
            time.sleep(1.5)  # until another process has heard
        grey = np.random.default_rng([1, index]).integers(0, 255, (1, 1, 3), dtype=np.uint8)
        return Sample(f"grey-{index}", np.repeat(np.repeat(grey, 8, 0), 8, 1), make_target([[0, 0, 4, 5]]))


@dataclass
class Training:
    """What the workers are given."""

    folder: Path
    stream: Greys

    def __call__(self, device: torch.device, ranks: Ranks) -> None:
        train(Convolutions(), self.stream, _SETTINGS, self.folder, device, ranks=ranks)


def run(folder: Path, **signals: int) -> dict:
    with Workers(_TWO) as workers:
        workers.run(Training(folder, Greys(folder.with_suffix(".spent"), **signals)), folder)
    return load_checkpoint(folder / "checkpoints" / "last.pt")


def assert_same(first: object, second: object) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert_same(value, second[key])
    elif isinstance(first, Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict:
    return run(tmp_path_factory.mktemp("cluster") / "undisturbed")


def test_a_killed_worker_leaves_no_trace_in_the_result(undisturbed, tmp_path, caplog) -> None:
    disturbed = run(tmp_path / "run", index=8 * 5 + 1, number=signal.SIGKILL)
    assert (tmp_path / "run.spent").exists()
    assert "a worker was lost (1 of at most 1): all go on from the last checkpoint" in caplog.text
    assert_same(disturbed, undisturbed)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 9))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"checkpoints", "metrics.jsonl"}


def test_a_driver_told_to_stop_has_the_step_saved(tmp_path) -> None:
    signals = {"index": 8 * 2 + 1, "number": signal.SIGTERM, "process": os.getpid()}
    with pytest.raises(Stopped, match=r"run: SIGTERM: saved at step [345] of 8: run the same comm") as caught:
        run(tmp_path / "run", **signals)
    assert caught.value.code == 128 + signal.SIGTERM
    saved = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert f"saved at step {saved['step']} of" in str(caught.value)


@dataclass
class Refusing:
    """The second worker's user made a mistake; the first waits for it."""

    folder: Path

    def __call__(self, device: torch.device, ranks: Ranks) -> None:
        if not ranks.is_first:
            (self.folder / f"call-{os.getpid()}").touch()
            raise InputError("photos: found none, wanted some")
        ranks.wait()


def test_a_users_error_on_one_worker_ends_all_and_is_not_tried_again(tmp_path) -> None:
    with Workers(_TWO) as workers, pytest.raises(InputError, match=r"^photos: found none, wanted some$"):
        workers.run(Refusing(tmp_path), tmp_path)
    assert len(list(tmp_path.glob("call-*"))) == 1


@pytest.fixture
def arguments(write_run) -> list[str]:
    config = write_run(
        "tiny",
        """\
detector: {kind: ssd, weights: none, image_size: 96}
phases: [pretrain]
pretrain: {steps: 3, batch_size: 4, log_every: 1, validate_every: 2, validate_on: synthetic, keep: best}
validation_scenes: {count: 3}
seeds: [0]
threads: 1
""",
    )
    return [str(config)]


def test_a_run_with_two_workers_trains_as_one_with_two_parts(arguments, tmp_path, capsys) -> None:
    logs = {}
    for setting in ("cluster.workers=2", "pretrain.accumulate=2"):
        assert main([*arguments, "--out", str(tmp_path / setting), setting]) == 0
        folder = tmp_path / setting / "seed-0" / "pretrain"
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines if "validation" in line] == [2, 3]
        logs[setting] = [line["losses"] | {"norm": line["grad_norm"]} for line in lines if "losses" in line]
        assert "AP" in json.loads((folder / "scores.json").read_text())
    for shared, alone in zip(*logs.values(), strict=True):
        assert shared == pytest.approx(alone, rel=1e-3)
    again = [*arguments, "--out", str(tmp_path / "cluster.workers=2"), "cluster.max_failures=9"]
    with pytest.raises(InputError, match="holds a run with another cluster"):
        main(again)
    assert main([*again, "cluster.workers=2"]) == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["cluster.workers=3"], "pretrain.batch_size: found 4, wanted a multiple of 3: 3 workers' 1 parts"),
        (["cluster.address=127.0.0.1:1"], "cluster.address 127.0.0.1:1: "),
        (["cluster.gpus_per_worker=0", "cluster.sync_batch_norm=true"], "found true, which wants GPUs"),
    ],
)
def test_mistakes_are_named_before_anything_starts(arguments, tmp_path, settings, message) -> None:
    out = tmp_path / "run"
    with pytest.raises(InputError) as caught:
        main([*arguments, "--out", str(out), "cluster.workers=2", *settings])
    assert message in str(caught.value)
    assert not out.exists()


def test_a_machine_with_too_few_gpus_is_named(tmp_path) -> None:
    many = Workers(ClusterConfig(workers=2, gpus_per_worker=99))
    with pytest.raises(InputError, match=r"cluster: found \d GPUs here: 2 workers take 1 CPU and 99 GPU"):
        many.run(Refusing(tmp_path), tmp_path)
