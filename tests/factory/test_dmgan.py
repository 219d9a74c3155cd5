"""DM-GAN and its text encoder: the official keys, and the maths against loops."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from configs.errors import InputError
from factory.generators.dmgan import DmganGenerator, DmganSizes, TextEncoder, sizes_of
from factory.generators.dmgan_files import load_generator, load_text_encoder, recognise
from factory.generators.found import read_found, write_found

_TINY = DmganSizes(num_latent=5, num_condition=3, num_words=6, num_features=4, num_stages=3, num_res_blocks=2)


def _shuffled(network: nn.Module, seed: int = 0) -> nn.Module:
    """Weights and norms far from their start, so that no term of the maths is hidden."""
    rng = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=rng) * 0.3
            value.copy_(noise.abs() + 0.5 if name.endswith("running_var") else noise)
    return network.eval().requires_grad_(False)


def _tiny(fix_mask: bool = False, sizes: DmganSizes = _TINY) -> DmganGenerator:
    network = _shuffled(DmganGenerator(sizes, fix_mask))
    assert isinstance(network, DmganGenerator)
    return network


def _inputs(lengths: list[int], num_words: int = 6) -> tuple[Tensor, ...]:
    """Latents, eps, sentences, words, padding."""
    rng = torch.Generator().manual_seed(1)
    count, longest = len(lengths), max(lengths)
    is_padding = torch.arange(longest)[None] >= torch.tensor(lengths)[:, None]
    shapes = [(count, 5), (count, 3), (count, num_words), (count, num_words, longest)]
    return *(torch.randn(shape, generator=rng) for shape in shapes), is_padding


def _official(shared_data: Path, title: str) -> dict[str, tuple[int, ...]]:
    path = shared_data.parent / "facts" / "dmgan_keys.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not there: it lists the official keys")
    section = path.read_text().partition(f"## {title}")[2].partition("\n## ")[0]
    found = re.findall(r"^\s+(\S+) \(([\d, ]*)\)$", section, re.MULTILINE)
    return {name: tuple(int(n) for n in shape.split(",") if n.strip()) for name, shape in found}


def _random(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A random number a tensor, seen in the tensor's shape: 21 million take seconds."""
    rng = torch.Generator().manual_seed(0)
    return {name: torch.rand((), generator=rng).expand(shape) for name, shape in shapes.items()}


def test_official_state_dicts_load_strictly(shared_data: Path) -> None:
    shapes = _official(shared_data, "G_NET")
    generator = DmganGenerator.from_state_dict(_random(shapes))
    assert generator.sizes == DmganSizes() and generator.sizes_px == [64, 128, 256]
    assert {name: tuple(value.shape) for name, value in generator.state_dict().items()} == shapes
    texts = _official(shared_data, "RNN_ENCODER")
    encoder = TextEncoder.from_state_dict(_random(texts))
    assert encoder.encoder.num_embeddings == 5450 and encoder.num_features == 256
    assert {name: tuple(value.shape) for name, value in encoder.state_dict().items()} == texts


def test_there_are_119_keys_and_21449042_parameters() -> None:
    with torch.device("meta"):
        generator, encoder = DmganGenerator(DmganSizes()), TextEncoder(5450)
    assert len(generator.state_dict()) == 119 and len(encoder.state_dict()) == 9
    assert sum(value.numel() for value in generator.parameters()) == 21_449_042
    assert sum(value.numel() for value in encoder.parameters()) == 2_075_320


@pytest.mark.parametrize("sizes", [_TINY, _TINY._replace(num_stages=2, num_res_blocks=1)])
def test_sizes_are_inferred_and_old_files_may_lack_the_counters(sizes: DmganSizes) -> None:
    state = _tiny(sizes=sizes).state_dict()
    assert sizes_of(state) == sizes
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    again = DmganGenerator.from_state_dict(old)
    assert not again.training
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in old.items())
    del old["img_net1.img.0.weight"]
    with pytest.raises(ValueError, match="img_net1"):
        DmganGenerator.from_state_dict(old)


@pytest.mark.parametrize(("image_px", "stage"), [(64, 1), (128, 2), (256, 3), (None, 3)])
def test_a_lower_resolution_skips_the_later_stages(image_px: int | None, stage: int) -> None:
    generator = _tiny()
    for later in range(stage + 1, 4):
        delattr(generator, f"h_net{later}")
    images = generator(*_inputs([3, 2]), image_px)
    assert images.shape == (2, 3, 32 * 2**stage, 32 * 2**stage)
    assert images.abs().max() <= 1 and images.std() > 0.01


def test_the_condition_is_the_mean_plus_eps_deviations() -> None:
    generator = _tiny()
    _, eps, sentences, *_ = _inputs([2, 2])
    dense = sentences @ generator.ca_net.fc.weight.T + generator.ca_net.fc.bias
    gated = dense[:, :6] * dense[:, 6:].sigmoid()
    wanted = gated[:, :3] + eps * torch.sqrt(gated[:, 3:].exp())
    torch.testing.assert_close(generator.ca_net(sentences, eps), wanted)


def _conv_norm_glu(features: Tensor, conv: nn.Module, norm: nn.Module) -> Tensor:
    maps = functional.conv2d(features, conv.weight, padding=1)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    maps = (maps - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
    half = maps.shape[1] // 2
    return maps[:, :half] * maps[:, half:].sigmoid()


def test_the_first_stage_doubles_four_times() -> None:
    stage = _tiny().h_net1
    latents, condition, *_ = _inputs([1, 1])
    dense = stage.fc[1](torch.cat([condition, latents], 1) @ stage.fc[0].weight.T)
    features = (dense[:, :1024] * dense[:, 1024:].sigmoid()).reshape(2, 64, 4, 4)
    for number in (1, 2, 3, 4):
        layer = getattr(stage, f"upsample{number}")
        doubled = features.repeat_interleave(2, 2).repeat_interleave(2, 3)
        features = _conv_norm_glu(doubled, layer[1], layer[2])
    torch.testing.assert_close(stage(latents, condition), features, rtol=1e-4, atol=1e-5)


def _mixed_by_loops(stage: nn.Module, features: Tensor, words: Tensor, is_seen: Tensor) -> Tensor:
    """The features after memory writing and reading, one image, one pixel and one word at a time.

    is_seen: bool (B, pixels, T).
    """
    count, width, side, _ = features.shape
    mixed = torch.empty(count, width, side * side)
    for b in range(count):
        mean = features[b].mean((1, 2))
        keys, values = [], []
        for word in words[b].T:
            gate = (stage.A.weight[0] @ word + stage.B.weight[0] @ mean).sigmoid()
            from_word, from_image = (_dense(layer, x) for layer, x in ((stage.M_w, word), (stage.M_r, mean)))
            memory = gate * from_word + (1 - gate) * from_image
            keys.append(_dense(stage.key, memory))
            values.append(_dense(stage.value, memory))
        for pixel in range(side * side):
            query = features[b, :, pixel // side, pixel % side]
            seen = [t for t in range(len(keys)) if is_seen[b, pixel, t]]
            shares = torch.stack([query @ keys[t] for t in seen]).exp()
            answer = sum(share * values[t] for share, t in zip(shares / shares.sum(), seen, strict=True))
            weight, bias = stage.response_gate[0].weight[0, :, 0, 0], stage.response_gate[0].bias
            gate = (weight @ torch.cat([query, answer]) + bias).sigmoid()
            mixed[b, :, pixel] = query * (1 - gate) + answer * gate
    return mixed.view_as(features)


def _dense(layer: nn.Module, values: Tensor) -> Tensor:
    return (layer[0].weight[:, :, 0] @ values + layer[0].bias).relu()


@pytest.mark.parametrize("fix_mask", [False, True])
def test_a_memory_stage_is_what_loops_compute(fix_mask: bool) -> None:
    """Without the fix pixel q of image b looks past the padding of caption (b * Q + q) mod B, as theirs."""
    stage, (*_, words, is_padding) = _tiny().h_net2, _inputs([4, 1, 2])
    side, count = 4, 3
    features = torch.randn(count, 4, side, side, generator=torch.Generator().manual_seed(2))
    is_seen = torch.empty(count, side * side, 4, dtype=torch.bool)
    for b in range(count):
        for q in range(side * side):
            is_seen[b, q] = ~is_padding[b if fix_mask else (b * side * side + q) % count]
    maps = _mixed_by_loops(stage, features, words, is_seen).repeat(1, 2, 1, 1)
    for block in stage.residual:
        inner = _conv_norm_glu(maps, block.block[0], block.block[1])
        maps = maps + block.block[4](functional.conv2d(inner, block.block[3].weight, padding=1))
    maps = maps.repeat_interleave(2, 2).repeat_interleave(2, 3)
    maps = _conv_norm_glu(maps, stage.upsample[1], stage.upsample[2])
    hidden = is_padding[:, None].expand(-1, 16, -1) if fix_mask else ~is_seen
    torch.testing.assert_close(stage(features, words, hidden), maps, rtol=1e-4, atol=1e-4)


def test_the_fixed_mask_frees_an_image_from_its_neighbours() -> None:
    inputs = _inputs([4, 2])
    for fix_mask in (False, True):
        generator = _tiny(fix_mask)
        both = generator(*inputs, 128)
        alone = generator(
            *(x[1:, :, :2] if x.ndim == 3 else x[1:] for x in inputs[:4]), inputs[4][1:, :2], 128
        )
        assert ((both[1:] - alone).abs().max() < 1e-4) == fix_mask


def test_equal_lengths_need_no_fix() -> None:
    inputs = _inputs([3, 3])
    assert torch.equal(_tiny(False)(*inputs, 128), _tiny(True)(*inputs, 128))


def test_the_text_encoder_reads_each_caption_alone() -> None:
    encoder = _shuffled(TextEncoder(20, 7, 3))
    ids, lengths = torch.tensor([[4, 9, 0, 0, 0], [3, 5, 7, 2, 0]]), torch.tensor([2, 4])
    words, sentences = encoder(ids, lengths)
    assert words.shape == (2, 6, 4) and sentences.shape == (2, 6)
    assert (words[0, :, 2:] == 0).all()
    for row, length in enumerate(lengths):
        alone, _ = encoder.rnn(encoder.encoder(ids[row, :length])[None])
        torch.testing.assert_close(words[row, :, :length], alone[0].T)
        torch.testing.assert_close(sentences[row], torch.cat([alone[0, -1, :3], alone[0, 0, 3:]]))


@pytest.mark.parametrize("form", ["bare", "parallel", "wrapped", "safetensors", "ours"])
def test_every_form_of_the_files_loads(tmp_path: Path, form: str) -> None:
    state = _tiny().state_dict()
    path = tmp_path / ("g.pth" if form in ("bare", "parallel", "wrapped") else "g.safetensors")
    if form == "ours":
        found = recognise(state, path)
        assert found is not None
        write_found(found, path)
    elif form == "safetensors":
        save_file(state, path)
    else:
        prefix = "module." if form == "parallel" else ""
        renamed = {prefix + name: value for name, value in state.items()}
        torch.save({"netG": renamed} if form == "wrapped" else renamed, path)
    again = load_generator(path, fix_mask=True)
    assert again.fix_mask and again.sizes == _TINY
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())


def test_files_are_recognised_with_their_facts(tmp_path: Path) -> None:
    found = recognise({"netG": _tiny().state_dict()}, Path("g.pth"))
    assert found is not None and found.family == "dmgan" and len(found.tensors) == 119
    assert found.facts["image_px"] == 256 and found.facts["num_latent"] == 5
    texts = recognise(TextEncoder(20, 7, 3).state_dict(), Path("t.pth"))
    assert texts is not None and texts.family == "damsm-text"
    assert texts.facts == {"num_tokens": 20, "num_inputs": 7, "num_features": 6}
    write_found(texts, tmp_path / "t.safetensors")
    assert load_text_encoder(tmp_path / "t.safetensors").num_features == 6
    assert read_found(tmp_path / "t.safetensors").facts == texts.facts
    with pytest.raises(InputError, match="family 'damsm-text', wanted DM-GAN's generator"):
        load_generator(tmp_path / "t.safetensors")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"main.0.weight": torch.zeros(1)}, 7, {}])
def test_files_of_others_are_left_to_others(content: object) -> None:
    assert recognise(content, Path("x.pth")) is None


def test_captions_are_no_weights() -> None:
    with pytest.raises(InputError, match=r"holds DM-GAN's captions, no weights: wanted --to NAME\.json"):
        recognise([[[1]], [[1]], {}, {"<end>": 0, "bird": 1}], Path("captions.pickle"))


def test_broken_files_are_named_with_what_was_found() -> None:
    state = _tiny().state_dict()
    short = {name: value for name, value in state.items() if name != "h_net3.key.0.bias"}
    with pytest.raises(InputError, match=r"g\.pth: holds 118 keys.*h_net3\.key\.0\.bias"):
        recognise(short, Path("g.pth"))
    wide = state | {"h_net3.key.0.bias": torch.zeros(5)}
    with pytest.raises(InputError, match=r"h_net3\.key\.0\.bias"):
        recognise(wide, Path("g.pth"))
    state["h_net3.key.0.bias"][0] = torch.nan
    with pytest.raises(InputError, match=r"'h_net3\.key\.0\.bias' is not finite"):
        recognise(state, Path("g.pth"))
