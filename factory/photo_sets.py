"""Photo sets of others, with what their annotations say each photo holds: a folder, VOC, COCO."""

import hashlib
import json
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from configs.errors import InputError
from configs.kinds import did_you_mean
from factory.photos import list_photos, listing_identity, name_of
from factory.stages import Scalar

KINDS = ("folder", "voc", "coco")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A photo that may become a background. classes: what its annotation names; None without annotation."""

    name: str
    path: Path
    classes: frozenset[str] | None = None


def find_candidates(
    kind: str, root: Path, annotations: Path | None, exclude: Sequence[str]
) -> tuple[Candidate, ...]:
    """The photos in their fixed order.

    exclude: names of classes that the caller will look for. Raises InputError when the layout is not the
    kind's, or when COCO's categories lack one of those names; VOC lists no categories: there a note says so.
    """
    match kind:
        case "folder":
            if exclude or annotations is not None:
                option = "--exclude" if exclude else "--annotations"
                raise InputError(
                    f"{option}: a folder has no annotations to know by, wanted --kind voc or coco"
                )
            return tuple(Candidate(name_of(path, root), path) for path in list_photos(root))
        case "voc":
            return _voc_candidates(root, annotations or root / "Annotations", exclude)
        case "coco":
            return _coco_candidates(root, annotations or _coco_annotations(root), exclude)
        case _:
            raise InputError(f"--kind: {did_you_mean(kind, KINDS)}")


def candidates_identity(candidates: Sequence[Candidate]) -> dict[str, Scalar]:
    """What fixes the photos and what they are known to hold, wherever they lie."""
    digest = hashlib.sha256()
    for candidate in candidates:
        classes = None if candidate.classes is None else sorted(candidate.classes)
        digest.update(f"{json.dumps([candidate.name, classes])}\n".encode())
    listing = listing_identity((candidate.name, candidate.path) for candidate in candidates)
    return listing | {"annotations_sha256": digest.hexdigest()}


def _voc_candidates(root: Path, annotations: Path, exclude: Sequence[str]) -> tuple[Candidate, ...]:
    """All of ``JPEGImages``, with the classes of the XML file of the same name."""
    if not annotations.is_dir():
        raise InputError(f"{annotations}: no such folder, wanted VOC's Annotations with one XML file a photo")
    images = root / "JPEGImages"
    candidates = tuple(
        Candidate(name_of(path, images), path, _voc_classes(annotations / f"{path.stem}.xml"))
        for path in list_photos(images)
    )
    known = sorted(set().union(*(candidate.classes or () for candidate in candidates)))
    for name in exclude:
        if name not in known:
            print(f"note: --exclude: no annotation names {did_you_mean(name, known)}", file=sys.stderr)
    return candidates


def _voc_classes(path: Path) -> frozenset[str] | None:
    if not path.is_file():
        return None
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise InputError(f"{path}: not XML ({error}), wanted a VOC annotation") from error
    if root.tag != "annotation":
        raise InputError(f"{path}: found <{root.tag}>, wanted a VOC <annotation>")
    return frozenset((name.text or "").strip() for name in root.findall("object/name"))


def _coco_annotations(root: Path) -> Path:
    found = sorted([*root.glob("instances*.json"), *root.glob("annotations/instances*.json")])
    if len(found) != 1:
        raise InputError(f"{root}: {len(found)} files instances*.json, wanted one, or --annotations FILE")
    return found[0]


def _coco_candidates(root: Path, annotations: Path, exclude: Sequence[str]) -> tuple[Candidate, ...]:
    """The photos that the JSON file lists, in order of their names; other files hold nobody knows what."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder, wanted the COCO photos or the folder above them")
    try:
        content = json.loads(annotations.read_text(encoding="utf-8"))
        class_of = {int(row["id"]): str(row["name"]) for row in content["categories"]}
        files = {int(row["id"]): str(row["file_name"]) for row in content["images"]}
        classes: dict[int, set[str]] = {image_id: set() for image_id in files}
        for row in content["annotations"]:
            classes[int(row["image_id"])].add(class_of[int(row["category_id"])])
    except OSError as error:
        raise InputError(f"{annotations}: {error.strerror}, wanted COCO's instances JSON") from error
    except (ValueError, LookupError, TypeError) as error:
        raise InputError(f"{annotations}: {error!r}, wanted COCO's instances JSON") from error
    for name in exclude:
        if name not in class_of.values():
            raise InputError(f"--exclude: {did_you_mean(name, sorted(class_of.values()))}")
    folder = root / "images" if (root / "images").is_dir() else root
    candidates = sorted((name, image_id) for image_id, name in files.items())
    if not any((folder / name).is_file() for name, _ in candidates):
        raise InputError(
            f"{folder}: none of the {len(files)} photos of {annotations.name}, wanted them there"
        )
    return tuple(Candidate(name, folder / name, frozenset(classes[key])) for name, key in candidates)
