"""The classification data sets of POMP's tables by name: where each lies, how it is opened, and what it should hold.

One table serves :func:`prompt_core.data.layouts.open_images`, templates and ``datasets/check.py``. Nothing is read
here. Folders are those of CoOp's layout, and behind them those that torchvision's downloads make.
"""

from __future__ import annotations

from pathlib import Path

from prompt_core.data import layouts_imagenet_1k as imagenet_1k
from prompt_core.data import original_folders, original_lists
from prompt_core.data.benchmark_splits import Benchmark
from prompt_core.data.catalog_entry import ClassificationEntry, Count
from prompt_core.data.images import ImageSet
from prompt_core.data.layouts_coop import fgvc_aircraft
from prompt_core.data.layouts_imagenet import imagenet21k, tiny_imagenet
from prompt_core.errors import UserError, nearest


def _coop(name: str, file: str, *readers: object, keeps_test: bool = False) -> Benchmark:
    lists, photos = readers
    return Benchmark(name, f"split_zhou_{file}.json", lists, photos, keeps_test)  # type: ignore[arg-type]


def _lit(number: int) -> Count:
    return Count(number)


def _seen(number: int) -> Count:
    return Count(number, seen=True)


_COOP = ", and split_zhou_{set}.json of CoOp (github.com/KaiyangZhou/CoOp, DATASETS.md) into {{folder}}"
_CLASS_NAMES = "; classnames.txt is CoOp's"

ENTRIES = (
    ClassificationEntry(
        "imagenet",
        ("imagenet1k", "imagenet_1k", "ilsvrc2012"),
        ("imagenet", "ILSVRC2012"),
        (),
        imagenet_1k.imagenet,
        _seen(1_000),
        _lit(50_000),
        "unpack ILSVRC2012 (image-net.org) into {folder}/images/train and {folder}/images/val, a folder for each wnid"
        + _CLASS_NAMES,
        splits=("train", "test"),
    ),
    ClassificationEntry(
        "imagenet21k",
        ("imagenet_21k", "imagenet21k_p"),
        ("imagenet21k_resized", "imagenet21k"),
        ("imagenet21k_train",),
        imagenet21k,
        _lit(10_450),
        _seen(522_500),
        "unpack the processed winter-21 release (github.com/Alibaba-MIIL/ImageNet21K) into {folder}",
        splits=("test",),
    ),
    ClassificationEntry(
        "caltech101",
        ("caltech_101", "caltech"),
        ("caltech-101", "caltech101"),
        ("101_ObjectCategories",),
        _coop("caltech101", "Caltech101", None, original_folders.caltech101_photos),
        _lit(100),
        _lit(2_465),
        "put 101_ObjectCategories (data.caltech.edu/records/20086)" + _COOP.format(set="Caltech101"),
        base_test=_seen(1_549),
    ),
    ClassificationEntry(
        "oxford_pets",
        ("oxfordpets", "oxford_iiit_pet", "oxfordiiitpet", "pets"),
        ("oxford_pets", "oxford-iiit-pet"),
        ("images", "annotations/trainval.txt"),
        _coop("oxford_pets", "OxfordPets", original_lists.oxford_pets_lists, None, keeps_test=True),
        _lit(37),
        _lit(3_669),
        "put images and annotations (robots.ox.ac.uk/~vgg/data/pets)" + _COOP.format(set="OxfordPets"),
        base_test=_seen(1_881),
    ),
    ClassificationEntry(
        "stanford_cars",
        ("stanfordcars", "cars"),
        ("stanford_cars",),
        ("cars_test", "cars_train"),
        _coop("stanford_cars", "StanfordCars", original_lists.stanford_cars_lists, None, keeps_test=True),
        _seen(196),
        _seen(8_041),
        "put cars_train, cars_test, devkit, cars_test_annos_withlabels.mat" + _COOP.format(set="StanfordCars"),
        base_test=_seen(4_002),
    ),
    ClassificationEntry(
        "oxford_flowers",
        ("oxfordflowers", "flowers102", "oxford_flowers102", "flowers_102", "flowers"),
        ("oxford_flowers", "flowers-102"),
        ("jpg", "imagelabels.mat"),
        _coop(
            "oxford_flowers",
            "OxfordFlowers",
            original_lists.oxford_flowers_lists,
            original_lists.oxford_flowers_photos,
        ),
        _lit(102),
        _lit(2_463),
        "put jpg, imagelabels.mat (robots.ox.ac.uk/~vgg/data/flowers/102), cat_to_name.json"
        + _COOP.format(set="OxfordFlowers"),
        base_test=_seen(1_053),
        official_test=_lit(6_149),
    ),
    ClassificationEntry(
        "food101",
        ("food_101", "food"),
        ("food-101",),
        ("images", "meta/classes.txt"),
        _coop("food101", "Food101", original_folders.food101_lists, original_folders.food101_photos),
        _lit(101),
        _lit(30_300),
        "put images and meta (data.vision.ee.ethz.ch/cvl/datasets_extra/food-101)" + _COOP.format(set="Food101"),
        base_test=_seen(15_300),
        official_test=_lit(25_250),
    ),
    ClassificationEntry(
        "fgvc_aircraft",
        ("fgvcaircraft", "aircraft"),
        ("fgvc_aircraft", "fgvc-aircraft-2013b"),
        ("variants.txt",),
        fgvc_aircraft,
        _lit(100),
        _lit(3_333),
        "put the folder data of fgvc-aircraft-2013b (robots.ox.ac.uk/~vgg/data/fgvc-aircraft) as {folder}",
        base_test=_seen(1_666),
    ),
    ClassificationEntry(
        "sun397",
        ("sun_397", "sun"),
        ("sun397", "SUN397"),
        ("ClassName.txt",),
        _coop("sun397", "SUN397", original_folders.sun397_lists, original_folders.sun397_photos, keeps_test=True),
        _lit(397),
        _lit(19_850),
        "put SUN397, and ClassName.txt, Training_01.txt, Testing_01.txt of Partitions.zip "
        "(vision.princeton.edu/projects/2010/SUN)" + _COOP.format(set="SUN397"),
        base_test=_seen(9_950),
    ),
    ClassificationEntry(
        "dtd",
        ("describabletextures", "describable_textures"),
        ("dtd",),
        ("images", "labels/train1.txt"),
        _coop("dtd", "DescribableTextures", original_folders.dtd_lists, original_folders.dtd_photos),
        _lit(47),
        _lit(1_692),
        "put images and labels (robots.ox.ac.uk/~vgg/data/dtd)" + _COOP.format(set="DescribableTextures"),
        base_test=_seen(864),
        official_test=_lit(1_880),
    ),
    ClassificationEntry(
        "eurosat",
        ("euro_sat",),
        ("eurosat",),
        ("2750",),
        _coop("eurosat", "EuroSAT", None, original_folders.eurosat_photos),
        _lit(10),
        _lit(8_100),
        "put 2750 of EuroSAT's RGB archive (github.com/phelber/EuroSAT)" + _COOP.format(set="EuroSAT"),
        base_test=_seen(4_200),
    ),
    ClassificationEntry(
        "ucf101",
        ("ucf_101", "ucf"),
        ("ucf101", "UCF101"),
        ("UCF-101-midframes",),
        _coop("ucf101", "UCF101", original_lists.ucf101_lists, None, keeps_test=True),
        _lit(101),
        _lit(3_783),
        "put UCF-101-midframes of CoOp, and ucfTrainTestlist (crcv.ucf.edu/data/UCF101.php)"
        + _COOP.format(set="UCF101"),
        base_test=_seen(1_934),
    ),
    ClassificationEntry(
        "imagenet_v2",
        ("imagenetv2",),
        ("imagenetv2",),
        ("imagenetv2-matched-frequency-format-val",),
        imagenet_1k.imagenet_v2,
        _seen(1_000),
        _lit(10_000),
        "unpack imagenetv2-matched-frequency-format-val (github.com/modestyachts/ImageNetV2) into {folder}"
        + _CLASS_NAMES,
        splits=("test",),
    ),
    ClassificationEntry(
        "imagenet_sketch",
        ("imagenetsketch",),
        ("imagenet-sketch",),
        (),
        imagenet_1k.imagenet_sketch,
        _seen(1_000),
        _lit(50_889),
        "unpack ImageNet-Sketch (github.com/HaohanWang/ImageNet-Sketch) into {folder}/images" + _CLASS_NAMES,
        splits=("test",),
    ),
    ClassificationEntry(
        "imagenet_a",
        ("imageneta", "imagenet_adversarial"),
        ("imagenet-adversarial",),
        ("imagenet-a",),
        imagenet_1k.imagenet_a,
        _seen(200),
        _lit(7_500),
        "unpack imagenet-a (github.com/hendrycks/natural-adv-examples) into {folder}" + _CLASS_NAMES,
        splits=("test",),
    ),
    ClassificationEntry(
        "imagenet_r",
        ("imagenetr", "imagenet_rendition"),
        ("imagenet-rendition",),
        ("imagenet-r",),
        imagenet_1k.imagenet_r,
        _seen(200),
        _lit(30_000),
        "unpack imagenet-r (github.com/hendrycks/imagenet-r) into {folder}" + _CLASS_NAMES,
        splits=("test",),
    ),
    ClassificationEntry(
        "tiny_imagenet",
        ("tinyimagenet", "tiny_imagenet_200"),
        ("tiny-imagenet-200",),
        ("wnids.txt", "words.txt"),
        lambda folder, split: tiny_imagenet(folder, "val" if split == "test" else split),
        _lit(200),
        _lit(10_000),
        "unpack tiny-imagenet-200.zip (cs231n.stanford.edu) as {folder}",
        splits=("train", "val"),
    ),
)

NAMES = tuple(entry.name for entry in ENTRIES)
# What a prompt learned elsewhere is scored on: the ten data sets and the four domains of POMP's tables, in their order.
CROSS_DATASET = (
    *("caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft", "sun397", "dtd"),
    *("eurosat", "ucf101"),
)
CROSS_DOMAIN = ("imagenet_v2", "imagenet_sketch", "imagenet_a", "imagenet_r")

_BY_NAME = {name: entry for entry in ENTRIES for name in (entry.name, *entry.aliases)}


def find_entry(name: str) -> ClassificationEntry | None:
    """The entry of a name or alias, or None."""
    return _BY_NAME.get(name.lower().replace("-", "_"))


def classification_entry(name: str) -> ClassificationEntry:
    """The entry of a name or alias.

    Raises:
        UserError: for an unknown name, with the nearest known ones.
    """
    entry = find_entry(name)
    if entry is None:
        raise UserError(f"data set {name!r} is unknown{nearest(name, _BY_NAME)}; known: {', '.join(NAMES)}")
    return entry


def recognise(path: Path) -> ClassificationEntry | None:
    """The data set whose marks are in a folder, or None."""
    return next((entry for entry in ENTRIES if entry.recognises(path)), None)


def open_named(text: str, split: str, root: str | Path | None = None) -> ImageSet:
    """Open ``NAME``, ``NAME:PATH`` or either with ``#DIVISION`` behind it.

    Args:
        text: NAME as in the table; PATH is the set's folder, or a data root; DIVISION is published, official or
            generated.
        split: train, val or test.
        root: the data root of a bare NAME; see :func:`prompt_core.data.root.data_root`.

    Raises:
        UserError: for an unknown name, and when something is missing.
    """
    rest, marker, which = text.rpartition("#")
    if not marker or "/" in which:  # a folder's name may have a # in it
        rest, marker, which = text, "", ""
    name, colon, path = rest.partition(":")
    entry = classification_entry(name)
    if colon and not path:
        raise UserError(f"{text!r} names no path: expected {name}:PATH")
    folder = entry.folder(Path(path)) if colon else entry.place(root)
    return entry.open(folder, split, which if marker else None)
