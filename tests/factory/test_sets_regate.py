"""The gate applied again says what it would have said in a build."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from configs.errors import InputError
from factory.build import main as build
from factory.managing.regating import LIMITS
from factory.quality import QualityConfig, judge
from factory.sets import main
from factory.stages import Segmentation
from shards.manifest import Manifest
from shards.raw import read_raw
from shards.reader import ShardSet

_RECIPE = """
label: blob
source: {kind: images}
segmenter: {kind: grabcut}
quality: {duplicate_bits: null, min_confidence: 0.05, max_border_frac: 1, min_main_share: 0}
shard_size: 8
"""
_STRICT = [
    "quality.min_confidence=0.99725",
    "quality.min_area_frac=0.11125",
    "quality.max_area_frac=0.21055",
    "quality.max_border_frac=0.0517",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """32 ellipses on noise, some faint, some cut by the border."""
    folder = tmp_path_factory.mktemp("hard")
    for number in range(32):
        rng = np.random.default_rng([3, number])
        photo = rng.integers(0, 120, (96, 96, 3), dtype=np.uint8)
        centre, axes = rng.integers(20, 76, 2), rng.integers(14, 28, 2)
        colour = [int(value) for value in rng.integers(90, 255, 3)]
        cv2.ellipse(photo, centre.tolist(), axes.tolist(), float(rng.uniform(0, 180)), 0, 360, colour, -1)
        cv2.imwrite(str(folder / f"{number:03d}.png"), photo)
    return folder


@pytest.fixture
def make(tmp_path: Path, photos: Path):
    """make(name, *overrides): a build of the photos in 4 shards."""
    (tmp_path / "blob.yaml").write_text(_RECIPE)

    def run(name: str, *overrides: str) -> Path:
        out = ["--out", str(tmp_path / name), "--ray", "off"]
        build(["--class", str(tmp_path / "blob.yaml"), f"source.root={photos}", *out, *overrides])
        return tmp_path / name

    return run


def _contents(folder: Path) -> list[list[bytes]]:
    """Of each record, less its key."""
    found = ShardSet.open(folder)
    records = [record for entry in found.manifest.shards for record in read_raw(found.store, entry)]
    return [[bytes(member) for member in record.members.values()] for record in records]


def _counts(manifest: Manifest) -> list[tuple[int, object, object]]:
    return [(entry.seen, entry.labels, entry.dropped) for entry in manifest.shards]


def test_stricter_limits_keep_what_a_strict_build_keeps(make, tmp_path) -> None:
    loose, strict = make("loose"), make("strict", *_STRICT)
    main(["regate", str(loose), *_STRICT, "--out", str(tmp_path / "out")])
    assert 0 < len(_contents(strict)) < len(_contents(loose)) - 4
    assert _contents(tmp_path / "out") == _contents(strict)
    ours, theirs = (ShardSet.open(place).manifest for place in (tmp_path / "out", strict))
    assert _counts(ours) == _counts(theirs)
    assert {"unsure", "too_small", "too_large", "touches_border"} <= {
        name for entry in ours.shards for name in entry.dropped
    }


def test_a_score_on_its_limit_passes_as_in_the_gate() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[0:30, 20:50] = mask[40:44, 30:34] = 255
    scores = dict(judge(Segmentation(mask, 0.625), QualityConfig()).scores)
    for limit in LIMITS:
        assert not limit.refuses(scores[limit.score], scores[limit.score]), limit.name
    at_them = {limit.name: scores[limit.score] for limit in LIMITS}
    assert judge(Segmentation(mask, 0.625), QualityConfig.model_validate(at_them)).keep


def test_a_looser_limit_is_refused_also_after_merging_and_regating(make, tmp_path) -> None:
    loose, out = make("loose"), ["--out", str(tmp_path / "out")]
    main(["regate", str(loose), "quality.max_area_frac=0.2", "--out", str(tmp_path / "small")])
    main(["merge", str(tmp_path / "all"), str(loose), str(tmp_path / "small")])
    with pytest.raises(InputError, match=r"max_area_frac: found 0\.21, .*all was gated at 0\.2 and"):
        main(["regate", str(tmp_path / "all"), "quality.max_area_frac=0.21", *out])
    assert main(["regate", str(tmp_path / "all"), "quality.max_area_frac=0.19", *out]) == 0


def test_whole_frames_pass_as_they_do_in_a_build(make, tmp_path) -> None:
    whole = make("whole", "segmenter.kind=whole")
    main(["regate", str(whole), "quality.max_area_frac=0.5", "--out", str(tmp_path / "out")])
    assert _contents(tmp_path / "out") == _contents(whole)


def test_a_limit_on_what_the_records_do_not_hold_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match=r"has no side_px, which quality\.min_side_px needs"):
        main(
            [
                "regate",
                "embedded/birds-held-out",
                "quality.min_side_px=20",
                "--out",
                str(tmp_path / "out"),
            ]
        )


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("quality.duplicate_bits=2", "wanted the command dedupe"),
        ("quality.min_confidnce=0.9", "did you mean 'min_confidence'"),
        ("quality.min_confidence=2", "quality.min_confidence: found 2"),
        ("seed=3", "unknown key 'seed', known: quality"),
    ],
)
def test_what_is_no_limit_of_a_score_is_refused(tmp_path, limit, message) -> None:
    with pytest.raises(InputError, match=message):
        main(["regate", "embedded/birds-held-out", limit, "--out", str(tmp_path / "out")])


def test_backgrounds_have_no_gate(tmp_path) -> None:
    with pytest.raises(InputError, match="holds backgrounds, wanted crops"):
        main(["regate", "embedded/backgrounds", "quality.min_confidence=0.9", "--out", str(tmp_path / "out")])
