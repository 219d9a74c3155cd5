import json

import pytest

from configs.errors import InputError
from trainer.run import main


@pytest.fixture
def arguments(sets, voc_discs, tmp_path) -> list[str]:
    """A run of seconds: tiny detector, 2 seeds, 2 amounts, all four phases."""
    config = tmp_path / "tiny.yaml"
    config.write_text(
        f"""
crops: [{sets[0]}]
backgrounds: {sets[1]}
dataset: {{kind: voc, root: {voc_discs}}}
detector: {{kind: ssd, backbone: mobilenet_v2, weights: none, image_size: 96}}
phases: [scratch, pretrain, finetune, mixed]
pretrain: {{steps: 3, batch_size: 2}}
training: {{steps: 2, batch_size: 2}}
num_real: [2, 4]
seeds: [0, 1]
"""
    )
    return [str(config), "--out", str(tmp_path / "run")]


def test_a_run_leaves_config_scores_table_and_pictures(arguments, tmp_path, capsys) -> None:
    assert main(arguments) == 0
    out = tmp_path / "run"
    table = capsys.readouterr().out
    assert "| AP50, real photos" in table
    assert "–" not in table
    for name in ("config.yaml", "scores.json", "table.md", "scenes.png"):
        assert (out / name).stat().st_size > 0
    scores = json.loads((out / "scores.json").read_text())
    assert len(scores) == 2 * (1 + 2 * 3)
    assert all(0 <= cell["AP50"] <= 1 for cell in scores)
    cell = out / "seed-1" / "n-4" / "finetune"
    assert {p.name for p in cell.iterdir()} == {"checkpoints", "metrics.jsonl", "samples.png", "scores.json"}


def test_the_same_command_again_trains_nothing(arguments, tmp_path) -> None:
    main(arguments)
    files = [p for p in (tmp_path / "run").rglob("*") if p.suffix in (".pt", ".jsonl")]
    before = {p: p.stat().st_mtime_ns for p in files}
    main(arguments)
    assert {p: p.stat().st_mtime_ns for p in files} == before


def test_more_seeds_go_on_in_the_same_folder_but_another_detector_is_refused(arguments, tmp_path) -> None:
    main([*arguments, "seeds=[0]", "num_real=[2]", "phases=[scratch]"])
    main([*arguments, "seeds=[0, 1]", "num_real=[2]", "phases=[scratch]"])
    assert (tmp_path / "run" / "seed-1" / "n-2" / "scratch" / "scores.json").exists()
    with pytest.raises(InputError, match="holds a run with another detector"):
        main([*arguments, "detector.image_size=64"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("num_real=[99]", "num_real: found 99, wanted at most 12"),
        ("phases=[finetune]", "'finetune' goes on from 'pretrain'"),
        ("detector.kind=sdd", "detector: unknown kind 'sdd', did you mean 'ssd'?"),
        ("test_split=tset", "tset"),
        ("trainign.steps=3", "unknown key 'trainign', did you mean 'training'"),
        ("training.lr=fast", "training.lr: found 'fast', wanted a number"),
    ],
)
def test_mistakes_are_named_before_anything_is_trained(arguments, tmp_path, override, message) -> None:
    with pytest.raises(InputError) as caught:
        main([*arguments, override])
    assert message in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_swapped_sets_are_refused(arguments, sets) -> None:
    with pytest.raises(InputError, match=r"crops: .* holds 8 backgrounds, wanted a set of crops"):
        main([*arguments, f"crops=[{sets[1]}]"])


def test_a_missing_config_and_an_unknown_name_are_refused() -> None:
    with pytest.raises(InputError, match=r"gone\.yaml: no such configuration file"):
        main(["gone.yaml"])
    with pytest.raises(InputError, match="no run 'brids', did you mean 'birds'"):
        main(["brids"])


def test_packaged_runs_and_classes_are_valid() -> None:
    from configs.home import find_config, packaged_names
    from configs.load import read_yaml, validated
    from trainer.experiment import ExperimentConfig

    assert {"birds", "cars"} <= set(packaged_names("runs"))
    for name in packaged_names("runs"):
        validated(ExperimentConfig, read_yaml(find_config("runs", name, "run")), name)
