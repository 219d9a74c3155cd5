"""The generator for few images, its discriminator, its training and its scores."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2

from configs.errors import InputError
from factory.gan.diff_augment import AUGMENTATIONS, diff_augment
from factory.gan.discriminator import FastganDiscriminator
from factory.gan.learner import GanConfig, GanLearner
from factory.gan.projected import ProjectedFeatures
from factory.gan.scores import copying, frechet_distance, kernel_distance, nearest
from factory.generators.fastgan import (
    FastganGenerator,
    FastganSizes,
    SkipLayerExcitation,
    calibrate_norms,
    gated,
)
from factory.generators.found import Found, write_found
from factory.generators.rows import aligned_slots, draw_latents
from factory.sources.fastgan import FastganConfig
from factory.sources.images import ImagesConfig
from factory.train_gan import draw, half, main
from factory.training.image_pool import Fit, PhotoPool, open_pool, to_signed
from factory.training.loop import LoopConfig

TINY = GanConfig(
    num_latent=8, width=4, discriminator_width=4, batch_size=4, precision="fp32", loop=LoopConfig(steps=4)
)


def noise_pool(count: int = 9) -> PhotoPool:
    return PhotoPool(np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), np.uint8), 0)


def learner(config: GanConfig = TINY) -> GanLearner:
    return GanLearner(noise_pool(), config, lambda generator, iteration: {})


@pytest.mark.parametrize("image_px", [16, 64, 128, 256])
def test_a_generator_is_rebuilt_from_its_weights_alone(image_px: int) -> None:
    generator = FastganGenerator(FastganSizes(8, 4, image_px)).eval()
    again = FastganGenerator.from_state_dict(generator.state_dict())
    assert again.sizes == generator.sizes
    latents = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    images = generator(latents)
    assert images.shape == (2, 3, image_px, image_px)
    assert images.abs().max() <= 1
    assert torch.equal(images, again(latents))


def test_folded_norms_leave_the_images_as_they_are() -> None:
    generator = FastganGenerator(FastganSizes(8, 4, 64))
    calibrate_norms(generator, torch.Generator().manual_seed(0), batches=2)
    latents = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    wanted = generator(latents)
    folded = generator.fold_norms()
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(latents), wanted, rtol=0, atol=1e-5)


def test_the_gate_is_torchs_gated_linear_unit() -> None:
    x = torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(1))
    assert torch.allclose(gated(x), nn.functional.glu(x, 1))


def test_excitation_weighs_each_channel_by_one_number_from_the_small_map() -> None:
    layer = SkipLayerExcitation(3, 5)
    rng = torch.Generator().manual_seed(2)
    small, large = torch.randn(2, 3, 4, 4, generator=rng), torch.randn(2, 5, 16, 16, generator=rng)
    squeezed = torch.einsum("bchw,ochw->bo", small, layer.squeeze.weight) + layer.squeeze.bias
    squeezed = torch.where(squeezed > 0, squeezed, 0.1 * squeezed)
    gate = 1 / (1 + torch.exp(-(squeezed @ layer.excite.weight[:, :, 0, 0].T + layer.excite.bias)))
    assert torch.allclose(layer(small, large), large * gate[:, :, None, None], atol=1e-5)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no 'first\.weight'"):
        FastganGenerator.from_state_dict({"main.0.weight": torch.zeros(3, 3, 4, 4)})
    state = FastganGenerator(FastganSizes(8, 4, 16)).state_dict()
    del state["to_image.bias"]
    with pytest.raises(ValueError, match=r"to_image\.bias"):
        FastganGenerator.from_state_dict(state)


def test_calibrated_norms_give_normed_features() -> None:
    generator = FastganGenerator(FastganSizes(8, 4, 16))
    calibrate_norms(generator, torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    generator.first_norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    generator(torch.randn(512, 8, generator=torch.Generator().manual_seed(1)))
    scaled = (seen[0] - generator.first_norm.bias[:, None, None]) / generator.first_norm.weight[:, None, None]
    assert scaled.mean(dim=(0, 2, 3)).abs().max() < 0.1
    assert (scaled.var(dim=(0, 2, 3)) - 1).abs().max() < 0.2


@pytest.mark.parametrize("image_px", [64, 128])
def test_a_discriminator_gives_fifty_scores_and_one_redrawing_error(image_px: int) -> None:
    discriminator = FastganDiscriminator(image_px, 4)
    images = torch.zeros(3, 3, image_px, image_px)
    assert discriminator(images).shape == (3, 50)
    scores, redrawn = discriminator.judge_and_redraw(images, (1, 0))
    assert scores.shape == (3, 50)
    assert redrawn.ndim == 0


def test_translation_shifts_whole_pixels_and_fills_with_zeros() -> None:
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(3)) + 1
    moved = AUGMENTATIONS["translation"](images, torch.Generator().manual_seed(4))
    for before, after in zip(images.numpy(), moved.numpy(), strict=True):
        padded = np.pad(before, ((0, 0), (2, 2), (2, 2)))
        windows = [padded[:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
        assert sum(np.array_equal(window, after) for window in windows) == 1


def test_colour_changes_brightness_saturation_and_contrast_but_not_places() -> None:
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    changed = AUGMENTATIONS["color"](images, torch.Generator().manual_seed(6))
    for before, after in zip(images.mean(dim=1), changed.mean(dim=1), strict=True):
        slope, offset = np.polyfit(before.flatten().numpy(), after.flatten().numpy(), 1)
        assert 0.5 <= slope <= 1.5
        assert torch.allclose(before * slope + offset, after, atol=1e-5)


def test_augmentation_lets_gradients_through_and_follows_its_lot() -> None:
    images = torch.zeros(2, 3, 16, 16, requires_grad=True)
    policy = "color,translation,cutout"
    first = diff_augment(images, torch.Generator().manual_seed(7), policy)
    assert torch.equal(first, diff_augment(images, torch.Generator().manual_seed(7), policy))
    first.sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None


def test_a_resumed_training_ends_with_the_same_bits() -> None:
    straight, before, after = learner(), learner(), learner()
    for _ in range(4):
        straight.step()
    before.step()
    before.step()
    after.load(before.state())
    figures = [after.step(), after.step()][-1]
    assert all(np.isfinite(list(figures.values())))
    for wanted, found in zip(
        straight.averaged.state_dict().values(), after.averaged.state_dict().values(), strict=True
    ):
        assert torch.equal(wanted, found)
    for wanted, found in zip(
        straight.discriminator.state_dict().values(), after.discriminator.state_dict().values(), strict=True
    ):
        assert torch.equal(wanted, found)


def test_the_discriminator_learns_to_score_photos_above_samples() -> None:
    images = np.zeros((8, 64, 64, 3), np.uint8)
    images[..., 0] = 230
    config = TINY.model_copy(update={"lr": 2e-3, "augment": ""})
    trained = GanLearner(PhotoPool(images, 0), config, lambda generator, iteration: {})
    for _ in range(8):
        trained.step()
    samples = torch.from_numpy(draw(trained.finished(), 4, 0)).permute(0, 3, 1, 2)
    photos = torch.from_numpy(images[:4]).permute(0, 3, 1, 2)
    with torch.no_grad():
        scores = trained.discriminator(torch.cat([to_signed(photos), to_signed(samples)]))
    assert scores[:4].mean() > scores[4:].mean() + 0.05


def test_kernel_distance_agrees_with_explicit_sums() -> None:
    rng = np.random.default_rng(0)
    real, fake = rng.normal(size=(100, 4)), rng.normal(0.5, 1, size=(100, 4))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / 4 + 1) ** 3)

    pairs = [(i, j) for i in range(100) for j in range(100) if i != j]
    within = sum(kernel(real[i], real[j]) + kernel(fake[i], fake[j]) for i, j in pairs) / (100 * 99)
    between = sum(kernel(a, b) for a in real for b in fake) / 100**2
    assert kernel_distance(real, fake) == pytest.approx(within - 2 * between)
    assert np.isfinite(kernel_distance(real[:50], fake))
    with pytest.raises(ValueError, match="wanted 2"):
        kernel_distance(real[:1], fake)


def test_frechet_distance_agrees_with_the_eigenvalues_of_the_product() -> None:
    rng = np.random.default_rng(1)
    real, fake = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 3)), rng.normal(1, 2, size=(200, 3))
    a, b = np.cov(real.T), np.cov(fake.T)
    cross = np.sqrt(np.linalg.eigvals(a @ b).real).sum()
    wanted = ((real.mean(0) - fake.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * cross
    assert frechet_distance(real, fake) == pytest.approx(wanted)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-9)


def test_copies_are_told_from_new_images() -> None:
    rng = np.random.default_rng(2)
    real = rng.normal(size=(60, 8))
    assert copying(real, rng.normal(size=(60, 8))) == pytest.approx(1, abs=0.2)
    assert copying(real, real[:30] + 1e-3) < 0.01
    assert nearest(real[:5], real)[1].tolist() == [0, 1, 2, 3, 4]


def test_aligned_slots_do_not_depend_on_where_reading_starts() -> None:
    asked: list[int] = []

    def make(first: int) -> list[int]:
        asked.append(first)
        return [first + i for i in range(4)]

    assert list(aligned_slots(6, 5, 4, make)) == [(i, i) for i in range(6, 11)]
    assert asked == [4, 8]


def test_a_latent_vector_depends_on_seed_and_number_alone() -> None:
    assert torch.equal(draw_latents(3, 0, 6, 5)[4:], draw_latents(3, 4, 2, 5))
    assert not torch.equal(draw_latents(3, 0, 1, 5), draw_latents(4, 0, 1, 5))


def test_a_trained_generator_is_a_source(tmp_path: Path) -> None:
    generator = FastganGenerator(FastganSizes(8, 4, 64)).eval()
    write_found(Found("fastgan", {"class": "thing"}, half(generator)), tmp_path / "g.safetensors")
    source = FastganConfig(weights=tmp_path / "g.safetensors", batch_size=4).open(3, tmp_path)
    images = [item.image for item in source.images(2, 5)]
    assert [image.shape for image in images] == [(64, 64, 3)] * 5
    assert np.array_equal(images[3], next(iter(source.images(5, 1))).image)


def test_images_of_squashed_photos_are_stretched_back(tmp_path: Path) -> None:
    state = half(FastganGenerator(FastganSizes(8, 4, 64)).eval())
    for aspect, shape in ((1.5, (64, 96, 3)), (0.5, (128, 64, 3))):
        write_found(Found("fastgan", {"aspect": aspect}, state), tmp_path / "g.safetensors")
        source = FastganConfig(weights=tmp_path / "g.safetensors").open(0, tmp_path)
        assert next(iter(source.images(0, 1))).image.shape == shape


def test_a_squashing_pool_remembers_the_median_aspect(tmp_path: Path) -> None:
    for index, width in enumerate((20, 30, 90)):
        cv2.imwrite(str(tmp_path / f"{index}.png"), np.zeros((20, width, 3), np.uint8))
    source = ImagesConfig(root=tmp_path).open(0, tmp_path)
    fits: tuple[Fit, ...] = ("squash", "crop")
    pools = [open_pool(source, 8, 0, fit=fit) for fit in fits]
    assert [pool.aspect for pool in pools if isinstance(pool, PhotoPool)] == [1.5, 1.0]


def test_weights_of_another_family_are_no_source(tmp_path: Path) -> None:
    write_found(Found("redo-masks", {}, {"a": torch.zeros(1)}), tmp_path / "m.safetensors")
    with pytest.raises(InputError, match=r"holds redo-masks, wanted a generator of factory\.train_gan"):
        FastganConfig(weights=tmp_path / "m.safetensors").open(0, tmp_path)
    with pytest.raises(InputError, match=r"source\.weights is not set"):
        FastganConfig().open(0, tmp_path)


def test_the_command_trains_scores_and_leaves_weights_that_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CROP_FOUNDRY_HOME", str(tmp_path))
    photos = tmp_path / "photos"
    photos.mkdir()
    for index, image in enumerate(noise_pool(100).images):
        cv2.imwrite(str(photos / f"{index:03d}.png"), image)
    recipe = tmp_path / "things.yaml"
    recipe.write_text(f"label: thing\nsource: {{kind: images, root: {photos}}}\nsegmenter: {{kind: whole}}\n")
    lengths = ["loop.steps=3", "loop.checkpoint_every=2", "samples=100", "batch_size=4"]
    command = ["--class", str(recipe), "width=4", "num_latent=8", "discriminator_width=4", *lengths]
    assert main(command) == 0
    assert "fid" in capsys.readouterr().out
    weights = tmp_path / "data" / "weights" / "gan-things.safetensors"
    assert len(list(FastganConfig(weights=weights).open(0, tmp_path).images(0, 3))) == 3
    folder = tmp_path / "runs" / "gan-things"
    assert (folder / "neighbours.png").is_file()
    scored = [
        line for line in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if "kid" in line
    ]
    assert [line["iteration"] for line in scored] == [2, 3]
    with pytest.raises(InputError, match="another training"):
        main([*command, "lr=0.001"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("image_px=100", "wanted 64, 128 or 256"),
        ("augment=colour", "unknown colour"),
        ("steps=3", "unknown key"),
    ],
)
def test_wrong_settings_are_named(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        main(["--class", "birds", override])


def test_a_generator_is_not_trained_on_a_generator() -> None:
    with pytest.raises(InputError, match="wanted photos"):
        main(["--class", "birds"])


def test_projected_features_are_mobilenets_mixed_by_fixed_weights() -> None:
    backbone = mobilenet_v2(weights=None).eval()
    torch.manual_seed(0)
    features = ProjectedFeatures(backbone.state_dict(), mixed=4)
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    large = nn.functional.interpolate((images + 1) / 2, (128, 128), mode="bilinear")
    x = (large - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[
        :, None, None
    ]
    deepest = backbone.features[:18](x)
    wanted = features.across_scales[3](features.across_channels[3](deepest))
    found = features(images)
    assert [part.shape[-1] for part in found] == [32, 16, 8, 4]
    assert torch.allclose(found[3], wanted, atol=1e-3)


def test_a_projected_discriminator_trains_its_heads_alone() -> None:
    config = TINY.model_copy(update={"discriminator": "projected"})
    trained = learner(config)
    before = {name: value.clone() for name, value in trained.discriminator.state_dict().items()}
    trained.step()
    moved = {
        name
        for name, value in trained.discriminator.state_dict().items()
        if value.is_floating_point() and not torch.equal(value, before[name])
    }
    assert moved
    assert all(name.startswith("heads.") for name in moved)


def test_bf16_images_are_those_of_fp32_within_a_few_levels(tmp_path: Path) -> None:
    generator = FastganGenerator(FastganSizes(8, 8, 64))
    calibrate_norms(generator, torch.Generator().manual_seed(0), batches=2)
    write_found(Found("fastgan", {}, half(generator)), tmp_path / "g.safetensors")
    exact, quick = (
        next(iter(FastganConfig.model_validate(settings).open(0, tmp_path).images(0, 1))).image.astype(int)
        for settings in (
            {"weights": tmp_path / "g.safetensors"},
            {"weights": tmp_path / "g.safetensors", "precision": "bf16"},
        )
    )
    assert not np.array_equal(exact, quick)
    assert np.abs(exact - quick).mean() < 4
