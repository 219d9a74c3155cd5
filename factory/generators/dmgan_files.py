"""DM-GAN's files: the official checkpoints, and ours made of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from configs.errors import InputError
from factory.generators.dmgan import DmganGenerator, TextEncoder
from factory.generators.found import Fact, Found, read_content
from factory.weights import state_dict_in

GENERATOR = "dmgan"
TEXT_ENCODER = "damsm-text"

WANTED_GENERATOR = "DM-GAN's generator (bird_DMGAN.pth), 119 keys"
WANTED_TEXT_ENCODER = "DAMSM's text encoder (text_encoder200.pth), 9 keys"

_WRAPPERS = ("netG", "text_encoder", "state_dict", "model")
_MARKS = {
    GENERATOR: ("ca_net.fc.weight", "h_net2.A.weight"),
    TEXT_ENCODER: ("encoder.weight", "rnn.weight_hh_l0_reverse"),
}
_WANTED = {GENERATOR: WANTED_GENERATOR, TEXT_ENCODER: WANTED_TEXT_ENCODER}


def recognise(content: Any, path: Path) -> Found | None:
    """DM-GAN's generator or DAMSM's text encoder, see `factory.generators.found`."""
    if (
        isinstance(content, list)
        and len(content) == 4
        and isinstance(content[3], Mapping)
        and "<end>" in content[3]
    ):
        raise InputError(
            f"{path}: holds DM-GAN's captions, no weights: wanted --to NAME.json for their words"
        )
    family = _family_of(content)
    if family is None:
        return None
    state = state_dict_in(content, path, _WRAPPERS, _WANTED[family])
    if family == GENERATOR:
        return Found(family, *_described(_generator(state, path, fix_mask=False)))
    return Found(family, *_described(_text_encoder(state, path)))


def load_generator(path: Path, fix_mask: bool = False) -> DmganGenerator:
    """The generator in an official file or in ours, in eval mode, on the CPU.

    No code that a file carries is run. Raises InputError, saying what was found, for anything else.
    """
    return _generator(_tensors_in(path, GENERATOR), path, fix_mask)


def load_text_encoder(path: Path) -> TextEncoder:
    """The text encoder, likewise."""
    return _text_encoder(_tensors_in(path, TEXT_ENCODER), path)


def _tensors_in(path: Path, family: str) -> dict[str, Tensor]:
    content = read_content(path, _WANTED[family])
    if not isinstance(content, Found):
        return state_dict_in(content, path, _WRAPPERS, _WANTED[family])
    if content.family != family:
        raise InputError(f"{path}: holds a network of family '{content.family}', wanted {_WANTED[family]}")
    return content.tensors


def _family_of(content: Any) -> str | None:
    """Whose keys these are, by two that nothing else has; AttnGAN's generator shares the others."""
    for name in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        return None
    names = {str(name).removeprefix("module.") for name in content}
    return next((family for family, marks in _MARKS.items() if names.issuperset(marks)), None)


def _generator(state: Mapping[str, Tensor], path: Path, fix_mask: bool) -> DmganGenerator:
    _refuse_broken(state, path, WANTED_GENERATOR)
    try:
        return DmganGenerator.from_state_dict(state, fix_mask)
    except ValueError as error:
        raise _misfit(state, path, WANTED_GENERATOR, error) from error


def _text_encoder(state: Mapping[str, Tensor], path: Path) -> TextEncoder:
    _refuse_broken(state, path, WANTED_TEXT_ENCODER)
    try:
        return TextEncoder.from_state_dict(state)
    except ValueError as error:
        raise _misfit(state, path, WANTED_TEXT_ENCODER, error) from error


def _described(network: DmganGenerator | TextEncoder) -> tuple[dict[str, Fact], dict[str, Tensor]]:
    if isinstance(network, DmganGenerator):
        facts: dict[str, Fact] = {**network.sizes._asdict(), "image_px": network.sizes_px[-1]}
    else:
        tokens, inputs = network.encoder.weight.shape
        facts = {"num_tokens": tokens, "num_inputs": inputs, "num_features": network.num_features}
    return facts, dict(network.state_dict())


def _refuse_broken(state: Mapping[str, Tensor], path: Path, wanted: str) -> None:
    broken = next((name for name, value in state.items() if not torch.isfinite(value).all()), None)
    if broken is not None:
        raise InputError(f"{path}: '{broken}' is not finite everywhere, wanted {wanted}")


def _misfit(state: Mapping[str, Tensor], path: Path, wanted: str, error: ValueError) -> InputError:
    first = next(iter(state), "none")
    return InputError(f"{path}: holds {len(state)} keys, the first '{first}': wanted {wanted} ({error})")
