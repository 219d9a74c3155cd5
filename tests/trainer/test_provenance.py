import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from configs.errors import InputError
from trainer.run import main
from trainer.runs import provenance
from trainer.runs.config import RunConfig
from trainer.runs.provenance import PROVENANCE_NAME, Origin, keep_origin, places_of, read_origins


@pytest.fixture
def origin() -> Origin:
    return Origin(
        begun="2026-01-02T03:04:05Z",
        command="python -m trainer.run birds",
        done=0,
        commit="abc",
        machine="2 cores",
        versions={"torch": "2"},
        seeds=(0,),
        sets=(),
    )


@pytest.fixture
def arguments(write_run, tmp_path) -> list[str]:
    """A run of one training of a single step."""
    config = write_run(
        "tiny",
        """\
detector: {kind: ssd, backbone: mobilenet_v2, weights: none, image_size: 64}
phases: [scratch]
training: {steps: 1, batch_size: 1}
num_real: [1]
seeds: [3]
""",
    )
    return [str(config), "--out", str(tmp_path / "run")]


def test_a_run_says_where_it_comes_from_and_a_command_that_trains_nothing_adds_nothing(
    arguments, sets, tmp_path, monkeypatch
) -> None:
    main([*arguments, "workers=0"])
    (origin,) = read_origins(tmp_path / "run")
    assert origin.command == f"python -m trainer.run {' '.join(arguments)} workers=0"
    assert (origin.seeds, origin.done) == ((3,), 0)
    assert {"crop-foundry", "python", "torch", "numpy", "opencv"} <= origin.versions.keys()
    manifests = [folder / "manifest.json" for folder in sets]
    assert [each.records for each in origin.sets] == [30, 8]
    assert [each.sha256 for each in origin.sets] == [
        hashlib.sha256(path.read_bytes()).hexdigest() for path in manifests
    ]
    assert origin.sets[0].fingerprint == json.loads(manifests[0].read_text())["fingerprint"]
    monkeypatch.setattr(provenance, "find_commit", lambda: "another")
    main([*arguments, "workers=0"])
    assert read_origins(tmp_path / "run") == [origin]


def test_going_on_with_another_commit_is_added_and_with_the_same_is_not(tmp_path, origin) -> None:
    keep_origin(tmp_path, origin)
    keep_origin(tmp_path, origin.model_copy(update={"begun": "2026-01-02T09:00:00Z", "done": 1}))
    later = origin.model_copy(update={"commit": "def", "done": 2})
    keep_origin(tmp_path, later)
    assert read_origins(tmp_path) == [origin, later]


def test_a_folder_of_before_has_none_and_a_damaged_file_is_named(tmp_path, origin) -> None:
    assert read_origins(tmp_path) == []
    for text in ("{", "[]", '{"commands": [{"begun": 3}]}'):
        (tmp_path / PROVENANCE_NAME).write_text(text)
        with pytest.raises(InputError, match=r"provenance\.json: "):
            keep_origin(tmp_path, origin)
        assert (tmp_path / PROVENANCE_NAME).read_text() == text


def test_a_checkouts_commit_says_whether_it_was_changed(tmp_path, monkeypatch) -> None:
    find = provenance.find_commit.__wrapped__

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *who, *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(provenance, "_TOP", tmp_path)
    assert find() is None  # an installed package
    git("init", "-q")
    assert find() is None  # nothing committed
    (tmp_path / "code.py").write_text("1\n")
    git("add", "code.py")
    git("commit", "-q", "-m", "code")
    commit = git("rev-parse", "HEAD")
    (tmp_path / "a-run").write_text("what a run leaves is no change of the code\n")
    assert find() == commit
    (tmp_path / "code.py").write_text("2\n")
    assert find() == f"{commit}+changes"


def test_every_set_that_a_run_draws_from_is_named_once() -> None:
    config = RunConfig(
        crops=["a", {"place": "b", "weight": 2}],
        distractors=["c"],
        backgrounds="d",
        validation_scenes={"crops": ["a", "e"], "backgrounds": "f"},
        dataset={"kind": "voc", "root": Path("g")},
        detector={"kind": "ssd"},
    )
    crops = dict.fromkeys("abce", "crops")
    assert places_of(config) == crops | {"d": "backgrounds", "f": "backgrounds"}
