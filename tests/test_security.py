"""What a file or a server of a stranger may not do.

Beside this file: manifests (tests/shards/test_manifest.py), names (test_store.py, test_records.py), pickles
one by one (tests/factory/test_foreign_pickle.py, test_captions.py, test_exported.py, test_redo_networks.py),
photos that are bombs (test_photos.py).
"""

import ast
import hashlib
import importlib.util
import io
import json
import os
import pickle
import re
import shlex
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from configs.entry import run
from configs.errors import InputError
from configs.load import parse_yaml, read_yaml
from factory.generators.captions import read_vocabulary
from factory.generators.exported_program import read_exported_program
from factory.generators.found import read_content
from factory.generators.torchscript import read_torchscript
from factory.redo.distill import teacher_masks
from factory.training.checkpoint import load_newest
from factory.weights import read_weights
from shards.codec import decode, encode
from shards.errors import ShardError
from shards.manifest import fingerprint_of, read_manifest, write_manifest
from shards.reader import ShardSet
from shards.records import BackgroundRecord
from shards.store import open_store
from tests.faults.s3_proxy import BUCKET, s3_server
from tests.mistakes_world import HALF_WRITTEN, Plants, make_set, make_world, picture
from trainer.boxed_data.matlab import read_mat
from trainer.evaluation.detections_file import read_detections
from trainer.networks.weights import read_state_dict
from trainer.training.checkpoint import load_checkpoint

_ROOT = Path(__file__).parents[1]
_PACKAGES = ("configs", "factory", "shards", "trainer")
_KEY, _SECRET = "AKIAPLANTEDKEY000001", "plantedSECRETplantedSECRETplantedSECRET0"


# Archive members


def members_that_lead_out() -> dict[str, tarfile.TarInfo]:
    """Tar members that a careless `extractall` would put elsewhere, or make into something else."""
    found = {
        name: tarfile.TarInfo(name) for name in ("../../planted.json", "/tmp/planted.json", "a/../b.json")
    }
    for name, kind in {
        "000000.json": tarfile.SYMTYPE,
        "000001.json": tarfile.LNKTYPE,
        "000002.json": tarfile.CHRTYPE,
        "000003.json": tarfile.FIFOTYPE,
        "000004.json": tarfile.DIRTYPE,
    }.items():
        found[f"a member of type {kind.decode()}"] = info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/hostname"
    return found


def with_shard(folder: Path, content: bytes) -> None:
    """Put these bytes in the place of the first shard, with a manifest that vouches for them."""
    store = open_store(folder)
    manifest = read_manifest(store)
    first, *others = manifest.shards
    digest = hashlib.sha256(content).hexdigest()
    store.write(first.name, content)
    entry = replace(first, bytes=len(content), sha256=digest, records=1, labels={"disc": 1})
    write_manifest(store, replace(manifest, shards=(entry, *others)))


@pytest.mark.parametrize("info", members_that_lead_out().values(), ids=members_that_lead_out())
def test_a_member_that_leads_out_of_a_shard_is_refused_and_writes_nothing(info, tmp_path) -> None:
    folder = tmp_path / "far" / "below" / "set"
    make_set(folder, "crops")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        data = b'{"height": 64, "label": "disc", "origin": {}, "width": 64}' if info.isreg() else b""
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    with_shard(folder, buffer.getvalue())
    before = sorted(tmp_path.rglob("*"))
    found = ShardSet.open(folder)
    with pytest.raises(ShardError):
        found[0]
    with pytest.raises(ShardError):
        list(found.stream())
    assert [line for entry, lines in found.verify() for line in lines]
    for command in ("drop SET key=9 --out NEW", "dedupe SET --out NEW"):
        code, said = told(
            f"factory.sets {command}".replace("SET", str(folder)).replace("NEW", str(tmp_path / "new"))
        )
        assert code == 2
        assert "Traceback" not in said
    new = sorted(path for path in tmp_path.rglob("*") if path not in before)
    assert all(path.is_relative_to(tmp_path / "new") for path in new)
    assert not any(path.is_symlink() for path in new)
    assert not Path("/tmp/planted.json").exists()


def told(command: str) -> tuple[int, str]:
    """Exit code and all that a command says."""
    name, *arguments = shlex.split(command)
    before = sys.argv, sys.stdout, sys.stderr
    said = io.StringIO()
    sys.argv, sys.stdout, sys.stderr = [name, *arguments], said, said
    try:
        run(import_module(name).main, ShardError)
    except SystemExit as end:
        return int(end.code or 0), said.getvalue()
    finally:
        sys.argv, sys.stdout, sys.stderr = before


def test_a_shard_is_never_unpacked() -> None:
    sources = [path for name in _PACKAGES for path in (_ROOT / name).rglob("*.py")]
    assert not [
        path for path in sources if re.search(r"extractall|\.extract\(|unpack_archive", path.read_text())
    ]


# Paths in manifests


@pytest.mark.parametrize(
    "name", ["../crops-000000.tar", "/etc/passwd", "crops-000000.tar/../../x", "..", "a\\b.tar"]
)
def test_a_manifest_cannot_name_a_shard_elsewhere(name, tmp_path) -> None:
    folder = tmp_path / "set"
    make_set(folder, "crops")
    path = folder / "manifest.json"
    raw = json.loads(path.read_text())
    raw["shards"][0]["name"] = name
    path.write_text(json.dumps(raw))
    for command in (f"factory.sets copy {folder} {tmp_path / 'new'}", f"factory.set_page {folder}"):
        code, said = told(command)
        assert (code, "is no shard's name here" in said) == (2, True)
    assert not (tmp_path / "new").exists()


# YAML


def test_yaml_builds_plain_values_only(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "object.yaml").write_text(HALF_WRITTEN["object.yaml"])
    with pytest.raises(InputError, match=r"object\.yaml:1: could not determine a constructor for the tag"):
        read_yaml(tmp_path / "object.yaml")
    for tag in (
        "!!python/name:os.system",
        "!!python/object/new:os.system [touch planted]",
        "!!python/module:os",
    ):
        code, said = told(f"factory.build --class birds --ray off --out new 'label={tag}'")
        assert (code, said.startswith("error: label")) == (2, True)
    assert list(tmp_path.iterdir()) == [tmp_path / "object.yaml"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 2000, "nested too deeply"),
        ("a: &a {b: *a}", "recursive"),
        (
            "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)),
            "aliases that make more than 100,000 values",
        ),
    ],
    ids=["deep", "endless", "a billion laughs"],
)
def test_yaml_that_would_fill_the_memory_is_refused(text, message) -> None:
    with pytest.raises(InputError, match=message):
        parse_yaml(text, "bomb.yaml")


# Pickles


def _load_newest(path: Path) -> object:
    folder = path.parent / f"{path.name}-training"
    folder.mkdir()
    (folder / "step-00000001.pt").write_bytes(path.read_bytes())
    return load_newest(folder)


def _teacher_masks(path: Path) -> object:
    return teacher_masks(path, None, None, None, 1, 8, "crop")  # type: ignore[arg-type]


READERS: dict[str, Callable[[Path], object]] = {
    "factory/weights.py": lambda path: read_weights(path, "weights"),
    "factory/generators/found.py": lambda path: read_content(path, "weights"),
    "factory/generators/foreign_pickle.py": lambda path: read_content(path, "weights"),
    "factory/generators/captions.py": read_vocabulary,
    "factory/generators/exported_program.py": read_exported_program,
    "factory/generators/torchscript.py": read_torchscript,
    "factory/redo/distill.py": _teacher_masks,
    "factory/training/checkpoint.py": _load_newest,
    "trainer/training/checkpoint.py": load_checkpoint,
    "trainer/evaluation/detections_file.py": read_detections,
    "trainer/boxed_data/matlab.py": lambda path: read_mat(path, ["annotations"]),
    "trainer/networks/weights.py": read_state_dict,
}
OUR_OWN = {
    "trainer/deployment/pt2_file.py": "reads back the file that it has just written",
    "trainer/deploy.py": "its help says how users may read that file",
    "trainer/boxed_data/unpacking.py": "copies files out of an archive and looks into none of them",
}
_READS = re.compile(
    r"torch\.load\(|Unpickler\b|np\.load\(|loadmat\(|jit\.load\(|export\.load\(|pickle\.loads?\(|zipfile\.ZipFile\("
)


def _pickled(path: Path, plants: Plants) -> None:
    path.write_bytes(pickle.dumps(plants, protocol=2))


def _saved_by_torch(path: Path, plants: Plants) -> None:
    torch.save({"model": plants, "state_dict": {"a": plants}}, path)


def _legacy_of_torch(path: Path, plants: Plants) -> None:
    torch.save({"model": plants}, path, _use_new_zipfile_serialization=False)


def _object_array(path: Path, plants: Plants) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([plants], dtype=object), allow_pickle=True)


def _object_archive(path: Path, plants: Plants) -> None:
    planted = np.array([plants], dtype=object)
    names = ("images", "masks", "good", "keys", "counts", "boxes", "scores", "labels")
    with path.open("wb") as file:
        np.savez(file, **dict.fromkeys(names, planted))


@pytest.mark.parametrize(
    "write",
    [_pickled, _saved_by_torch, _legacy_of_torch, _object_array, _object_archive],
    ids=lambda f: f.__name__,
)
@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_would_run_code_is_refused_by_every_reader(reader, write, tmp_path) -> None:
    planted, path = tmp_path / "planted", tmp_path / "weights.pth"
    write(path, Plants(planted))
    with pytest.raises(InputError) as caught:
        READERS[reader](path)
    assert "\n" not in str(caught.value)
    assert not planted.exists()


def test_every_place_that_reads_such_a_file_is_tried_above() -> None:
    found = {
        str(path.relative_to(_ROOT))
        for name in _PACKAGES
        for path in (_ROOT / name).rglob("*.py")
        if any(_READS.search(line.partition("#")[0]) for line in path.read_text().splitlines())
    }
    unknown = found - READERS.keys() - OUR_OWN.keys()
    assert not unknown, "a new reader: add it to READERS"


def test_no_call_allows_pickles_with_code() -> None:
    safe = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}
    seen = 0
    for name in _PACKAGES:
        for path in (_ROOT / name).rglob("*.py"):
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            for call in calls:
                function = ast.unparse(call.func)
                assert function not in ("pickle.load", "pickle.loads", "yaml.unsafe_load"), path
                if function == "yaml.load":
                    assert {k.arg: ast.unparse(k.value) for k in call.keywords} == {
                        "Loader": "yaml.BaseLoader"
                    }
                if function in safe:
                    option, value = safe[function]
                    given = {k.arg: k.value.value for k in call.keywords if isinstance(k.value, ast.Constant)}
                    assert given.get(option) is value, f"{path}: {function} wants {option}={value}"
                    seen += 1
    assert seen >= 7


# Pages


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


def test_what_strangers_named_is_text_on_a_sets_page(tmp_path) -> None:
    script = "</title></pre><script>alert(1)</script><img src=x onerror=alert(1)>\" onload='alert(1)"
    folder = tmp_path / "set"
    make_set(folder, "crops", script)
    store = open_store(folder)
    manifest = read_manifest(store)
    recipe = {"settings": {"label": script, script: 1}, "source": {"file": script}}
    first, *others = manifest.shards
    drops = replace(first, dropped={script: 3}, seen=7)
    changed = replace(manifest, recipe=recipe, fingerprint=fingerprint_of(recipe), shards=(drops, *others))
    write_manifest(store, changed)
    assert told(f"factory.set_page {folder}")[0] == 0
    page = _Tags((folder / "index.html").read_text())
    assert "script" not in page.tags
    assert not [name for name in page.attributes if name.startswith("on")]
    assert "&lt;script&gt;" in (folder / "index.html").read_text()


def test_every_page_is_made_by_a_template_that_escapes() -> None:
    for name in _PACKAGES:
        for path in (_ROOT / name).rglob("*.py"):
            text = path.read_text()
            assert len(re.findall(r"\bEnvironment\(", text)) == text.count("autoescape=True"), path
            assert not re.search(r"\|\s*safe\b|Markup\(", text), path
        for path in (_ROOT / name).rglob("*.html"):
            assert not re.search(r"autoescape false", path.read_text()), path


# Credentials


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A server on loopback that takes any credentials; its URL."""
    for package in ("s3fs", "moto", "flask", "flask_cors"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install 'crop-foundry[test]'")
    with s3_server() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def account(s3, tmp_path, monkeypatch) -> Path:
    """Credentials in the environment, a folder as a user may have it as working directory."""
    make_world(tmp_path / "world")
    monkeypatch.chdir(tmp_path / "world")
    monkeypatch.setitem(fsspec.config.conf, "s3", {})
    settings = {
        "ACCESS_KEY_ID": _KEY,
        "SECRET_ACCESS_KEY": _SECRET,
        "ENDPOINT_URL": s3,
        "REGION": "us-east-1",
    }
    for name, value in (settings | {"EC2_METADATA_DISABLED": "true"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    for name, value in {"TRIES": "2", "WAIT_S": "0.01", "SILENCE_S": "2"}.items():
        monkeypatch.setenv(f"CROP_FOUNDRY_REMOTE_{name}", value)
    fsspec.filesystem("s3").clear_instance_cache()
    yield tmp_path / "world"
    fsspec.filesystem("s3").clear_instance_cache()


def is_told(text: str | bytes) -> bool:
    """Whether the secret or its name stands in a text."""
    whole = text.encode() if isinstance(text, str) else text
    return _SECRET.encode() in whole or _KEY.encode() in whole


def test_credentials_are_in_no_message_log_or_file(account, monkeypatch, caplog) -> None:
    place = f"s3://{BUCKET}/birds"
    code, said = told(f"factory.build -v --ray off --class class.yaml --out {place}")
    assert (code, is_told(said)) == (0, False)
    store = open_store(place)
    assert {"manifest.json", "recipe.yaml", "stats.json", "index.html"} <= set(store.names())
    assert not [name for name in store.names() if is_told(store.read(name))]
    code, said = told(f"trainer.run -v run.yaml --out new crops=[{place}] num_real=[2]")
    assert (code, is_told(said)) == (0, False)
    assert place in (account / "new" / "log.txt").read_text()
    assert not [path for path in account.rglob("*") if path.is_file() and is_told(path.read_bytes())]
    assert not is_told(caplog.text)


def test_errors_of_a_store_say_no_credentials_even_with_v(account, monkeypatch) -> None:
    command = "factory.sets copy -v crops"
    failures = {
        "AWS_NOTHING": ("", "s3://no-such-bucket/birds/manifest.json: no such bucket"),
        "AWS_ENDPOINT_URL": ("http://127.0.0.1:9", "Could not connect to the endpoint URL"),
    }
    for name, (value, message) in failures.items():
        monkeypatch.setenv(name, value)
        fsspec.filesystem("s3").clear_instance_cache()
        code, said = told(f"{command} s3://no-such-bucket/birds")
        assert (code, message in said.splitlines()[-1], is_told(said)) == (2, True, False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    fsspec.filesystem("s3").clear_instance_cache()
    code, said = told(f"{command} s3://no-such-bucket/birds")
    assert (code, "Unable to locate credentials" in said.splitlines()[-1]) == (2, True)


@pytest.mark.parametrize("url", [f"s3://{_KEY}:{_SECRET}@bucket/birds", f"https://user:{_SECRET}@host/birds"])
def test_credentials_in_a_url_are_refused_without_being_repeated(url, account) -> None:
    for command in (
        f"factory.build --ray off --class class.yaml --out {url}",
        f"trainer.run run.yaml --out new crops=[{url}]",
    ):
        code, said = told(command)
        assert (code, "a URL with a user or password" in said, is_told(said)) == (2, True, False)
    assert not (account / "new").exists()


# Bombs


def test_a_jpeg_that_says_it_is_huge_is_refused_before_it_is_decoded() -> None:
    members = encode(BackgroundRecord("a", picture(0)))
    jpeg = members["jpg"]
    frame = jpeg.index(b"\xff\xc0")  # start of frame: length, precision, height, width
    huge = jpeg[: frame + 5] + (60000).to_bytes(2, "big") * 2 + jpeg[frame + 9 :]
    facts = json.dumps({"height": 60000, "origin": {}, "width": 60000}).encode()
    with pytest.raises(ShardError, match=r"^a\.jpg: is 60000x60000, wanted at most 100,000,000 pixels$"):
        decode("a", {"jpg": huge, "json": facts})


def test_a_member_that_says_it_is_longer_than_its_shard_is_refused(tmp_path) -> None:
    make_set(tmp_path / "set", "crops")
    info = tarfile.TarInfo("000000.rgb.jpg")
    info.size = 7 << 30
    with_shard(tmp_path / "set", info.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with pytest.raises(ShardError, match="the member at byte 0 is cut off"):
        ShardSet.open(tmp_path / "set")[0]
