"""ImageNet-1K and 21K, the test sets made for the former, and Tiny-ImageNet: folders, readers, expected numbers."""

from __future__ import annotations

from prompt_core.data.catalog.entry import ClassificationEntry, Count, seen
from prompt_core.data.readers import imagenet_1k
from prompt_core.data.readers.imagenet import imagenet21k, tiny_imagenet

_CLASS_NAMES = "; classnames.txt is CoOp's"

TRAINING_SETS = (
    ClassificationEntry(
        name="imagenet",
        aliases=("imagenet1k", "imagenet_1k", "ilsvrc2012"),
        folders=("imagenet", "ILSVRC2012"),
        marks=(),
        reader=imagenet_1k.imagenet,
        classes=seen(1_000),
        test=Count(50_000),
        how="unpack ILSVRC2012 (image-net.org) into {folder}/images/train and {folder}/images/val, "
        "a folder for each wnid" + _CLASS_NAMES,
        splits=("train", "test"),
    ),
    ClassificationEntry(
        name="imagenet21k",
        aliases=("imagenet_21k", "imagenet21k_p", "imagenet21k_resized"),
        folders=("imagenet21k_resized", "imagenet21k"),
        marks=("imagenet21k_train",),
        reader=imagenet21k,
        classes=Count(10_450),
        test=seen(522_500),
        how="unpack the processed winter-21 release (github.com/Alibaba-MIIL/ImageNet21K) into {folder}",
        splits=("test",),
    ),
)

TEST_SETS = (
    ClassificationEntry(
        name="imagenet_v2",
        aliases=("imagenetv2",),
        folders=("imagenetv2", "imagenetv2-matched-frequency-format-val"),
        marks=("imagenetv2-matched-frequency-format-val",),
        reader=imagenet_1k.imagenet_v2,
        classes=seen(1_000),
        test=Count(10_000),
        how="unpack imagenetv2-matched-frequency-format-val (github.com/modestyachts/ImageNetV2) into {folder}"
        + _CLASS_NAMES,
        splits=("test",),
    ),
    ClassificationEntry(
        name="imagenet_sketch",
        aliases=("imagenetsketch",),
        folders=("imagenet-sketch",),
        marks=(),
        reader=imagenet_1k.imagenet_sketch,
        classes=seen(1_000),
        test=Count(50_889),
        how="unpack ImageNet-Sketch (github.com/HaohanWang/ImageNet-Sketch) into {folder}/images" + _CLASS_NAMES,
        splits=("test",),
    ),
    ClassificationEntry(
        name="imagenet_a",
        aliases=("imageneta", "imagenet_adversarial"),
        folders=("imagenet-adversarial", "imagenet-a"),
        marks=("imagenet-a",),
        reader=imagenet_1k.imagenet_a,
        classes=seen(200),
        test=Count(7_500),
        how="unpack imagenet-a (github.com/hendrycks/natural-adv-examples) into {folder}" + _CLASS_NAMES,
        splits=("test",),
    ),
    ClassificationEntry(
        name="imagenet_r",
        aliases=("imagenetr", "imagenet_rendition"),
        folders=("imagenet-rendition", "imagenet-r"),
        marks=("imagenet-r",),
        reader=imagenet_1k.imagenet_r,
        classes=seen(200),
        test=Count(30_000),
        how="unpack imagenet-r (github.com/hendrycks/imagenet-r) into {folder}" + _CLASS_NAMES,
        splits=("test",),
    ),
    ClassificationEntry(
        name="tiny_imagenet",
        aliases=("tinyimagenet", "tiny_imagenet_200"),
        folders=("tiny-imagenet-200",),
        marks=("wnids.txt", "words.txt"),
        reader=lambda folder, split: tiny_imagenet(folder, "val" if split == "test" else split),
        classes=Count(200),
        test=Count(10_000),
        how="unpack tiny-imagenet-200.zip (cs231n.stanford.edu) as {folder}",
        splits=("train", "val"),
    ),
)
