"""The page of a set: what it shows, that it stands alone, that equal sets have equal pages."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from factory.set_page import PAGE_NAME, STATS_NAME, _tick_edges, main, page_of, write_page
from shards.errors import ShardError
from shards.manifest import Kind, Manifest, fingerprint_of, shard_name, write_manifest
from shards.reader import ShardSet
from shards.records import BackgroundRecord, CropRecord, Record
from shards.stats import stats_of
from shards.store import open_store
from shards.writer import write_shard

from .conftest import make_photo

RECIPE = {"settings": {"label": "a <b> & c", "seed": 3}, "source": {"sha256": "0" * 64}}


def record(kind: Kind, index: int) -> Record:
    photo = make_photo(index, 64 + index % 7)
    if kind == "backgrounds":
        return BackgroundRecord(f"b{index:03d}", photo[: 40 + index % 9], {"file": "x.jpg"})
    mask = np.zeros(photo.shape[:2], np.uint8)
    cv2.circle(mask, (32, 32), 20 + index % 8, 255, -1)
    scores = {"confidence": round(0.5 + index / 200, 4), "psi": 0.7}
    return CropRecord(f"c{index:03d}", "a <b> & c" if index % 4 else "d", photo, mask, scores)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two equal crop sets, a background set and an empty unfinished one, each with its page."""
    root = tmp_path_factory.mktemp("sets")
    plans: dict[str, tuple[Kind, int]] = {
        "crops": ("crops", 60),
        "again": ("crops", 60),
        "backgrounds": ("backgrounds", 9),
        "empty": ("crops", 0),
    }
    for name, (kind, count) in plans.items():
        store = open_store(root / name)
        records = [record(kind, index) for index in range(count)]
        drops = {"unsure": 7, "of_their_own": 30}
        shards = (write_shard(store, shard_name(kind, 0), records, dropped=drops, seen=count + 37),)
        classes = ("a <b> & c", "d") if kind == "crops" else ()
        complete = count > 0
        write_manifest(store, Manifest(kind, classes, fingerprint_of(RECIPE), RECIPE, shards, complete))
        assert main([str(root / name)]) == 0
    return {name: root / name for name in plans}


class Reader(HTMLParser):
    """Collects tags, checks that they nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += f" {data}"


def page(folder: Path) -> str:
    return (folder / PAGE_NAME).read_text()


@pytest.mark.parametrize("name", ["crops", "backgrounds", "empty"])
def test_the_page_is_sound_html_that_fetches_nothing(sets: dict[str, Path], name: str) -> None:
    read = Reader(page(sets[name]))
    assert not [tag for tag in read.open if tag not in ("rect", "path")]
    assert not {"script", "link", "iframe"} & {tag for tag, _ in read.tags}
    for tag, attributes in read.tags:
        if tag == "img":
            assert str(attributes["src"]).startswith("data:image/jpeg;base64,")
    assert {a["href"] for tag, a in read.tags if tag == "a"} <= {"stats.json", "manifest.json"}
    assert "url(" not in page(sets[name])
    assert "http" not in page(sets[name])


def test_equal_sets_have_equal_pages(sets: dict[str, Path]) -> None:
    for name in (PAGE_NAME, STATS_NAME):
        assert (sets["crops"] / name).read_bytes() == (sets["again"] / name).read_bytes()
    assert str(sets["crops"].parent) not in page(sets["crops"])


def test_stats_are_written_beside_the_page(sets: dict[str, Path]) -> None:
    found = ShardSet.open(sets["crops"])
    assert json.loads((sets["crops"] / STATS_NAME).read_text()) == stats_of(found)


def test_names_of_the_users_own_are_escaped(sets: dict[str, Path]) -> None:
    assert "<b>" not in page(sets["crops"])
    assert "a <b> & c, d" in Reader(page(sets["crops"])).text


def test_pictures_are_spread_over_the_set(sets: dict[str, Path]) -> None:
    keys = [a["title"] for tag, a in Reader(page(sets["crops"])).tags if tag == "img"]
    assert len(keys) == len(set(keys)) == 48
    assert len([1 for tag, _ in Reader(page(sets["backgrounds"])).tags if tag == "img"]) == 9


def test_every_measure_that_varies_is_drawn_and_the_others_said(sets: dict[str, Path]) -> None:
    text = page(sets["crops"])
    drawings = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL)]
    stats = json.loads((sets["crops"] / STATS_NAME).read_text())
    assert len(drawings) == len(stats["measures"]) - 1 == 6
    assert "The same in all that were measured: psi 0.7." in text
    for drawing in drawings:
        bars = [rect for rect in drawing.iter("rect") if rect.get("fill") == "var(--bar)"]
        assert max(float(bar.get("height", 0)) for bar in bars) == 72
        assert all(0 <= float(bar.get("x", -1)) <= 240 for bar in bars)


def test_drops_are_listed_with_what_they_mean_most_first(sets: dict[str, Path]) -> None:
    text = " ".join(Reader(page(sets["crops"])).text.split())
    assert "kept 60 62 % of_their_own 30 31 % unsure the segmenter was not sure enough 7 7.2 %" in text


def test_classes_are_counted(sets: dict[str, Path]) -> None:
    text = " ".join(Reader(page(sets["crops"])).text.split())
    assert "class records share a <b> & c 45 75 % d 15 25 %" in text


def test_the_recipe_is_shown_as_yaml(sets: dict[str, Path]) -> None:
    assert "settings:\n  label: a <b> & c\n  seed: 3\n" in Reader(page(sets["crops"])).text


def test_an_unfinished_set_says_so(sets: dict[str, Path]) -> None:
    assert "The set is not finished" in page(sets["empty"])
    assert "The set is not finished" not in page(sets["crops"])


def test_only_a_set_with_its_recipe_file_can_be_grown_by_it(sets: dict[str, Path]) -> None:
    found = ShardSet.open(sets["again"])
    stats = stats_of(found)
    assert "recipe.yaml" not in page_of(found, stats)
    found.store.write("recipe.yaml", b"label: x\n")
    write_page(found.store, found, stats)
    assert "--class SET/recipe.yaml" in page(sets["again"])
    found.store.remove("recipe.yaml")
    write_page(found.store, found, stats)


def test_a_smaller_sample_is_said(sets: dict[str, Path]) -> None:
    found = ShardSet.open(sets["crops"])
    assert "From a sample of 20 records, of 1 shard at even steps" in page_of(found, stats_of(found, 20))


def test_a_folder_that_is_no_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="not a crop or background set"):
        main([str(tmp_path)])


@pytest.mark.parametrize("bins", range(1, 25))
def test_axes_have_few_round_ticks(bins: int) -> None:
    ticks = _tick_edges(0.05, 0.05, bins)
    assert 1 <= len(ticks) <= 7
    assert all(0.05 <= tick <= 0.05 * (bins + 1) + 1e-9 for tick in ticks)
