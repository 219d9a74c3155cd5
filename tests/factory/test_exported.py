"""Generators as programs: torch.export and TorchScript, from strangers."""

import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.errors import InputError
from factory.generators.exported_program import read_exported_program
from factory.sources.exported import ExportedConfig, ExportedSource


class _Generator(nn.Module):
    """A little of everything that an exported graph may hold: sizes, lists, constants, buffers, no_grad."""

    def __init__(self, num_channels: int = 3) -> None:
        super().__init__()
        self.dense = nn.Sequential(nn.Linear(6, 8 * 16, bias=False), nn.LayerNorm(8 * 16))
        self.norm = nn.BatchNorm2d(8)
        self.image = nn.Conv2d(8, num_channels, 3, padding=1)
        self.register_buffer("gain", torch.full((1,), 2.0), persistent=False)
        self.eval()

    def forward(self, z: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.dense(z / z.norm(dim=1, keepdim=True)).reshape(z.shape[0], 8, 4, 4)
        left, right = self.norm(features).chunk(2, dim=1)
        features = torch.cat([left * right.sigmoid(), right], 1) + torch.arange(4.0)[:, None]
        larger = nn.functional.interpolate(features, scale_factor=2.0, mode="bilinear")
        return torch.tanh(self.image(larger) * self.gain) + torch.zeros(z.shape[0], 1, 1, 1)


def _made(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


def _export(path: Path, module: nn.Module, batch_size: int | None = None) -> Path:
    """Exported for one batch size, or for any."""
    axes = {0: torch.export.Dim("batch")} if batch_size is None else {}
    inputs = (torch.zeros(batch_size or 3, 6),) * (2 if isinstance(module, _Double) else 1)
    program = torch.export.export(module, inputs, dynamic_shapes=(axes,) * len(inputs))
    torch.export.save(program, path)
    return path


def _script(path: Path, module: nn.Module) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), path)
    return path


def _open(path: Path, seed: int = 0, **settings: Any) -> ExportedSource:
    config = {"output_range": "-1..1", **settings}
    return ExportedConfig(weights=path, **config).open(seed, Path("nowhere"))


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, module = tmp_path_factory.mktemp("programs"), _made(_Generator)
    return {
        "any": _export(folder / "any.pt2", module),
        "four": _export(folder / "four.pt2", module, 4),
    }


class _Script(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(6, 3, 8)
        self.eval()

    def forward(self, z: Tensor) -> Tensor:
        size = z.shape[0]
        if size == 0:
            raise ValueError("an empty batch")
        return torch.tanh(self.up(z.view(size, 6, 1, 1)))


@pytest.mark.parametrize(("name", "shape"), [("any", (None, 6)), ("four", (4, 6))])
def test_an_exported_program_runs_to_the_last_bit(
    programs: dict[str, Path], name: str, shape: tuple[int | None, ...]
) -> None:
    program, module = read_exported_program(programs[name]), _made(_Generator)
    assert program.input_shape == shape and program.input_dtype == torch.float32
    latents = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(program(latents), module(latents))


def test_a_program_that_was_taken_apart_runs_too(tmp_path: Path) -> None:
    module = _made(_Generator)
    program = torch.export.export(module, (torch.zeros(2, 6),)).run_decompositions()
    torch.export.save(program, tmp_path / "core.pt2")
    latents = torch.ones(2, 6)
    with torch.no_grad():
        again = read_exported_program(tmp_path / "core.pt2")(latents)
        torch.testing.assert_close(again, module(latents))


@pytest.mark.parametrize("name", ["any", "four"])
def test_a_slot_does_not_depend_on_the_slice(programs: dict[str, Path], name: str) -> None:
    source = _open(programs[name], batch_size=4)
    whole = list(source.images(0, 11))
    assert [item.name for item in whole] == [str(i) for i in range(11)]
    assert whole[5].image.shape == (8, 8, 3) and whole[5].image.dtype == np.uint8
    assert whole[5].origin == {"source": "exported", "latent_seed": 0, "latent_index": 5}
    for start, count in ((0, 1), (3, 2), (4, 4), (6, 5)):
        part = list(source.images(start, count))
        assert [item.name for item in part] == [str(i) for i in range(start, start + count)]
        for item, again in zip(part, whole[start:], strict=False):
            np.testing.assert_array_equal(item.image, again.image)
    (other,) = _open(programs[name], seed=1, batch_size=4).images(5, 1)
    assert not np.array_equal(other.image, whole[5].image)


def test_the_program_says_its_batch_and_its_latents(programs: dict[str, Path]) -> None:
    assert _open(programs["four"]).identity()["batch_size"] == 4
    source = _open(programs["any"])
    assert source.size is None
    assert {"batch_size": 64, "latent_shape": "6"}.items() <= dict(source.identity()).items()
    with pytest.raises(InputError, match=r"source\.batch_size: found 8, wanted 4"):
        _open(programs["four"], batch_size=8)
    with pytest.raises(InputError, match=r"source\.latent_shape: found \[7\], wanted \[6\]"):
        _open(programs["any"], latent_shape=(7,))


@pytest.mark.parametrize(("output_range", "scale"), [("0..1", (0.5, 0.5)), ("0..255", (127.5, 127.5))])
def test_every_range_gives_the_same_pixels(
    programs: dict[str, Path], tmp_path: Path, output_range: str, scale: tuple[float, float]
) -> None:
    class _Scaled(_Generator):
        def forward(self, z: Tensor) -> Tensor:
            return super().forward(z) * scale[0] + scale[1]

    scaled = _open(_export(tmp_path / "a.pt2", _made(_Scaled), 4), output_range=output_range)
    for one, other in zip(scaled.images(0, 4), _open(programs["four"]).images(0, 4), strict=True):
        assert np.abs(one.image.astype(int) - other.image).max() <= 1


def test_grey_programs_give_three_equal_channels(tmp_path: Path) -> None:
    source = _open(_export(tmp_path / "a.pt2", _made(lambda: _Generator(1)), 2))
    (item,) = source.images(0, 1)
    assert item.image.shape == (8, 8, 3) and (item.image[..., 0] == item.image[..., 2]).all()


def test_torchscript_needs_its_latent_shape(tmp_path: Path) -> None:
    module = _made(_Script)
    path = _script(tmp_path / "g.pt", module)
    with pytest.raises(InputError, match=r"source\.latent_shape is not set"):
        _open(path)
    (item,) = _open(path, latent_shape=(6,), batch_size=2).images(1, 1)
    latents = [np.random.default_rng([0, i]).standard_normal(6).astype(np.float32) for i in (0, 1)]
    with torch.no_grad():
        wanted = (module(torch.from_numpy(np.stack(latents)))[1] + 1) * 127.5
    np.testing.assert_array_equal(item.image, wanted.round().byte().permute(1, 2, 0).numpy())
    with pytest.raises(InputError, match=r"fails on latents \(2, 5\)"):
        _open(path, latent_shape=(5,), batch_size=2)


class _Noisy(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.rand(z.shape[0], 3, 4, 4)


class _Stateful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, z: Tensor) -> Tensor:
        self.count += 0.1
        return torch.zeros(z.shape[0], 3, 4, 4) + self.count


class _Saving(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        torch.save(z, "planted")
        return z


class _Reading(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.from_file("planted", False, 4)


class _Forking(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return torch.jit.wait(torch.jit.fork(torch.relu, z))


class _Waking(nn.Module):
    """Its own code runs while it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.values = torch.ones(1)

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, bool]:
        return self.values, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, bool]) -> None:
        self.values, self.training = state

    def forward(self, z: Tensor) -> Tensor:
        return z


def _save_before(module: nn.Module, inputs: tuple[Tensor]) -> None:
    torch.save(inputs[0], "planted")


def test_hooks_of_torchscript_do_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = _made(_Script)
    module.register_forward_pre_hook(_save_before)
    source = _open(_script(tmp_path / "g.pt", module), latent_shape=(6,), batch_size=2)
    assert len(list(source.images(0, 2))) == 2
    assert not (tmp_path / "planted").exists()


class _Double(nn.Module):
    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return z + y


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (_Saving, "it calls aten::save"),
        (_Reading, "it calls aten::from_file"),
        (_Forking, "it calls prim::fork"),
        (_Waking, "has __setstate__, which runs at loading"),
        (_Double, "takes 2 inputs"),
        (_Noisy, "gives other images for the same latents"),
        (_Stateful, "gives other images for the same latents"),
        (nn.Identity, r"gives \(2, 6\), wanted images \(2, 3 or 1, H, W\)"),
    ],
)
def test_torchscript_that_does_more_than_it_should_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: type[nn.Module], found: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _script(tmp_path / "g.pt", module())
    with pytest.raises(InputError, match=found) as error:
        _open(path, latent_shape=(6,), batch_size=2)
    assert "\n" not in str(error.value) and not (tmp_path / "planted").exists()


@pytest.mark.parametrize(
    ("module", "found"),
    [
        (_Noisy, "gives other images for the same latents"),
        (_Stateful, "gives other images for the same latents"),
        (_Double, "2 inputs and the outputs user_output, wanted one tensor in and one out"),
        (nn.Identity, r"gives \(2, 6\), wanted images"),
    ],
)
def test_exported_programs_that_are_no_generators_are_refused(
    tmp_path: Path, module: type[nn.Module], found: str
) -> None:
    path = _export(tmp_path / "g.pt2", module(), 2)
    with pytest.raises(InputError, match=found):
        _open(path)


class _Hostile:
    def __init__(self, planted: Path) -> None:
        self._planted = str(planted)

    def __reduce__(self) -> Any:
        return open, (self._planted, "w")


def _rewritten(path: Path, to: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """The archive with some of its files changed."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return to


def _all_dicts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from _all_dicts(item)


@pytest.mark.parametrize("place", ["sample_inputs", "weights", "constants"])
def test_pickles_in_an_exported_program_never_run(
    programs: dict[str, Path], tmp_path: Path, place: str
) -> None:
    planted = tmp_path / "planted"
    buffer = io.BytesIO()
    torch.save(_Hostile(planted), buffer)

    def change(name: str, content: bytes) -> bytes:
        if place == "sample_inputs":
            return buffer.getvalue() if place in name else content
        if f"{place}_config" in name:
            return content.replace(b'"use_pickle": false', b'"use_pickle": true')
        is_payload = f"data/{place}/" in name
        return pickle.dumps(_Hostile(planted)) if is_payload else content

    path = _rewritten(programs["four"], tmp_path / "g.pt2", change)
    if place == "sample_inputs":
        assert len(list(_open(path).images(0, 1))) == 1
    else:
        with pytest.raises(InputError, match="is pickled, which may run code"):
            _open(path)
    assert not planted.exists()


def test_python_texts_in_an_exported_program_are_not_evaluated(
    programs: dict[str, Path], tmp_path: Path
) -> None:
    planted = tmp_path / "planted"
    text = f"open({str(planted)!r}, 'w')"

    def change(name: str, content: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return content
        model = json.loads(content)
        model["guards_code"] = [text]
        for entry in _all_dicts(model):
            if "expr_str" in entry:
                entry["expr_str"] = text
        return json.dumps(model).encode()

    path = _rewritten(programs["any"], tmp_path / "g.pt2", change)
    assert len(list(_open(path).images(0, 1))) == 1
    assert not planted.exists()


@pytest.mark.parametrize(
    "target",
    [
        *("torch.os.system", "torch.load", "_operator.methodcaller", "math.sin", "builtins.eval"),
        *("torch.ops.aten.from_file.default", "torch.ops.aten.save.default", "torch.ops.load_library"),
        *("torch.ops.aten.__class__.mro", "torch.ops.aten.nothing.default", "torch.ops.aten.relu.__class__"),
        "torch.ops.higher_order.cond",
    ],
)
def test_other_calls_in_an_exported_program_are_refused(
    programs: dict[str, Path], tmp_path: Path, target: str
) -> None:
    def change(name: str, content: bytes) -> bytes:
        return content.replace(b"torch.ops.aten.tanh.default", target.encode())

    path = _rewritten(programs["any"], tmp_path / "g.pt2", change)
    with pytest.raises(InputError, match="not a program that can be run here") as error:
        _open(path)
    assert "\n" not in str(error.value)


def test_other_files_are_named(tmp_path: Path, programs: dict[str, Path]) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt")
    (tmp_path / "text.pt2").write_text("this is text")
    (tmp_path / "cut.pt2").write_bytes(programs["four"].read_bytes()[:-200])
    for name in ("state.pt", "text.pt2", "cut.pt2"):
        with pytest.raises(InputError, match=rf"{name}: found neither, wanted a program z -> image"):
            _open(tmp_path / name)
    with pytest.raises(InputError, match="no file"):
        _open(tmp_path / "missing.pt2")
    with pytest.raises(InputError, match=r"source\.output_range is not set"):
        ExportedConfig(weights=programs["four"]).open(0, tmp_path)
    with pytest.raises(InputError, match=r"source\.weights is not set"):
        ExportedConfig().open(0, tmp_path)


def test_an_archive_of_another_version_says_what_is_missing(
    programs: dict[str, Path], tmp_path: Path
) -> None:
    with zipfile.ZipFile(programs["four"]) as old, zipfile.ZipFile(tmp_path / "g.pt2", "w") as new:
        for name in old.namelist():
            if "weights_config" not in name:
                new.writestr(name, old.read(name))
    with pytest.raises(InputError, match=r"there is no 'data/weights/model_weights_config\.json' in it"):
        _open(tmp_path / "g.pt2")
