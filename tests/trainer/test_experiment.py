import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs.errors import InputError
from configs.home import packaged_names
from trainer.experiment import main
from trainer.experiments.config import load_experiment, plan_runs, runs_of
from trainer.experiments.results import paper_rows, result_table
from trainer.experiments.sharing import identity, share
from trainer.runs.config import Cell
from trainer.runs.data import RunData
from trainer.runs.folder import Run
from trainer.runs.provenance import read_origins

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def tiny(sets, voc_discs, tmp_path) -> Path:
    """Two variants whose scenes alone differ, so that they have the training from scratch in common."""
    path = tmp_path / "tiny.yaml"
    path.write_text(
        f"""
title: Tiny
paper: [I]
objects:
  birds:
    base:
      crops: [{sets[0]}]
      backgrounds: {sets[1]}
      classes: [disc]
      dataset: {{kind: voc, root: {voc_discs}}}
      detector: {{kind: ssd, backbone: mobilenet_v2, weights: none, image_size: 64}}
      num_real: [2]
      seeds: [0]
detectors: {{SSD: {{}}}}
set:
  pretrain: {{steps: 2, batch_size: 2}}
  training: {{steps: 2, batch_size: 2, log_every: 1}}
runs:
  soft: {{conditions: {{scratch: no_pretraining, finetune: with_pretraining}}}}
  hard:
    conditions: {{scratch: no_pretraining, finetune: with_hard_pretraining}}
    set: {{compositor.blend: hard}}
sets:
  gone/{{object}}: python -m factory.build --class {{object}}
"""
    )
    return path


def test_an_experiment_trains_each_training_once_and_links_it_where_it_is_shared(
    tiny, tmp_path, capsys
) -> None:
    out = tmp_path / "out"
    assert main([str(tiny), "--out", str(out), "--jobs", "2"]) == 0
    results = json.loads((out / "results.json").read_text())
    assert (results["name"], results["title"]) == ("tiny", "Tiny")
    assert [(cell["run"], cell["condition"]) for cell in results["cells"]] == [
        ("soft", "no_pretraining"),
        ("soft", "with_pretraining"),
        ("hard", "no_pretraining"),
        ("hard", "with_hard_pretraining"),
    ]
    assert all(cell["error"] is None and 0 <= cell["scores"]["AP50"] <= 1 for cell in results["cells"])
    assert [cell["steps"] for cell in results["cells"]] == [2] * 4
    assert all(cell["seconds"] > 0 for cell in results["cells"])
    shared = out / "runs" / "hard" / "seed-0" / "n-2" / "scratch"
    assert shared.is_symlink()
    assert (shared / "detections.npz").stat().st_size > 0
    assert results["cells"][2]["folder"] == "runs/soft/seed-0/n-2/scratch"
    assert "–" not in (out / "runs" / "hard" / "table.md").read_text()
    assert not list((out / "failures").iterdir())
    assert "with_hard_pretraining" in capsys.readouterr().out


def test_a_failure_is_one_line_others_go_on_and_the_same_command_tries_it_again(
    tiny, tmp_path, capsys
) -> None:
    out, command = tmp_path / "out", [str(tiny), "--out", str(tmp_path / "out"), "--jobs", "1"]
    last = out / "runs" / "soft" / "seed-0" / "pretrain" / "checkpoints" / "last.pt"
    last.parent.mkdir(parents=True)
    last.write_bytes(b"no checkpoint")
    assert main(command) == 1
    cells = json.loads((out / "results.json").read_text())["cells"]
    assert [cell["error"] is None for cell in cells] == [True, False, True, True]
    assert cells[1]["error"] == "goes on from soft-seed-0-pretrain, which failed"
    said = capsys.readouterr().out
    assert "failed: soft-seed-0-pretrain: " in said
    assert "wanted a checkpoint of this program" in said
    assert "last.pt" in (out / "failures" / "soft-seed-0-pretrain.log").read_text()
    last.unlink()
    assert main(command) == 0
    cells = json.loads((out / "results.json").read_text())["cells"]
    assert all(cell["error"] is None and cell["scores"] for cell in cells)


def test_a_stopped_experiment_leaves_no_process_and_goes_on(tiny, tmp_path) -> None:
    out = tmp_path / "out"
    long = [str(tiny), "--out", str(out), "--jobs", "1", "training.steps=30", "training.checkpoint_every=5"]
    child = subprocess.Popen(
        [sys.executable, "-m", "trainer.experiment", *long],
        cwd=_ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(_ROOT)},
    )
    metrics = out / "runs" / "soft" / "seed-0" / "n-2" / "scratch" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.02)
    child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=60)[1]
    assert child.returncode == 143
    assert "run the same command again to go on" in said
    steps = len(metrics.read_text().splitlines())
    assert 0 < steps < 30
    assert (metrics.parent / "checkpoints" / "last.pt").exists()
    time.sleep(0.2)
    assert len(metrics.read_text().splitlines()) == steps


def test_a_dry_run_says_runs_and_hours_and_writes_nothing(tiny, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    assert main([str(tiny), "--out", str(out), "--jobs", "2", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "soft: 3 to train, 0 done, 0 shared" in said
    assert "hard: 2 to train, 0 done, 1 shared" in said
    assert " h with 2 at a time" in said
    assert not out.exists()


def test_a_missing_set_is_named_with_the_command_that_makes_it(tiny) -> None:
    with pytest.raises(InputError, match=r"gone/birds: run python -m factory\.build --class birds"):
        main([str(tiny), "crops=[gone/birds]"])


def test_all_photos_is_a_number_and_settings_that_are_wrong_are_named(tiny, tmp_path) -> None:
    experiment = load_experiment(str(tiny))
    runs = plan_runs(experiment, ["num_real=[2, all]", "validation_images=3"], tmp_path)
    assert [run.config.num_real for run in runs] == [(2, 9), (2, 9)]
    with pytest.raises(InputError, match=r"run soft: num_real: found 5, wanted a list"):
        runs_of(experiment, ["num_real=5"])
    with pytest.raises(InputError, match="run soft: unknown key 'trainign', did you mean 'training'"):
        runs_of(experiment, ["trainign.steps=3"])
    with pytest.raises(InputError, match="no experiment 'table-11', did you mean 'table-1'"):
        main(["table-11"])


def test_a_folder_keeps_the_commands_overrides_and_where_its_trainings_come_from(
    tiny, tmp_path, monkeypatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr("trainer.runs.provenance.find_commit", lambda: "one")
    monkeypatch.setattr("trainer.experiment.Schedule.run", lambda *_: 0)  # as if it were killed at once
    command = [str(tiny), "--out", str(out), "--jobs", "1", "training.steps=1"]
    main([*command, "pretrain.steps=1"])
    kept = load_experiment(str(out / "experiment.yaml"))
    assert kept.overrides == ("training.steps=1", "pretrain.steps=1")
    assert {run.config.pretrain.steps for run in runs_of(kept, [])} == {1}
    assert {run.config.pretrain.steps for run in runs_of(kept, ["pretrain.steps=5"])} == {5}
    monkeypatch.setattr("trainer.runs.provenance.find_commit", lambda: "two")
    main([*command, "pretrain.steps=1"])
    for folder in (out, out / "runs" / "soft", out / "runs" / "hard"):
        origins = read_origins(folder)
        assert [each.commit for each in origins] == ["one", "two"]
        assert origins[0].command.startswith("python -m trainer.experiment ")
        assert origins[0].command.endswith(" --jobs 1 training.steps=1 pretrain.steps=1")
        assert [each.kind for each in origins[0].sets] == ["crops", "backgrounds"]
    assert json.loads((out / "results.json").read_text())["commit"] == "two"


def test_a_command_that_trains_nothing_leaves_no_origin(tiny, tmp_path, monkeypatch) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr("trainer.experiment.Schedule.is_done", lambda *_: True)
    main([str(tiny), "--out", str(out)])
    assert read_origins(out) == read_origins(out / "runs" / "soft") == []
    assert json.loads((out / "results.json").read_text())["commit"] is None
    older = json.loads((out / "results.json").read_text()) | {"commit": "of before", "machine": "theirs"}
    (out / "results.json").write_text(json.dumps(older))
    main([str(tiny), "--out", str(out)])
    results = json.loads((out / "results.json").read_text())
    assert (results["commit"], results["machine"]) == ("of before", "theirs")


def test_two_processes_do_not_train_the_same_experiment(tiny, tmp_path) -> None:
    from trainer.experiments.schedule import alone

    with alone(tmp_path / "out"), pytest.raises(InputError, match="another process runs this experiment"):
        main([str(tiny), "--out", str(tmp_path / "out")])


def test_packaged_experiments_are_valid_and_of_the_paper(tmp_path) -> None:
    names = packaged_names("experiments")
    assert {"table-1", "table-3-4", "table-7", "figure-3", "birds-small", "cars-small", "faces-small"} <= set(
        names
    )
    paper = {"table-1": 33, "table-2": 33, "table-3-4": 54, "table-5": 18, "table-6": 18, "table-7": 30}
    for name in names:
        experiment = load_experiment(name)
        runs = runs_of(experiment, [])
        conditions = {condition for run in runs for condition in run.conditions.values()}
        rows = paper_rows(experiment)
        if name in paper:
            assert len(rows) == paper[name]
            assert {row["condition"] for row in rows} <= conditions
            assert {row["detector"] for row in rows} == {run.detector for run in runs}


def test_rivals_have_equal_budgets() -> None:
    for name in ("table-3-4", "birds-small", "cars-small", "faces-small"):
        for run in runs_of(load_experiment(name), []):
            if "mixed" in run.conditions and "fakeinf" not in run.name:
                both = run.config.pretrain.steps + run.config.training_of("finetune").steps
                assert run.config.training_of("mixed").steps == both, run.name


def test_only_what_a_training_sees_tells_it_from_another(tiny) -> None:
    soft, hard = (run.config for run in runs_of(load_experiment(str(tiny)), []))
    scratch, pretrain = Cell("scratch", 2, 0), Cell("pretrain", 0, 0)
    assert identity(soft, scratch) == identity(hard, scratch)
    assert identity(soft, pretrain) != identity(hard, pretrain)
    assert identity(soft, Cell("finetune", 2, 0)) != identity(hard, Cell("finetune", 2, 0))
    assert identity(soft, scratch) != identity(soft, Cell("scratch", 2, 1))
    other = runs_of(load_experiment(str(tiny)), ["training.lr=1"])[0].config
    assert identity(soft, scratch) != identity(other, scratch)
    assert identity(soft, pretrain) == identity(other, pretrain)


def test_finetunings_of_all_amounts_go_on_from_one_pretraining(tiny) -> None:
    plan = share(runs_of(load_experiment(str(tiny)), ["num_real=[2, 4]"]))
    starts = [each.before for each in plan.trainings if each.cell.phase == "finetune"]
    names = [start.name for start in starts if start is not None]
    assert names == ["soft-seed-0-pretrain"] * 2 + ["hard-seed-0-pretrain"] * 2


def test_conditions_see_the_same_photos_and_larger_amounts_hold_the_smaller(tiny, tmp_path) -> None:
    subsets = {}
    for run in runs_of(load_experiment(str(tiny)), ["num_real=[2, 4]"]):
        data = RunData(run.config, tmp_path)
        for cell in run.cells:
            if cell.num_real:
                subsets.setdefault(cell.num_real, []).append([p.key for p in data.training_photos(cell)])
    assert all(keys == subsets[4][0] for keys in subsets[4])
    assert all(keys == subsets[4][0][:2] for keys in subsets[2])


def test_the_mixed_baselines_loss_responds_to_the_synthetic_share(tiny, tmp_path) -> None:
    """In the paper's code it did not: the composites stood behind an endless row of photos (METHOD 0.1)."""
    losses = {}
    for share_of in (0.25, 0.75):
        changes = [f"synthetic_share={share_of}", "training.batch_size=4", "training.steps=1"]
        config = runs_of(load_experiment(str(tiny)), changes)[0].config
        data, cell = RunData(config, tmp_path), Cell("mixed", 2, 0)
        samples = [data.stream(cell)[i] for i in range(4)]
        assert sum(sample.key.startswith("scene-") for sample in samples) == 4 * share_of
        run = Run(config, tmp_path / str(share_of), tmp_path)
        run.run([cell])
        folder = tmp_path / str(share_of) / cell.folder
        losses[share_of] = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])["losses"]
    assert losses[0.25] != losses[0.75]


def test_so_many_composites_are_shown_over_and_over(tiny, tmp_path) -> None:
    config = runs_of(load_experiment(str(tiny)), ["stream.num_scenes=3"])[0].config
    scenes = RunData(config, tmp_path).stream(Cell("pretrain", 0, 0))
    shown = [scenes[i] for i in range(6)]
    assert [sample.key for sample in shown] == [f"scene-{i}" for i in (0, 1, 2, 0, 1, 2)]
    assert (shown[1].image == shown[4].image).all()
    assert (shown[1].image != shown[2].image).any()


def test_a_table_says_mean_and_spread_and_what_is_missing() -> None:
    cell = {"object": "birds", "detector": "SSD", "condition": "mixed", "num_real": 10}
    cells = [cell | {"scores": {"AP50": value}} for value in (0.5, 0.6)]
    missing = cell | {"num_real": 50, "scores": None}
    assert "| mixed              | 55.0 ± 7.1 | –  |" in result_table({"cells": [*cells, missing]})
