"""What the training commands share: their arguments, and their settings beside a class's recipe."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from configs.entry import Parser
from configs.home import find_config, packaged_names
from configs.kinds import StrictModel
from configs.load import apply_overrides, read_yaml, validated
from factory.recipe import Recipe, load_recipe

_Settings = TypeVar("_Settings", bound=StrictModel)


def parse_training(
    argv: Sequence[str], *, command: str, description: str, examples: str, presets: str, folder: str
) -> argparse.Namespace:
    """``--class``, ``--preset``, ``--out`` and overrides; presets: folder of `configs` that holds them.

    folder: the default of ``--out``, for the help.
    """
    parser = Parser(command, description, examples)
    classes, known = (", ".join(packaged_names(name)) for name in ("classes", presets))
    whose = f"whose source gives the images: {classes}, or a YAML file"
    parser.add_argument("--class", dest="class_name", required=True, help=whose)
    parser.add_argument("--preset", default="light", help=f"settings: {known}, or a YAML file [light]")
    parser.add_argument("--out", type=Path, help=f"the training's folder [{folder}]")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings, or source.* of the class"
    )
    return parser.parse_intermixed_args(argv)


def load_settings(model: type[_Settings], presets: str, args: argparse.Namespace) -> tuple[Recipe, _Settings]:
    """The class's recipe with the overrides of ``source.``, the preset's settings with the others.

    Raises InputError.
    """
    of_source = [text for text in args.overrides if text.startswith("source.")]
    others = [text for text in args.overrides if not text.startswith("source.")]
    preset = read_yaml(find_config(presets, args.preset, "preset"))
    settings = validated(model, apply_overrides(preset, others), f"preset {args.preset}")
    return load_recipe(args.class_name, of_source), settings
