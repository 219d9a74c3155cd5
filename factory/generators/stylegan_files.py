"""StyleGANs in the files in which others publish them, brought to our names; facts of the formats only.

Known are NVlabs' TensorFlow pickles of StyleGAN and StyleGAN2 (a tuple G, D, Gs), their PyTorch pickles of
StyleGAN2-ADA and StyleGAN3 (a dict with G_ema), genforce's ``.pth`` of StyleGAN, state dicts with the
names of NVlabs' PyTorch code, and our own files.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from configs.errors import InputError
from factory.generators.foreign_pickle import Array, TfNetwork, TorchModule
from factory.generators.found import Fact, Found, read_content
from factory.generators.stylegan1 import StyleGan1
from factory.generators.stylegan2 import FILTER, StyleGan2
from factory.generators.stylegan3 import LAYOUT, StyleGan3
from factory.generators.stylegan_layers import num_channels

WANTED = "a StyleGAN's weights"

StyleGan = StyleGan1 | StyleGan2 | StyleGan3

_NETWORKS: dict[str, type[StyleGan1 | StyleGan2 | StyleGan3]] = {
    "stylegan1": StyleGan1,
    "stylegan2": StyleGan2,
    "stylegan3": StyleGan3,
}
_NO_CLAMP = 3e38
_LAYER_OFFSETS = {"Const": 0, "Conv0_up": 0, "Conv": 1, "Conv1": 1}
_SG1_PARTS = {
    "weight": "weight",
    "bias": "bias",
    "Noise/weight": "noise_strength",
    "StyleMod/weight": "style.weight",
    "StyleMod/bias": "style.bias",
}
_SG2_PARTS = {
    "weight": "weight",
    "bias": "bias",
    "noise_strength": "noise_strength",
    "mod_weight": "affine.weight",
    "mod_bias": "affine.bias",
}
_SG2_LAYERS = {"Conv": "conv1", "Conv1": "conv1", "Conv0_up": "conv0", "ToRGB": "torgb"}
_GENFORCE = (
    (r"truncation\.w_avg", "mapping.w_avg"),
    (r"mapping\.dense(\d+)\.(weight|bias)", r"mapping.fc\1.\2"),
    (r"synthesis\.layer0\.const", "synthesis.const"),
    (r"(synthesis\.layer\d+\.(?:weight|bias|style\.weight|style\.bias))", r"\1"),
    (r"(synthesis\.layer\d+)\.apply_noise\.noise", r"\1.noise"),
    (r"(synthesis\.layer\d+)\.apply_noise\.weight", r"\1.noise_strength"),
)


def load_stylegan(path: Path) -> Found:
    """The StyleGAN in a file of any of these formats. Raises InputError for anything else."""
    content = read_content(path, WANTED)
    found = recognise(content, path)
    if found is None:
        other = f"a {content.family}" if isinstance(content, Found) else "something else"
        raise InputError(f"{path}: holds {other}, wanted {WANTED}")
    return found


def build_stylegan(found: Found) -> StyleGan:
    """The generator, in eval mode. Raises ValueError when the weights do not fit its family."""
    return _NETWORKS[found.family].from_tensors(found.tensors, found.facts)


def recognise(content: Any, path: Path) -> Found | None:
    """A StyleGAN of any of these formats, checked by building it; None for something else.

    Raises InputError for one that is broken, or of a variant that is not supported (conditional on classes,
    no skip connections).
    """
    try:
        found = _read(content)
        if found is not None:
            build_stylegan(found)
            _refuse_broken(found)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        raise InputError(f"{path}: looks like a StyleGAN, but: {error}") from error
    return found


def _read(content: Any) -> Found | None:
    if isinstance(content, Found):
        return content if content.family in _NETWORKS else None
    if isinstance(content, tuple) and content and all(isinstance(part, TfNetwork) for part in content):
        return _from_tensorflow(content[-1])
    if not isinstance(content, Mapping):
        return None
    if isinstance(content.get("G_ema"), TorchModule):
        return _from_module(content["G_ema"])
    state = content.get("generator_smooth", content.get("G_ema", content))
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        return None
    if "truncation.w_avg" in state and "synthesis.layer0.const" in state:
        return _stylegan1(_from_genforce(state), {}, "genforce state dict")
    if "synthesis.b4.const" in state or "synthesis.input.freqs" in state:
        return _from_torch_names(dict(state), {}, "PyTorch state dict")
    return None


def _from_tensorflow(network: TfNetwork) -> Found:
    arrays = dict(network.arrays())
    given = network.static_kwargs
    for setting in ("nonlinearity", "mapping_nonlinearity"):
        if given.get(setting, "lrelu") != "lrelu":
            raise ValueError(f"its {setting} is {given[setting]!r}, wanted lrelu")
    if any("Label" in name for name in arrays):
        raise ValueError("it is conditional on a class, wanted one without labels")
    facts: dict[str, Fact] = {"mapping_rate": float(given.get("mapping_lrmul", 0.01))}
    source = f"NVlabs TensorFlow pickle, version {network.version}"
    if "synthesis/4x4/Conv/mod_weight" in arrays:
        tensors = {new: _sg2_tensor(new, value) for old, value in arrays.items() if (new := _sg2_name(old))}
        return _stylegan2(tensors, facts | _truncation(given, 0.5, None) | _clamp(given), source)
    last = max(int(name.split("x")[0].rpartition("/")[2]) for name in arrays if re.search(r"/\d+x\d+/", name))
    named = {new: value for old, value in arrays.items() if (new := _sg1_name(old, last))}
    tensors = {name: _sg1_tensor(name, value) for name, value in named.items()}
    return _stylegan1(tensors, facts | _truncation(given, 0.7, 8), source)


def _truncation(given: Mapping[str, Any], psi: float, cutoff: int | None) -> dict[str, Fact]:
    """The network's default truncation, where it has one."""
    found = {"psi": given.get("truncation_psi", psi), "cutoff": given.get("truncation_cutoff", cutoff)}
    return {name: value for name, value in found.items() if value is not None}


def _clamp(given: Mapping[str, Any]) -> dict[str, Fact]:
    value = given.get("conv_clamp")
    return {} if value is None else {"conv_clamp": float(value)}


def _sg1_name(name: str, image_px: int) -> str | None:
    if m := re.fullmatch(r"synthesis/noise(\d+)", name):
        return f"synthesis.layer{m[1]}.noise"
    if m := re.fullmatch(r"synthesis/ToRGB_lod(\d+)/(weight|bias)", name):
        return f"synthesis.rgb{image_px >> int(m[1])}.{m[2]}"
    if m := re.fullmatch(r"synthesis/(\d+)x\d+/(Const|Conv|Conv0_up|Conv1)/(.+)", name):
        if m[3] == "const":
            return "synthesis.const"
        index = 2 * (int(m[1]).bit_length() - 3) + _LAYER_OFFSETS[m[2]]
        return f"synthesis.layer{index}.{_SG1_PARTS[m[3]]}"
    return _mapping_name(name)


def _sg2_name(name: str) -> str | None:
    if m := re.fullmatch(r"synthesis/noise(\d+)", name):
        index = int(m[1])
        return f"synthesis.b{1 << (index + 5) // 2}.conv{1 - index % 2}.noise_const"
    if m := re.fullmatch(r"synthesis/(\d+)x\d+/(Conv|Conv0_up|Conv1|ToRGB)/(.+)", name):
        return f"synthesis.b{m[1]}.{_SG2_LAYERS[m[2]]}.{_SG2_PARTS[m[3]]}"
    return "synthesis.b4.const" if name == "synthesis/4x4/Const/const" else _mapping_name(name)


def _mapping_name(name: str) -> str | None:
    """None: a variable that inference has no use for."""
    if m := re.fullmatch(r"mapping/Dense(\d+)/(weight|bias)", name):
        return f"mapping.fc{m[1]}.{m[2]}"
    return "mapping.w_avg" if name == "dlatent_avg" else None


def _sg1_tensor(name: str, value: Array) -> Tensor:
    """TensorFlow's kernels are (height, width, in, out), its matrices (in, out)."""
    if name.endswith("weight"):
        value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    return torch.from_numpy(np.array(value, np.float32, order="C"))


def _sg2_tensor(name: str, value: Array) -> Tensor:
    """Doubling kernels are stored unflipped, and style scales without the 1 that they are around."""
    if name.endswith(".conv0.weight"):
        value = value[::-1, ::-1]
    if name.endswith("noise_const"):
        value = value[0, 0]
    if name.endswith("affine.bias"):
        value = value + 1
    return _sg1_tensor(name, value[0] if name.endswith(".const") else value)


def _from_genforce(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if m := re.fullmatch(r"synthesis\.output(\d+)\.(weight|bias)", name):
            tensors[f"synthesis.rgb{4 << int(m[1])}.{m[2]}"] = value
        for pattern, replacement in _GENFORCE:
            if m := re.fullmatch(pattern, name):
                tensors[m.expand(replacement)] = value
    return tensors


def _from_module(module: TorchModule) -> Found:
    """The settings of an object of NVlabs' code, beside its tensors."""
    given = module.init_kwargs
    given = given | dict(given.get("synthesis_kwargs", {}))
    mapping = dict(given.get("mapping_kwargs", {}))
    for setting in (given.get("activation", "lrelu"), mapping.get("activation", "lrelu")):
        if setting != "lrelu":
            raise ValueError(f"its activation is {setting!r}, wanted lrelu")
    facts: dict[str, Fact] = {"mapping_rate": float(mapping.get("lr_multiplier", 0.01))}
    facts |= {name: float(given[name]) for name in LAYOUT if given.get(name) is not None}
    facts |= {"conv_clamp": _clamp_of(module)}
    return _from_torch_names(dict(module.tensors()), facts, f"NVlabs PyTorch pickle, {module.class_name}")


def _clamp_of(module: TorchModule) -> float:
    """The limit that its layers really have; the default changed between versions of the code."""
    found = [part.state["conv_clamp"] for part in module.modules() if "conv_clamp" in part.state]
    return _NO_CLAMP if not found or found[0] is None else float(found[0])


def _from_torch_names(tensors: dict[str, Tensor], facts: dict[str, Fact], source: str) -> Found:
    if "mapping.embed.weight" in tensors:
        raise ValueError("it is conditional on a class, wanted one without labels")
    if "synthesis.input.freqs" in tensors:
        return _stylegan3(tensors, facts, source)
    if any(".skip." in name for name in tensors):
        raise ValueError("its architecture is resnet, wanted skip")
    wanted = torch.tensor(FILTER)
    for name in [name for name in tensors if name.endswith("resample_filter")]:
        if not torch.allclose(tensors.pop(name).float(), torch.outer(wanted, wanted)):
            raise ValueError(f"'{name}' is not the filter 1 3 3 1")
    return _stylegan2(tensors, facts, source)


def _stylegan1(tensors: dict[str, Tensor], facts: Mapping[str, Fact], source: str) -> Found:
    num_layers = sum(name.endswith(".noise_strength") for name in tensors)
    truncation: dict[str, Fact] = {"psi": 0.7, "cutoff": 8}
    sizes = _sizes(tensors, num_layers, 2 << num_layers // 2, "synthesis.rgb4.weight")
    return Found("stylegan1", truncation | dict(facts) | sizes | {"source": source}, tensors)


def _stylegan2(tensors: dict[str, Tensor], facts: Mapping[str, Fact], source: str) -> Found:
    num_layers = sum(name.endswith(".noise_strength") for name in tensors)
    sizes = _sizes(tensors, num_layers, 2 << (num_layers + 1) // 2, "synthesis.b4.torgb.weight")
    facts = {name: value for name, value in facts.items() if name not in LAYOUT or name == "conv_clamp"}
    return Found("stylegan2", facts | sizes | {"source": source}, tensors)


def _stylegan3(tensors: dict[str, Tensor], facts: Mapping[str, Fact], source: str) -> Found:
    names = [m for name in tensors if (m := re.match(r"synthesis\.L(\d+)_(\d+)_\d+\.weight", name))]
    last = max(names, key=lambda m: int(m[1]))
    sizes = _sizes(tensors, len(names) - 1, int(last[2]), last[0])
    return Found("stylegan3", {**LAYOUT, **facts, **sizes, "source": source}, tensors)


def _sizes(tensors: Mapping[str, Tensor], num_layers: int, resolution: int, rgb: str) -> dict[str, Fact]:
    """What a reader of the printed facts looks for."""
    return {
        "resolution": resolution,
        "z_dim": tensors["mapping.fc0.weight"].shape[1],
        "w_dim": tensors["mapping.w_avg"].shape[0],
        "num_layers": num_layers,
        "image_channels": num_channels(tensors, rgb),
    }


def _refuse_broken(found: Found) -> None:
    broken = next((name for name, value in found.tensors.items() if not value.isfinite().all()), None)
    if broken is not None:
        raise ValueError(f"'{broken}' is not finite everywhere")
