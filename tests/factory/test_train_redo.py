"""The command that trains ReDO."""

from pathlib import Path

import pytest
import torch

from configs.errors import InputError
from factory.redo.mask_network import load_mask_network
from factory.redo.official import read_official
from factory.redo.settings import load_training
from factory.segmenters.redo import RedoConfig
from factory.train_redo import main, split_indices

_TINY = (
    "image_size=32",
    "batch_size=2",
    "networks.latent_size=3",
    "networks.mask_features=8",
    "networks.mask_res_blocks=1",
    "networks.generator_features=2",
    "networks.discriminator_features=2",
    "networks.recovery_features=2",
    "distill.steps=2",
    "loop.steps=2",
    "device=cpu",
)


@pytest.fixture
def command(tmp_path: Path, photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A tiny training of 40 photos, at home in a folder of its own."""
    monkeypatch.setenv("CROP_FOUNDRY_HOME", str(tmp_path))
    return ["--class", "birds-photos", f"source.root={photo_folder}", "quality.min_side_px=4", *_TINY]


def test_a_training_ends_with_a_mask_network_that_knows_its_object(command, tmp_path, capsys) -> None:
    assert main(command) == 0
    printed = capsys.readouterr().out
    path = tmp_path / "data" / "weights" / "redo-birds-photos.safetensors"
    assert str(path) in printed
    assert "step-0-000002" in printed
    network = load_mask_network(path)
    assert network.image_size == 32
    assert network.object_channel in (0, 1)
    assert RedoConfig(weights=path).open(tmp_path)._object_channel == network.object_channel
    folder = tmp_path / "runs" / "redo-birds-photos"
    assert (folder / "masks" / "step-0-000002.png").is_file()
    held = read_official(folder / "state_00002.pth").networks
    assert sorted(held) == ["netDX", "netEncM", "netGenX", "netRecZ"]
    assert "name: birds-photos" in (folder / "config.yaml").read_text()


def test_the_same_command_again_trains_nothing_and_more_steps_prolong(command, tmp_path, capsys) -> None:
    main(command)
    log = tmp_path / "runs" / "redo-birds-photos" / "metrics.jsonl"
    before = log.read_text()
    assert main(command) == 0
    assert log.read_text() == before
    assert main([*command, "loop.steps=3"]) == 0
    assert "step-0-000003" in str(sorted((log.parent / "masks").iterdir()))


def test_a_distilled_network_can_be_the_result_and_then_the_start(command, tmp_path, capsys) -> None:
    warm = [*command, "warm_start=distill", "name=warm"]
    assert main([*warm, "loop.steps=0"]) == 0
    assert "distilled-000002, object is region 0" in capsys.readouterr().out
    teacher = tmp_path / "runs" / "redo-warm" / "distill" / "teacher.npz"
    asked = teacher.stat().st_mtime_ns
    assert main(warm) == 0
    assert teacher.stat().st_mtime_ns == asked
    assert (tmp_path / "runs" / "redo-warm" / "masks" / "step-0-000002.safetensors").is_file()


def test_another_training_in_the_same_folder_is_refused(command) -> None:
    main(command)
    with pytest.raises(InputError, match=r"another training \(seed differ\)"):
        main([*command, "seed=1"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--class", "brids-photos"], "did you mean 'birds-photos'"),
        (["--class", "birds-photos", "--preset", "papers"], "did you mean 'paper'"),
        (
            ["--class", "birds-photos", "optimizer.mask_lr=1"],
            "unknown key 'optimizer', did you mean 'optimiser'",
        ),
        (["--class", "birds-photos", "networks.num_regions=1"], "networks.num_regions: found 1"),
        (["--class", "birds-photos", "image_size=96"], "image size is 96 px"),
        (
            ["--class", "birds-photos", "loop.steps=0"],
            "loop.steps is 0: wanted 1 or more, or warm_start=distill",
        ),
        (["--class", "birds-photos", "teacher.kind=grab"], "unknown kind 'grab', did you mean 'grabcut'"),
        (["--class", "birds-photos", "name=a/b"], "name: found 'a/b'"),
        (["--class", "birds-photos"], "data/photos/birds: not found, wanted a folder of images"),
    ],
)
def test_mistakes_are_named_in_one_line(words: list[str], message: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CROP_FOUNDRY_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        main(words)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_asked_for(command) -> None:
    with pytest.raises(InputError, match="device: found cuda, and torch sees no GPU"):
        main([*command, "device=cuda"])


def test_a_collapse_for_good_still_leaves_the_best_checkpoint(command, tmp_path) -> None:
    with pytest.raises(
        InputError, match=r"one region takes the whole image; .*redo-birds-photos\.safetensors"
    ):
        main([*command, "collapse.min_region_frac=0.499999", "collapse.attempts=2"])
    assert (tmp_path / "data" / "weights" / "redo-birds-photos.safetensors").is_file()


def test_the_paper_preset_is_the_method() -> None:
    config = load_training("birds-photos", "paper", [])
    assert (config.image_size, config.batch_size, config.fit, config.flip) == (128, 20, "crop", False)
    assert config.optimiser.model_dump() == {
        "mask_lr": 1e-5,
        "mask_weight_decay": 1e-4,
        "generator_lr": 1e-4,
        "discriminator_lr": 1e-4,
        "recovery_lr": 1e-4,
        "recovery_weight": 5.0,
        "mask_frozen_steps": 0,
    }
    assert set(config.networks.model_dump().values()) == {64, 32, 3, 2, False, 1.0}


def test_the_teacher_is_the_recipes_segmenter_unless_that_is_redo(tmp_path: Path) -> None:
    assert load_training("cars-photos", "light", []).teacher.model_dump()["convex"] is True
    recipe = tmp_path / "mug.yaml"
    recipe.write_text("label: mug\nsource: {kind: images}\nsegmenter: {kind: redo, weights: x.pth}\n")
    config = load_training(str(recipe), "light", [])
    assert (config.teacher.kind, config.name) == ("grabcut", "mug")


def test_held_out_images_are_a_tenth_and_never_trained_on() -> None:
    kept, held_out = split_indices(40, 0)
    assert len(held_out) == 4
    assert sorted(kept + held_out) == list(range(40))
    assert split_indices(40, 0) == (kept, held_out)
    assert len(split_indices(5000, 0)[1]) == 64
    assert split_indices(2, 0)[1] != []
    with pytest.raises(InputError, match="1 readable image"):
        split_indices(1, 0)
