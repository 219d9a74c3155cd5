from pathlib import Path

import pytest

from configs.reference import reference

_PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(scope="module")
def page() -> str:
    return reference()


def test_the_page_in_the_docs_is_what_the_models_say(page) -> None:
    assert _PAGE.read_text() == page, "python -m configs.reference > docs/configuration.md"


@pytest.mark.parametrize(
    "row",
    [
        "| `shard_size` | integer, ≥ 1 and ≤ 10000 | `256` |",
        "| `centre_crop_frac` | number, > 0 and ≤ 1 | `1.0` |",
        "| `num_real` | list of integer, ≥ 1 | `[10, 50]` |",
        "| `schedule` | `constant`, `cosine`, `multistep` | `constant` |",
        "| `pretrain` | [TrainingConfig](#trainingconfig) | its own |",
        "| `finetune` | [TrainingConfig](#trainingconfig) or null | `null` |",
    ],
)
def test_keys_have_types_limits_and_defaults(page, row) -> None:
    assert row in page


def test_every_model_and_kind_has_one_section(page) -> None:
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert len(set(headings)) == len(headings)
    for wanted in (
        "### Segmenter `grabcut`",
        "### Dataset `cub`",
        "### Detector `retinaface`",
        "### CropConfig",
    ):
        assert wanted in headings
