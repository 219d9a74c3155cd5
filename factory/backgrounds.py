"""Make a background set: ``python -m factory.backgrounds --kind coco --root … --exclude bird --out DIR``.

Photos that hold an excluded class, near-duplicates, small and unreadable photos are left out and counted.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import track

from configs.entry import Parser, names_in, run
from configs.errors import InputError
from factory.ledger import Ledger
from factory.output_set import claim_set, describe_drops, drops_of
from factory.perceptual_hash import HashIndex, dhash
from factory.photo_sets import KINDS, Candidate, candidates_identity, find_candidates
from factory.photos import UnreadablePhoto, read_photo
from factory.stages import UInt8Array
from shards.errors import ShardError
from shards.lease import LEASE_NAME, hold_lease
from shards.manifest import Manifest, shard_name
from shards.records import BackgroundRecord
from shards.store import Store, open_store
from shards.writer import write_shard

_EXAMPLES = """examples:
  python -m factory.backgrounds --kind folder --root photos/ --out data/backgrounds/mine
  python -m factory.backgrounds --kind voc --root VOCdevkit/VOC2012 --exclude bird --out data/backgrounds/voc
  python -m factory.backgrounds --kind coco --root val2017 --annotations instances_val2017.json \\
      --exclude bird,cat --out data/backgrounds/coco

The same command again goes on where it stopped, and rewrites nothing that is done."""


@dataclass(frozen=True, slots=True)
class BackgroundSettings:
    """What decides which photos are kept and how they look.

    exclude: sorted class names. duplicate_bits: of a 64-bit `dhash`, that near-duplicates differ in at most.
    """

    kind: str
    exclude: tuple[str, ...] = ()
    max_side_px: int = 480
    min_side_px: int = 160
    shard_size: int = 256
    duplicate_bits: int = 4


@dataclass(slots=True)
class _Batch:
    """Kept photos on their way into one shard, and what became of the others looked at on the way."""

    records: list[BackgroundRecord] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    seen: int = 0


def main(argv: list[str]) -> int:
    """Parse, build, print what was kept and dropped."""
    args = _parse(argv)
    exclude = tuple(sorted(set(names_in(args.exclude))))
    settings = BackgroundSettings(args.kind, exclude, args.max_side, args.min_side, args.shard_size)
    print(build(settings, args.root, args.annotations, args.out))
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        "factory.backgrounds", "Turn photos without a class into a background set in tar shards.", _EXAMPLES
    )
    parser.add_argument("--kind", required=True, choices=KINDS, help="how the photos are laid out")
    parser.add_argument("--root", required=True, type=Path, help="folder of the photos or the data set")
    parser.add_argument("--annotations", type=Path, help="coco's JSON file, or voc's folder of XML files")
    parser.add_argument("--exclude", default="", help="classes no photo may hold: bird,cat (voc and coco)")
    parser.add_argument("--out", required=True, help="folder or URL of the set")
    parser.add_argument("--max-side", type=int, default=480, help="longest side, px, larger is reduced [480]")
    parser.add_argument(
        "--min-side", type=int, default=160, help="shorter side at least, px, once reduced [160]"
    )
    parser.add_argument("--shard-size", type=int, default=256, help="photos a shard [256]")
    args = parser.parse_args(argv)
    for name in ("max_side", "min_side", "shard_size"):
        if (value := getattr(args, name)) < 1:
            raise InputError(f"--{name.replace('_', '-')}: found {value}, wanted 1 or more")
    if args.min_side > args.max_side:
        raise InputError(f"--min-side: found {args.min_side}, wanted at most --max-side ({args.max_side})")
    return args


def build(settings: BackgroundSettings, root: Path, annotations: Path | None, out: str) -> str:
    """Bring the set at ``out`` to what the settings ask; returns a summary to print.

    Raises InputError when the photos or annotations are missing or wrong, or when ``out`` was made otherwise.
    """
    candidates = find_candidates(settings.kind, root, annotations, settings.exclude)
    recipe = {
        "settings": asdict(settings) | {"exclude": list(settings.exclude)},
        "source": candidates_identity(candidates),
    }
    store = open_store(out)
    manifest = claim_set(store, "backgrounds", settings.exclude, recipe)
    if manifest.complete and not store.exists(LEASE_NAME):
        return _summary(manifest, store.location, made=0)
    with hold_lease(store, say=_note) as lease:
        manifest = claim_set(store, "backgrounds", settings.exclude, recipe)  # as the last holder left it
        store.remove_stale_temporaries(alone=True)
        ledger = Ledger(store, manifest, lease)
        made = _fill(ledger, store, settings, candidates)
        store.remove_stale_temporaries(alone=True)
    return _summary(ledger.manifest, store.location, made)


def _fill(ledger: Ledger, store: Store, settings: BackgroundSettings, candidates: Sequence[Candidate]) -> int:
    """Write the shards that are missing; returns how many.

    All photos are looked at again, since a photo may be a near-duplicate of any before it.
    """
    made = 0
    ledger.commit(complete=False)
    for index, batch in enumerate(_batches(settings, candidates)):
        if not batch.records:
            raise InputError(
                f"{store.location}: no photo of {batch.seen} is left ({describe_drops(batch.dropped)})"
            )
        if index not in ledger:
            name = shard_name("backgrounds", index)
            entry = write_shard(store, name, batch.records, dropped=batch.dropped, seen=batch.seen)
            ledger.enter(index, entry)
            made += 1
    ledger.remove_strays()
    ledger.commit(complete=True)
    return made


def _batches(settings: BackgroundSettings, candidates: Sequence[Candidate]) -> Iterator[_Batch]:
    """One batch a shard. It ends before the photo that it has no room for, so no drop is left uncounted."""
    batch, seen_hashes = _Batch(), HashIndex()
    console = Console(stderr=True)
    shown = track(candidates, "photos", console=console, disable=not console.is_terminal, transient=True)
    for slot, candidate in enumerate(shown):
        verdict = _judge(candidate, settings, seen_hashes)
        if not isinstance(verdict, str) and len(batch.records) == settings.shard_size:
            yield batch
            batch = _Batch()
        batch.seen += 1
        if isinstance(verdict, str):
            batch.dropped[verdict] += 1
        else:
            origin = {"source": settings.kind, "file": candidate.name}
            batch.records.append(BackgroundRecord(f"{slot:09d}", verdict, origin))
    yield batch


def _judge(candidate: Candidate, settings: BackgroundSettings, seen_hashes: HashIndex) -> UInt8Array | str:
    """The photo (H, W, 3), entered in the hashes, or why it is dropped."""
    if settings.exclude and candidate.classes is None:
        return "not_annotated"
    if candidate.classes is not None and not candidate.classes.isdisjoint(settings.exclude):
        return "excluded_class"
    try:
        image = read_photo(candidate.path, settings.max_side_px)
    except UnreadablePhoto as error:
        _note(f"unreadable, skipped: {candidate.name}: {error}")
        return "unreadable"
    if min(image.shape[:2]) < settings.min_side_px:
        return "too_small"
    value = dhash(image)
    if seen_hashes.is_near(value, settings.duplicate_bits):
        return "near_duplicate"
    seen_hashes.add(value)
    return image


def _note(message: str) -> None:
    print(f"note: {message}", file=sys.stderr)


def _summary(manifest: Manifest, location: str, made: int) -> str:
    seen = sum(entry.seen for entry in manifest.shards)
    shards = "shard" if len(manifest.shards) == 1 else "shards"
    done = f"{made} made" if made else "up to date"
    return (
        f"{location}: {manifest.records} backgrounds of {seen} photos in {len(manifest.shards)} {shards},"
        f" {manifest.bytes / 1e6:.1f} MB ({done})\ndropped: {drops_of(manifest)}"
    )


if __name__ == "__main__":
    run(main, ShardError)
