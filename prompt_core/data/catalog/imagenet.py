"""ImageNet-1K and 21K, the test sets made for the former, and Tiny-ImageNet: folders, readers, expected numbers."""

from __future__ import annotations

from prompt_core.data.catalog.entry import ClassificationEntry, Count, seen
from prompt_core.data.readers import imagenet_1k
from prompt_core.data.readers.imagenet import imagenet21k, tiny_imagenet

_CLASS_NAMES = "; classnames.txt is CoOp's"

TRAINING_SETS = (
    ClassificationEntry(
        "imagenet",
        ("imagenet1k", "imagenet_1k", "ilsvrc2012"),
        ("imagenet", "ILSVRC2012"),
        (),
        imagenet_1k.imagenet,
        seen(1_000),
        Count(50_000),
        "unpack ILSVRC2012 (image-net.org) into {folder}/images/train and {folder}/images/val, a folder for each wnid"
        + _CLASS_NAMES,
        splits=("train", "test"),
    ),
    ClassificationEntry(
        "imagenet21k",
        ("imagenet_21k", "imagenet21k_p", "imagenet21k_resized"),
        ("imagenet21k_resized", "imagenet21k"),
        ("imagenet21k_train",),
        imagenet21k,
        Count(10_450),
        seen(522_500),
        "unpack the processed winter-21 release (github.com/Alibaba-MIIL/ImageNet21K) into {folder}",
        splits=("test",),
    ),
)

TEST_SETS = (
    ClassificationEntry(
        "imagenet_v2",
        ("imagenetv2",),
        ("imagenetv2", "imagenetv2-matched-frequency-format-val"),
        ("imagenetv2-matched-frequency-format-val",),
        imagenet_1k.imagenet_v2,
        seen(1_000),
        Count(10_000),
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
        seen(1_000),
        Count(50_889),
        "unpack ImageNet-Sketch (github.com/HaohanWang/ImageNet-Sketch) into {folder}/images" + _CLASS_NAMES,
        splits=("test",),
    ),
    ClassificationEntry(
        "imagenet_a",
        ("imageneta", "imagenet_adversarial"),
        ("imagenet-adversarial", "imagenet-a"),
        ("imagenet-a",),
        imagenet_1k.imagenet_a,
        seen(200),
        Count(7_500),
        "unpack imagenet-a (github.com/hendrycks/natural-adv-examples) into {folder}" + _CLASS_NAMES,
        splits=("test",),
    ),
    ClassificationEntry(
        "imagenet_r",
        ("imagenetr", "imagenet_rendition"),
        ("imagenet-rendition", "imagenet-r"),
        ("imagenet-r",),
        imagenet_1k.imagenet_r,
        seen(200),
        Count(30_000),
        "unpack imagenet-r (github.com/hendrycks/imagenet-r) into {folder}" + _CLASS_NAMES,
        splits=("test",),
    ),
    ClassificationEntry(
        "tiny_imagenet",
        ("tinyimagenet", "tiny_imagenet_200"),
        ("tiny-imagenet-200",),
        ("wnids.txt", "words.txt"),
        lambda folder, split: tiny_imagenet(folder, "val" if split == "test" else split),
        Count(200),
        Count(10_000),
        "unpack tiny-imagenet-200.zip (cs231n.stanford.edu) as {folder}",
        splits=("train", "val"),
    ),
)
