"""The ten data sets of CoOp's benchmarks: folders, readers and what each should hold. Nothing is read here."""

from __future__ import annotations

from prompt_core.data.catalog.benchmark_splits import Benchmark
from prompt_core.data.catalog.entry import ClassificationEntry, Count, seen
from prompt_core.data.readers import original_folders, original_lists
from prompt_core.data.readers.coop import fgvc_aircraft


def _coop(name: str, file: str, *readers: object, photos: tuple[str, ...], keeps_test: bool = False) -> Benchmark:
    lists, all_photos = readers
    return Benchmark(name, f"split_zhou_{file}.json", lists, all_photos, keeps_test, photos)  # type: ignore[arg-type]


_COOP = ", and split_zhou_{set}.json of CoOp (github.com/KaiyangZhou/CoOp, DATASETS.md) into {{folder}}"

BENCHMARKS = (
    ClassificationEntry(
        "caltech101",
        ("caltech_101", "caltech"),
        ("caltech-101", "caltech101"),
        ("101_ObjectCategories",),
        _coop(
            "caltech101",
            "Caltech101",
            None,
            original_folders.caltech101_photos,
            photos=("101_ObjectCategories", "caltech-101/101_ObjectCategories"),
        ),
        Count(100),
        Count(2_465),
        "put 101_ObjectCategories (data.caltech.edu/records/20086)" + _COOP.format(set="Caltech101"),
        base_test=seen(1_549),
    ),
    ClassificationEntry(
        "oxford_pets",
        ("oxfordpets", "oxford_iiit_pet", "oxfordiiitpet", "pets"),
        ("oxford_pets", "oxford-iiit-pet"),
        ("images", "annotations/trainval.txt"),
        _coop("oxford_pets", "OxfordPets", original_lists.oxford_pets_lists, None, photos=("images",), keeps_test=True),
        Count(37),
        Count(3_669),
        "put images and annotations (robots.ox.ac.uk/~vgg/data/pets)" + _COOP.format(set="OxfordPets"),
        base_test=seen(1_881),
    ),
    ClassificationEntry(
        "stanford_cars",
        ("stanfordcars", "cars"),
        ("stanford_cars",),
        ("cars_test", "cars_train"),
        _coop(
            "stanford_cars", "StanfordCars", original_lists.stanford_cars_lists, None, photos=(".",), keeps_test=True
        ),
        seen(196),
        seen(8_041),
        "put cars_train, cars_test, devkit, cars_test_annos_withlabels.mat" + _COOP.format(set="StanfordCars"),
        base_test=seen(4_002),
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
            photos=("jpg",),
        ),
        Count(102),
        Count(2_463),
        "put jpg, imagelabels.mat (robots.ox.ac.uk/~vgg/data/flowers/102), cat_to_name.json"
        + _COOP.format(set="OxfordFlowers"),
        base_test=seen(1_053),
        official_test=Count(6_149),
    ),
    ClassificationEntry(
        "food101",
        ("food_101", "food"),
        ("food-101",),
        ("images", "meta/classes.txt"),
        _coop(
            "food101",
            "Food101",
            original_folders.food101_lists,
            original_folders.food101_photos,
            photos=("images",),
            keeps_test=True,
        ),
        Count(101),
        Count(30_300),
        "put images and meta (data.vision.ee.ethz.ch/cvl/datasets_extra/food-101)" + _COOP.format(set="Food101"),
        base_test=seen(15_300),
        official_test=Count(25_250),
    ),
    ClassificationEntry(
        "fgvc_aircraft",
        ("fgvcaircraft", "aircraft", "fgvc_aircraft_2013b"),
        ("fgvc_aircraft", "fgvc-aircraft-2013b"),
        ("variants.txt",),
        fgvc_aircraft,
        Count(100),
        Count(3_333),
        "put the folder data of fgvc-aircraft-2013b (robots.ox.ac.uk/~vgg/data/fgvc-aircraft) as {folder}",
        base_test=seen(1_666),
        other_marks=(("data/variants.txt",), ("fgvc-aircraft-2013b/data/variants.txt",)),
    ),
    ClassificationEntry(
        "sun397",
        ("sun_397", "sun"),
        ("sun397", "SUN397"),
        ("ClassName.txt",),
        _coop(
            "sun397",
            "SUN397",
            original_folders.sun397_lists,
            original_folders.sun397_photos,
            photos=("SUN397", "."),
            keeps_test=True,
        ),
        Count(397),
        Count(19_850),
        "put SUN397, and ClassName.txt, Training_01.txt, Testing_01.txt of Partitions.zip "
        "(vision.princeton.edu/projects/2010/SUN)" + _COOP.format(set="SUN397"),
        base_test=seen(9_950),
    ),
    ClassificationEntry(
        "dtd",
        ("describabletextures", "describable_textures"),
        ("dtd",),
        ("images", "labels/train1.txt"),
        _coop(
            "dtd",
            "DescribableTextures",
            original_folders.dtd_lists,
            original_folders.dtd_photos,
            photos=("images", "dtd/images"),
        ),
        Count(47),
        Count(1_692),
        "put images and labels (robots.ox.ac.uk/~vgg/data/dtd)" + _COOP.format(set="DescribableTextures"),
        base_test=seen(864),
        official_test=Count(1_880),
    ),
    ClassificationEntry(
        "eurosat",
        ("euro_sat",),
        ("eurosat",),
        ("2750",),
        _coop("eurosat", "EuroSAT", None, original_folders.eurosat_photos, photos=original_folders.EUROSAT_PHOTOS),
        Count(10),
        Count(8_100),
        "put 2750 of EuroSAT's RGB archive (github.com/phelber/EuroSAT)" + _COOP.format(set="EuroSAT"),
        base_test=seen(4_200),
        other_marks=(("EuroSAT_RGB",),),
    ),
    ClassificationEntry(
        "ucf101",
        ("ucf_101", "ucf"),
        ("ucf101", "UCF101"),
        ("UCF-101-midframes",),
        _coop("ucf101", "UCF101", original_lists.ucf101_lists, None, photos=("UCF-101-midframes",), keeps_test=True),
        Count(101),
        Count(3_783),
        "put UCF-101-midframes of CoOp, and ucfTrainTestlist (crcv.ucf.edu/data/UCF101.php)"
        + _COOP.format(set="UCF101"),
        base_test=seen(1_934),
        other_marks=(("UCF-101", "ucfTrainTestlist"),),
    ),
)
