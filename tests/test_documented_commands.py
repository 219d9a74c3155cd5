"""Every command in the Markdown is run, as documented plus what makes it small, in a folder prepared for it.

A command that is added to the documentation needs a row in `ROWS` if none of them fits: one line.
"""

import http.client
import logging
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest
import torch

from configs.entry import run
from shards.errors import ShardError
from tests.documented_world import make_home
from tests.faults.s3_proxy import s3_server

ROOT = Path(__file__).parents[1]
_CALL = "python -m "
_SMALL = "detector.image_size=96 detector.weights=none"
_STEP = "pretrain.steps=1 pretrain.batch_size=2 pretrain.warmup_steps=0"
_RUN = f"{_SMALL} {_STEP} training.steps=1 training.batch_size=2 training.warmup_steps=0 seeds=[0]"
_ALONE = "cluster.workers=1 cluster.address=local --out runs/alone"
_SELF = "finetune.steps=1 self_training.steps=1 --out runs/self"
_NOWHERE = "--out got --mirror http://127.0.0.1:9"
_PROBE = "--workers 1 shard_size=8 source.batch_size=8"
_GPU = "--crops 2 --ray off --out new source.device=cuda"
_ANY = "quality.max_border_frac=1 quality.min_main_share=0 quality.min_side_px=1"
_LOOSE = (
    f"--crops 1 --ray off quality.min_area_frac=0 quality.max_area_frac=1 quality.min_confidence=0 {_ANY}"
)
_LOW = "quality.min_area_frac=0 quality.min_side_px=1"
_TINY_GAN = "width=4 num_latent=8 discriminator_width=4 loop.steps=1 loop.checkpoint_every=1 samples=100"
_TINY_REDO = (
    "image_size=32 batch_size=2 networks.latent_size=3 networks.mask_features=8 networks.mask_res_blocks=1"
    " networks.generator_features=2 networks.discriminator_features=2 networks.recovery_features=2"
    " distill.steps=1 quality.min_side_px=4 device=cpu"
)
_GAN, _REDO = "factory.train_gan", "factory.train_redo"
_OWN, _OWN_RUN = "factory.build --class my-class.yaml", "trainer.run my-run.yaml"
_MERGE, _TRAIN = "factory.sets merge", "trainer.run birds dataset.root="
_PRESENT = {"GPU": torch.cuda.is_available(), "atheris": find_spec("atheris") is not None}


@dataclass(frozen=True)
class Row:
    """How the commands that begin with ``begins`` are run; the longest beginning counts.

    adds: arguments that come last, so that they win over documented ones of their name. after: beginnings of
    documented commands that come first. home: the name of a folder; in one that is ``new…`` no set was made
    yet. ends: for one that lacks something here, the error that it must end with; why: what is lacking.
    """

    begins: str
    adds: str = ""
    after: tuple[str, ...] = ()
    home: str = "home"
    ends: str = ""
    why: str = ""


ROWS = [
    Row("configs.reference"),
    Row("configs.show"),
    Row("factory.backgrounds", "--min-side 32", home="new"),
    Row("factory.build", "--crops 2 --ray off", home="new"),
    Row("factory.build --class birds --crops 1000000 --dry-run", _PROBE),
    Row("factory.build --class birds --crops 2000000 --out s3:", "--crops 3 --ray off", home="new"),
    Row("factory.build --class birds --crops 10000000 ", _GPU, ends="cuda|CUDA", why="GPU"),
    Row("factory.build --class birds --crops 100000000 ", _PROBE),
    Row("factory.build --class birds source.weights", _LOOSE, (_REDO, _GAN), home="new-trained"),
    Row("factory.build --class birds-photos", "--ray off quality.min_confidence=0", home="new-photos"),
    Row("factory.build --class cars-photos", f"--ray off quality.min_confidence=0 {_LOW}", home="new-photos"),
    Row("factory.build --class faces-stylegan", ends="pre-trained networks", why="others' weights"),
    Row(
        "factory.build --class faces-photos", f"--ray off quality.min_confidence=0 {_LOW}", home="new-photos"
    ),
    Row(_OWN, "--ray off", home="own"),
    Row("factory.set_page"),
    Row("factory.sets", "", (_MERGE,)),
    Row(_MERGE),
    Row("factory.train_copy_paste", "loop.steps=1"),
    Row(_GAN, f"{_TINY_GAN} batch_size=4", home="new-trained"),
    Row(_REDO, _TINY_REDO, home="new-trained"),
    Row("shards.inspect"),
    Row("shards.inspect data/crops/my-class", "", (_OWN,), home="own"),
    Row("tests.fuzz.fuzz_guided", ends="atheris", why="atheris"),
    Row("tests.fuzz.fuzz_readers", "--seconds 0.3"),
    Row("trainer.anchors"),
    Row("trainer.datasets audit", "--out audited"),
    Row("trainer.datasets check"),
    Row("trainer.datasets get", _NOWHERE, ends="cannot be reached", why="the publisher"),
    Row("trainer.deploy", "", (_TRAIN,)),
    Row("trainer.deploy runs/my-run", "", (_OWN_RUN,), home="own"),
    Row("trainer.evaluate", "--draws 5", (_TRAIN,)),
    Row("trainer.evaluate runs/my-run", "--draws 5", (_OWN_RUN,), home="own"),
    Row("trainer.experiment", ends="sets are missing", why="sets of real photos"),
    Row("trainer.export", f"--images 4 --workers 0 {_SMALL}"),
    Row("trainer.predict", "--threshold 0", (_TRAIN,)),
    Row("trainer.predict photos/new", "--threshold 0", (_OWN_RUN,), home="own"),
    Row("trainer.preview my-run.yaml", f"--count 2 {_SMALL}", (_OWN,), home="own"),
    Row("trainer.preview", f"--count 2 {_SMALL}"),
    Row("trainer.report", "--draws 5", (_TRAIN,)),
    Row("trainer.report runs/birds-small", ends="found neither", why="an experiment's hours"),
    Row("trainer.report runs/cars-small", ends="found neither", why="an experiment's hours"),
    Row("trainer.report runs/faces-small", ends="found neither", why="an experiment's hours"),
    Row("trainer.report runs/my-run", "--draws 5", (_OWN_RUN,), home="own"),
    Row("trainer.run", f"{_RUN} dataset.count=2"),
    Row("trainer.run faces", ends="--class faces makes it", why="crops of faces"),
    Row("trainer.run my-run.yaml", f"{_RUN} num_real=[10]", (_OWN,), home="own"),
    Row("trainer.run birds 'phases", f"{_RUN} {_SELF}", ends="photos passed", why="a trained detector"),
    Row(_TRAIN, f"{_RUN} num_real=[50]"),
    Row("trainer.run birds cluster", f"{_RUN} num_real=[2] {_ALONE}"),
]


def markdown() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def code_of(text: str) -> str:
    """The blocks of code alone, fenced or indented; lines that go on are joined."""
    lines, fenced = [], False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line)
    return "\n".join(lines).replace("\\\n", " ")


def commands_of(text: str) -> list[str]:
    """What follows ``python -m`` in blocks of code, without comments and what a program says of an error:
    module and arguments, spaced singly.
    """
    lines = [line for line in code_of(text).splitlines() if not line.strip().startswith("error: ")]
    steps = [step for line in lines for step in line.split(" && ")]
    calls = [step.partition(_CALL)[2] for step in steps if _CALL in step]
    return [shlex.join(shlex.split(call, comments=True)) for call in calls]


def documented() -> list[str]:
    """All commands of all pages, each once, in their order."""
    return list(dict.fromkeys(call for page in markdown() for call in commands_of(page.read_text())))


def row_of(command: str) -> Row:
    fitting = [row for row in ROWS if command.startswith(row.begins)]
    assert fitting, f"python -m {command}: no row of tests/test_documented_commands.py says how to run it"
    return max(fitting, key=lambda row: len(row.begins))


@dataclass
class Ended:
    """How a command ended."""

    code: object
    said: str


@dataclass
class Workplace:
    """Homes by name, and what was run in them: a command runs once, after those that it needs."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    ended: dict[str, Ended] = field(default_factory=dict)

    def run(self, command: str, capture: pytest.CaptureFixture[str]) -> Ended:
        if command not in self.ended:
            row = row_of(command)
            for beginning in row.after:
                needed = [other for other in documented() if other.startswith(beginning) and other != command]
                for other in needed[:1]:
                    assert self.run(other, capture).code == 0
            self.monkeypatch.chdir(self._home(row.home))
            self.ended[command] = _call(f"{command} {row.adds}", self.monkeypatch, capture)
        return self.ended[command]

    def _home(self, name: str) -> Path:
        folder = self.root / name
        if not folder.exists():
            make_home(folder, with_sets=not name.startswith("new"))
        return folder


def _call(command: str, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> Ended:
    """As ``python -m`` would, in this process."""
    name, *arguments = shlex.split(command)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    capture.readouterr()
    levels = {logger: logger.level for logger in _loggers()}
    try:
        module = import_module(f"{name}.__main__" if name == "trainer.datasets" else name)
        if name.startswith("tests."):
            code = module.main()
        elif name == "shards.inspect":  # it imports nothing of ours, so it has these rules itself
            code = module.main(arguments)
        else:
            run(module.main, ShardError)
    except SystemExit as ended:
        code = ended.code
    except ModuleNotFoundError as error:
        return Ended(2, str(error))
    finally:  # a command may set how much is said until its process ends; here others come after it
        logging.disable(logging.NOTSET)
        for logger in _loggers():
            logger.setLevel(levels.get(logger, logging.NOTSET))
    said = capture.readouterr()
    return Ended(code or 0, said.err if code else said.out)


def _loggers() -> list[logging.Logger]:
    known = logging.root.manager.loggerDict.values()
    return [logging.root, *(logger for logger in known if isinstance(logger, logging.Logger))]


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    """``s3://bucket`` is a real server on loopback."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        signed = "AWS4-HMAC-SHA256 Credential=key/20200101/us-east-1/s3/aws4_request"
        connection.request("PUT", "/bucket", headers={"Authorization": signed})
        assert connection.getresponse().status == 200
        settings = {"endpoint_url": f"http://127.0.0.1:{port}", "key": "key", "secret": "secret"}
        patch.setitem(fsspec.config.conf, "s3", settings)
        yield


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, s3) -> Iterator[Workplace]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("CROP_FOUNDRY_HOME", raising=False)
        patch.setenv("head", "localhost")
        yield Workplace(tmp_path_factory.mktemp("documented"), patch)
    torch.set_num_threads(threads)


@pytest.mark.parametrize("command", documented(), ids=str)
def test_a_documented_command_does_what_it_says(command: str, workplace: Workplace, capsys) -> None:
    row = row_of(command)
    if _PRESENT.get(row.why):
        pytest.skip(f"this machine has the {row.why} for want of which it should end")
    ended = workplace.run(command, capsys)
    if row.ends:
        assert ended.code == 2
        assert re.search(row.ends, ended.said), ended.said
    else:
        assert ended.code == 0, ended.said


def test_a_command_is_found_in_any_block_of_code_without_its_comment() -> None:
    fenced = "```\npython -m a.b c \\\n    'd e'   # why\n```\n"
    page = f"python -m no.block\n\n{fenced}\n    x -- python -m f.g --h\n"
    assert commands_of(page) == ["a.b c 'd e'", "f.g --h"]


def test_a_command_that_no_row_fits_is_named() -> None:
    with pytest.raises(AssertionError, match=r"trainer\.juggle: no row"):
        row_of("trainer.juggle")
