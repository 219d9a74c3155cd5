"""StyleGANs in the files of others, emulated: the same weights out of every format."""

import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from configs.errors import InputError
from factory.generators.found import Found, read_content, read_found, write_found
from factory.generators.stylegan1 import StyleGan1
from factory.generators.stylegan2 import StyleGan2
from factory.generators.stylegan_files import build_stylegan, load_stylegan

_WIDTHS = [4, 5, 5]


class Network:
    """In a pickle: ``dnnlib.tflib.network.Network``, whose source text would be run by its own code."""

    def __init__(self, variables, components=(), version=3, **static_kwargs) -> None:
        self._state = {
            "version": version,
            "name": "Gs",
            "static_kwargs": static_kwargs,
            "components": dict(components),
            "build_module_src": "raise SystemExit('this ran')",
            "build_func_name": "G_style",
            "variables": list(variables),
        }

    def __getstate__(self):
        return self._state


def _reconstruct_persistent_obj(meta):
    raise AssertionError("this ran")


class _Persistent:
    """In a pickle: a call of ``torch_utils.persistence._reconstruct_persistent_obj``."""

    def __init__(self, class_name: str, **state) -> None:
        self._meta = {"type": "class", "version": 6, "class_name": class_name, "state": state}
        self._meta["module_src"] = "raise SystemExit('this ran')"

    def __reduce__(self):
        return _reconstruct_persistent_obj, (self._meta,)


@pytest.fixture
def official(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The authors' module names, as pickling looks them up; taken away again before anything is read."""
    for module in (
        "dnnlib",
        "dnnlib.tflib",
        "dnnlib.tflib.network",
        "torch_utils",
        "torch_utils.persistence",
    ):
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
    for item, module in (
        (Network, "dnnlib.tflib.network"),
        (_reconstruct_persistent_obj, "torch_utils.persistence"),
    ):
        monkeypatch.setattr(item, "__module__", module)
        setattr(sys.modules[module], item.__name__, item)
    yield


def _random(network: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(v.shape, generator=generator) for n, v in network.state_dict().items()}


def _tensors1() -> dict[str, Tensor]:
    return _random(StyleGan1(_WIDTHS, [4, 4, 3], 3, 0.01))


def _tensors2() -> dict[str, Tensor]:
    return _random(StyleGan2(_WIDTHS, [4, 4, 3], 3, 0.01, 1.0))


def _tf_name1(name: str) -> tuple[str, str]:
    """(component, variable) of StyleGAN's weights in TensorFlow, at 16 px."""
    group, *rest = name.split(".")
    if name == "mapping.w_avg":
        return "", "dlatent_avg"
    if group == "mapping":
        return "mapping", f"Dense{rest[0][2:]}/{rest[1]}"
    if name == "synthesis.const":
        return "synthesis", "4x4/Const/const"
    if rest[0].startswith("rgb"):
        return "synthesis", f"ToRGB_lod{16 // int(rest[0][3:]) // 2}/{rest[1]}"
    index = int(rest[0][5:])
    if rest[1] == "noise":
        return "synthesis", f"noise{index}"
    side = 4 << index // 2
    layer = ("Const", "Conv")[index] if index < 2 else ("Conv0_up", "Conv1")[index % 2]
    part = ".".join(rest[1:]).replace("style.", "StyleMod/").replace("noise_strength", "Noise/weight")
    return "synthesis", f"{side}x{side}/{layer}/{part}"


def _tf_name2(name: str) -> tuple[str, str]:
    """Likewise of StyleGAN2."""
    group, *rest = name.split(".")
    if group == "mapping":
        return _tf_name1(name)
    if name == "synthesis.b4.const":
        return "synthesis", "4x4/Const/const"
    side = int(rest[0][1:])
    if rest[-1] == "noise_const":
        return "synthesis", f"noise{max(0, 2 * side.bit_length() - 7 + int(rest[1][-1]))}"
    layer = {"conv0": "Conv0_up", "conv1": "Conv" if side == 4 else "Conv1", "torgb": "ToRGB"}[rest[1]]
    return "synthesis", f"{side}x{side}/{layer}/{'.'.join(rest[2:]).replace('affine.', 'mod_')}"


def _tf_value(name: str, value: Tensor, is_second: bool) -> np.ndarray:
    array = value.numpy()
    if is_second and name.endswith("conv0.weight"):
        array = array[:, :, ::-1, ::-1]
    if is_second and name.endswith("affine.bias"):
        array = array - 1
    if is_second and name.endswith(("noise_const", "const")):
        array = array.reshape(1, -1, *array.shape[-2:])
    if name.endswith("weight"):
        return array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)
    return array


def _tf_pickle(tensors: Mapping[str, Tensor], is_second: bool, extra=(), **static_kwargs) -> bytes:
    parts: dict[str, list] = {"": [("lod", np.float32(0)), *extra], "mapping": [], "synthesis": []}
    for name, value in tensors.items():
        part, variable = (_tf_name2 if is_second else _tf_name1)(name)
        parts[part].append((variable, _tf_value(name, value, is_second)))
    inner = {part: Network(parts[part]) for part in ("mapping", "synthesis")}
    version = 4 if is_second else 3
    network = Network(parts[""], inner, version, **static_kwargs)
    return pickle.dumps((Network([]), Network([]), network))


def _torch_pickle(tensors: Mapping[str, Tensor], clamp: float | None, **init_kwargs) -> bytes:
    """Nested modules as the authors' class leaves them."""

    def module(prefix: str) -> _Persistent:
        own = {n.removeprefix(prefix): v for n, v in tensors.items() if n.startswith(prefix)}
        inner = sorted({name.partition(".")[0] for name in own if "." in name})
        state = {
            "training": False,
            "_parameters": {n: nn.Parameter(v) for n, v in own.items() if "." not in n and "noise" not in n},
            "_buffers": {n: v for n, v in own.items() if "." not in n and "noise" in n} | {"none": None},
            "_modules": {name: module(f"{prefix}{name}.") for name in inner},
            "_non_persistent_buffers_set": set(),
        }
        if prefix.endswith(("conv0.", "conv1.")):
            state["conv_clamp"] = clamp
        return _Persistent("Generator" if not prefix else "Part", **state, _init_kwargs=init_kwargs)

    whole = {"G": None, "D": None, "G_ema": module(""), "training_set_kwargs": {"resolution": 16}}
    return pickle.dumps(whole, protocol=3)


def _genforce(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    state = {"synthesis.lod": torch.zeros(()), "synthesis.layer2.blur.kernel": torch.zeros(4, 1, 3, 3)}
    for name, value in tensors.items():
        name = name.replace("mapping.w_avg", "truncation.w_avg").replace("mapping.fc", "mapping.dense")
        name = name.replace("noise_strength", "apply_noise.weight").replace(
            "synthesis.const", "synthesis.layer0.const"
        )
        name = name + "!" if name.endswith(".noise") else name
        name = name.replace(".noise!", ".apply_noise.noise")
        for index in (2, 1, 0):
            name = name.replace(f"rgb{4 << index}.", f"output{index}.")
        state[name] = value
    return state


def _saved(tmp_path: Path, content: bytes, name: str = "network.pkl") -> Path:
    path = tmp_path / name
    path.write_bytes(content)
    return path


def _assert_same(found: Found, family: str, tensors: Mapping[str, Tensor]) -> None:
    assert found.family == family
    assert found.tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        torch.testing.assert_close(found.tensors[name], value, rtol=0, atol=1e-6)
    sizes = {"resolution": 16, "z_dim": 4, "w_dim": 5, "image_channels": 3}
    assert sizes.items() <= found.facts.items()
    images = build_stylegan(found)(torch.ones(1, 4))
    assert images.shape == (1, 3, 16, 16) and images.isfinite().all()


@pytest.mark.usefixtures("official")
def test_a_tensorflow_pickle_of_stylegan(tmp_path: Path) -> None:
    path = _saved(tmp_path, _tf_pickle(_tensors1(), is_second=False, resolution=16))
    found = load_stylegan(path)
    _assert_same(found, "stylegan1", _tensors1())
    assert (found.facts["psi"], found.facts["cutoff"], found.facts["num_layers"]) == (0.7, 8, 6)


@pytest.mark.usefixtures("official")
def test_a_tensorflow_pickle_of_stylegan2(tmp_path: Path) -> None:
    content = _tf_pickle(_tensors2(), is_second=True, truncation_psi=np.float64(0.4), mapping_lrmul=0.02)
    found = load_stylegan(_saved(tmp_path, content))
    _assert_same(found, "stylegan2", _tensors2())
    assert found.facts["psi"] == 0.4 and "cutoff" not in found.facts and found.facts["mapping_rate"] == 0.02


@pytest.mark.usefixtures("official")
@pytest.mark.parametrize("clamp", [None, 256])
def test_a_pytorch_pickle_of_stylegan2(tmp_path: Path, clamp: float | None) -> None:
    taps = torch.tensor([1.0, 3, 3, 1]) / 8
    extra = {"synthesis.b8.conv0.resample_filter": torch.outer(taps, taps)}
    found = load_stylegan(_saved(tmp_path, _torch_pickle(_tensors2() | extra, clamp, z_dim=4)))
    _assert_same(found, "stylegan2", _tensors2())
    assert found.facts["conv_clamp"] == (3e38 if clamp is None else 256)


def test_a_state_dict_of_genforce(tmp_path: Path) -> None:
    path = tmp_path / "stylegan.pth"
    torch.save({"generator": {}, "generator_smooth": _genforce(_tensors1())}, path)
    _assert_same(load_stylegan(path), "stylegan1", _tensors1())


def test_our_own_file_gives_back_what_was_found(tmp_path: Path) -> None:
    facts = {"resolution": 16, "z_dim": 4, "w_dim": 5, "image_channels": 3, "psi": 0.7}
    path = tmp_path / "a.safetensors"
    digests = {write_found(Found("stylegan2", facts, _tensors2()), path) for _ in range(8)}
    assert len(digests) == 1 and list(tmp_path.iterdir()) == [path]
    assert read_found(path).facts == facts
    _assert_same(load_stylegan(path), "stylegan2", _tensors2())


@pytest.mark.usefixtures("official")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: _tf_pickle(_tensors1(), False, nonlinearity="relu"), "nonlinearity is 'relu'"),
        (
            lambda: _tf_pickle(_tensors1(), False, extra=[("mapping/LabelConcat/weight", np.zeros((2, 4)))]),
            "conditional on a class",
        ),
        (
            lambda: _torch_pickle(_tensors2() | {"mapping.embed.weight": torch.zeros(5, 2)}, None),
            "conditional on a class",
        ),
        (
            lambda: _torch_pickle(_tensors2() | {"synthesis.b8.skip.weight": torch.zeros(4, 4, 1, 1)}, None),
            "architecture is resnet",
        ),
        (
            lambda: _torch_pickle(_tensors2(), None, mapping_kwargs={"activation": "relu"}),
            "activation is 'relu'",
        ),
        (
            lambda: _torch_pickle(_tensors2() | {"synthesis.b4.resample_filter": torch.ones(4, 4)}, None),
            "not the filter 1 3 3 1",
        ),
        (
            lambda: _torch_pickle(_tensors2() | {"mapping.w_avg": torch.full((5,), torch.nan)}, None),
            "'mapping.w_avg' is not finite",
        ),
        (
            lambda: _torch_pickle({n: v for n, v in _tensors2().items() if "b8.conv1.bias" not in n}, None),
            "b8.conv1.bias",
        ),
        (lambda: _tf_pickle({"mapping.w_avg": torch.zeros(5)}, False), "looks like a StyleGAN"),
    ],
)
def test_variants_and_damage_are_refused_by_name(tmp_path: Path, make: Callable[[], bytes], why: str) -> None:
    path = _saved(tmp_path, make())
    with pytest.raises(InputError, match=why) as error:
        load_stylegan(path)
    assert str(error.value).startswith(f"{path}: looks like a StyleGAN, but: ") and "\n" not in str(
        error.value
    )


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (pickle.dumps({"ixtoword": {1: "bird"}}), "captions.pkl"),
        (pickle.dumps([1, 2]), "list.pkl"),
        (b"this is text", "text.pkl"),
        (b"", "empty.pkl"),
    ],
)
def test_foreign_files_are_refused(tmp_path: Path, content: bytes, name: str) -> None:
    with pytest.raises(InputError, match="wanted a StyleGAN's weights"):
        load_stylegan(_saved(tmp_path, content, name))


def test_a_header_of_ours_that_is_broken_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_found(Found("stylegan2", {}, {"a": torch.zeros(1)}), path)
    path.write_bytes(path.read_bytes().replace(b'"facts":"{}"', b'"facts":"{("'))
    with pytest.raises(InputError, match="broken header"):
        read_content(path, "anything")
