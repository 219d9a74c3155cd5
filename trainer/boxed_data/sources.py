"""Where boxed data sets are published, and what is known of their files: facts alone.

A checksum stands here only where the publisher or a widely used table gives it; ``told_by`` names that. Where
nobody does, it is empty, and the first download is pinned (`trainer.boxed_data.fetching`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from configs.errors import InputError

_TORCHVISION = "torchvision's table"
_PADDLE = "PaddleDetection's table"
_LFS = "the publisher's Git LFS"
_CALTECH = "https://data.caltech.edu/records/65de6-vp158"
_VOC = "https://thor.robots.ox.ac.uk/pascal/VOC"
_COCO = "http://images.cocodataset.org"
_WIDER = (
    "https://huggingface.co/datasets/CUHK-CSE/wider_face/resolve/ba0019b20b8c674d1f7bb8426f36ce69ea082648"
)
_FDDB = "http://vis-www.cs.umass.edu/fddb"
_OWN = ("csv_boxes", "scenes", "yolo")


@dataclass(frozen=True, slots=True)
class Archive:
    """A file of a data set as published.

    address: where from; empty when no official place offers it any more. checksum: ``md5:…``, ``sha1:…`` or
    ``sha256:…``; empty when nobody publishes one. size: bytes; 0 when unknown.
    splits: those that need it; none: every one does. below: the folder in it whose content is wanted.
    into: the folder under the data set's root that it goes to. leaves: what shows there that it was unpacked.
    """

    name: str
    address: str = ""
    checksum: str = ""
    told_by: str = ""
    size: int = 0
    splits: tuple[str, ...] = ()
    below: str = ""
    into: str = ""
    leaves: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """A published data set. folder: its root, under ``data``. settings: what its reader then has to be told.

    splits: those that can be asked for one by one; none: it comes whole. gone: since when, and who says so.
    """

    kind: str
    folder: str
    page: str
    archives: tuple[Archive, ...]
    terms: str = ""
    splits: tuple[str, ...] = ()
    settings: str = ""
    gone: str = ""


def find_source(kind: str, year: str | None = None) -> Source:
    """The published data set of a kind; year: of VOC alone, 2007 by default.

    Raises InputError for a kind that is a layout for data of one's own, an unknown one, or an unknown year.
    """
    if kind in _OWN:
        raise InputError(f"{kind}: a layout for data of your own, wanted one that is published: {_listed()}")
    if kind != "voc" and kind not in SOURCES:
        raise InputError(f"found the kind {kind}: wanted one of {_listed()}")
    if kind != "voc" and year is not None:
        raise InputError(f"--year: found {year} with {kind}, wanted it with voc alone")
    if (year or "2007") not in _YEARS:
        raise InputError(f"--year: found {year}, wanted one of {', '.join(sorted(_YEARS))}")
    return _voc(year or "2007") if kind == "voc" else SOURCES[kind]


def _listed() -> str:
    return ", ".join(sorted([*SOURCES, "voc"]))


def _voc(year: str) -> Source:
    return Source(
        kind="voc",
        folder=f"voc{year}",
        page=f"http://host.robots.ox.ac.uk/pascal/VOC/voc{year}/",
        terms="photos of flickr, mind their terms",
        splits=("train", "val", "trainval", "test") if year == "2007" else ("train", "val", "trainval"),
        archives=_YEARS[year],
        settings="one_based=true",
    )


def _voc_archive(year: str, name: str, md5: str, splits: Sequence[str]) -> Archive:
    return Archive(
        name,
        f"{_VOC}/voc{year}/{name}",
        f"md5:{md5}",
        _TORCHVISION,
        splits=tuple(splits),
        below=("TrainVal/" if year == "2011" else "") + f"VOCdevkit/VOC{year}",
        leaves=(f"ImageSets/Main/{splits[-1]}.txt", "JPEGImages", "Annotations"),
    )


_PARTS = ("train", "val", "trainval")
_YEARS = {  # torchvision.datasets.voc has these addresses and sums
    "2007": (
        _voc_archive("2007", "VOCtrainval_06-Nov-2007.tar", "c52e279531787c972589f7e41ab4ae64", _PARTS),
        _voc_archive("2007", "VOCtest_06-Nov-2007.tar", "b6e924de25625d8de591ea690078ad9f", ("test",)),
    ),
    "2008": (
        _voc_archive("2008", "VOCtrainval_14-Jul-2008.tar", "2629fa636546599198acfcfbfcf1904a", _PARTS),
    ),
    "2009": (
        _voc_archive("2009", "VOCtrainval_11-May-2009.tar", "a3e00b113cfcfebf17e343f59da3caa1", _PARTS),
    ),
    "2010": (
        _voc_archive("2010", "VOCtrainval_03-May-2010.tar", "da459979d0c395079b5c75ee67908abb", _PARTS),
    ),
    "2011": (
        _voc_archive("2011", "VOCtrainval_25-May-2011.tar", "6c3384ef61512963050cb5d687e5bf1e", _PARTS),
    ),
    "2012": (
        _voc_archive("2012", "VOCtrainval_11-May-2012.tar", "6cd6e144f989b92b3379bac3b3de84fd", _PARTS),
    ),
}

SOURCES = {
    "cub": Source(
        kind="cub",
        folder="cub",
        page=_CALTECH,
        terms="photos of flickr, mind their terms",
        archives=(
            Archive(
                "CUB_200_2011.tgz",
                f"{_CALTECH}/files/CUB_200_2011.tgz",
                "md5:97eceeb196236b17998738112f37df78",
                "CaltechDATA",
                1_150_585_339,
                below="CUB_200_2011",
                leaves=("images.txt", "bounding_boxes.txt", "train_test_split.txt", "images"),
            ),
        ),
    ),
    "coco": Source(
        kind="coco",
        folder="coco",
        page="https://cocodataset.org/#download",
        terms="annotations CC BY 4.0, photos of flickr, mind their terms",
        splits=("train", "val"),
        archives=(
            Archive(
                "annotations_trainval2017.zip",
                f"{_COCO}/annotations/annotations_trainval2017.zip",
                "md5:f4bbac642086de4f52a3fdda2de5fa2c",
                _PADDLE,
                252_907_541,
                leaves=("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
            ),
            Archive(
                "val2017.zip",
                f"{_COCO}/zips/val2017.zip",
                "md5:442b8da7639aecaf257c1dceb8ba8c80",
                _PADDLE,
                815_585_330,
                splits=("val",),
                leaves=("val2017",),
            ),
            Archive(
                "train2017.zip",
                f"{_COCO}/zips/train2017.zip",
                "md5:cced6f7f71b7629ddf16f17bbcfab6b2",
                _PADDLE,
                19_336_861_798,
                splits=("train",),
                leaves=("train2017",),
            ),
        ),
        settings="annotations.train=annotations/instances_train2017.json "
        "annotations.val=annotations/instances_val2017.json 'images={split}2017'",
    ),
    "wider": Source(
        kind="wider",
        folder="wider",
        page="http://shuoyang1213.me/WIDERFACE/",
        terms="CC BY-NC-ND 4.0",
        splits=("train", "val"),
        archives=(
            Archive(
                "wider_face_split.zip",
                f"{_WIDER}/data/wider_face_split.zip",
                "sha256:c7561e4f5e7a118c249e0a5c5c902b0de90bbf120d7da9fa28d99041f68a8a5c",
                _LFS,
                3_591_642,
                leaves=(
                    "wider_face_split/wider_face_train_bbx_gt.txt",
                    "wider_face_split/wider_face_val_bbx_gt.txt",
                ),
            ),
            Archive(
                "WIDER_val.zip",
                f"{_WIDER}/data/WIDER_val.zip",
                "sha256:f9efbd09f28c5d2d884be8c0eaef3967158c866a593fc36ab0413e4b2a58a17a",
                _LFS,
                362_752_168,
                splits=("val",),
                leaves=("WIDER_val/images",),
            ),
            Archive(
                "WIDER_train.zip",
                f"{_WIDER}/data/WIDER_train.zip",
                "sha256:e23b76129c825cafae8be944f65310b2e1ba1c76885afe732f179c41e5ed6d59",
                _LFS,
                1_465_602_149,
                splits=("train",),
                leaves=("WIDER_train/images",),
            ),
        ),
    ),
    "fddb": Source(
        kind="fddb",
        folder="fddb",
        page=f"{_FDDB}/",
        terms="photos of the news, mind their terms",
        archives=(
            Archive(
                "FDDB-folds.tgz",
                f"{_FDDB}/FDDB-folds.tgz",
                "sha1:94ce19ba3348425dfbb8bcbe55802490f8f152f8",
                "vipy's table",
                leaves=("FDDB-folds",),
            ),
            Archive(
                "originalPics.tar.gz",
                f"{_FDDB}/originalPics.tar.gz",
                below="originalPics",  # its README has this folder, the file itself begins at 2002
                into="originalPics",
                leaves=("originalPics/2002", "originalPics/2003"),
            ),
        ),
    ),
    "stanford_cars": Source(
        kind="stanford_cars",
        folder="stanford_cars",
        page="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        terms="photos of the web, mind their terms",
        gone="answers 404 since 2023; github.com/pytorch/vision/issues/7545 says where copies are",
        archives=(
            Archive(
                "car_devkit.tgz",
                checksum="md5:c3b158d763b6e2245038c8ad08e45376",
                told_by="torchvision 0.15",
                leaves=("devkit/cars_train_annos.mat",),
            ),
            Archive(
                "cars_test_annos_withlabels.mat",
                checksum="md5:b0a2b23655a3edd16d84508592a98d10",
                told_by="torchvision 0.15",
                leaves=("cars_test_annos_withlabels.mat",),
            ),
            Archive(
                "cars_train.tgz",
                checksum="md5:065e5b463ae28d29e77c1b4b166cfe61",
                told_by="torchvision 0.15",
                leaves=("cars_train",),
            ),
            Archive(
                "cars_test.tgz",
                checksum="md5:4ce7ebf6a94d07f1952d94dd34c4d501",
                told_by="torchvision 0.15",
                leaves=("cars_test",),
            ),
        ),
    ),
}
