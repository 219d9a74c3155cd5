"""The same targets led by coverage: ``python -m tests.fuzz.fuzz_guided TARGET [libFuzzer's options]``.

Needs ``pip install atheris``. An input that reaches new lines is kept and changed further; the first crash
ends the run with its traceback, and libFuzzer writes its input beside.
"""

import json
import logging
import sys
import tempfile
from pathlib import Path

import atheris
import numpy as np

PACKAGES = ["configs", "factory.photos", "shards", "trainer.boxed_data.annotations", "trainer.datasets"]

with atheris.instrument_imports(include=PACKAGES):
    from tests.fuzz.fuzz_readers import attempt
    from tests.fuzz.mutations import Files
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Fuzz one target until libFuzzer's ``-max_total_time`` or ``-runs``."""
    name, *options = sys.argv[1:]
    target, seeds = TARGETS[name], TARGETS[name].make()
    logging.disable(logging.WARNING)

    def change(data: bytes, most: int, seed: int) -> bytes:
        rng = np.random.default_rng(seed)
        changed = pack(target.mutated(rng, unpack(data) or seeds[int(rng.integers(len(seeds)))]))
        return changed if len(changed) <= most else data

    with tempfile.TemporaryDirectory() as folder:

        def read(data: bytes) -> None:
            files = unpack(data)
            if files:
                attempt(target, files, Path(folder, "input"))

        corpus = Path(folder, "corpus")
        corpus.mkdir()
        for number, files in enumerate(seeds):
            (corpus / str(number)).write_bytes(pack(files))
        atheris.Setup([sys.argv[0], str(corpus), "-max_len=1000000", *options], read, custom_mutator=change)
        atheris.Fuzz()


def pack(files: Files) -> bytes:
    """The files as one text, a byte a character."""
    return json.dumps({name: content.decode("latin-1") for name, content in files.items()}).encode()


def unpack(data: bytes) -> Files:
    """What `pack` packed; nothing of other bytes."""
    try:
        return {name: content.encode("latin-1") for name, content in json.loads(data).items()}
    except (ValueError, AttributeError):
        return {}


if __name__ == "__main__":
    main()
