"""The embedded segmenter's training labels and its shipped weights."""

from __future__ import annotations

from pathlib import Path

from detectron2.config import CfgNode
from torch import Tensor

from pomp_lab.mini_segmenter.pixel_labels import VOC_SPELLINGS, from_masks, from_panoptic, from_voc, plain_names, write
from pomp_lab.shipped_weights import half_precision
from pomp_seg import build_segmenter, load_weights
from pomp_seg.data.label_sets import label_set
from prompt_core.errors import UserError
from prompt_core.files import write_text

CLIP = "clip_adapter."  # mini, which has a file of its own


def make_labels(root: Path) -> dict[str, int]:
    """Write ``mini_seg`` below the data root; how many photos each part has.

    Args:
        root: with coco128, coco_more, voc_boxes, voc_seg and the files of ``prepare.py coco_small_seg``.

    Raises:
        UserError: a folder that is absent.
    """
    coco, voc = label_set("coco_panoptic").vocabulary.names, label_set("voc").vocabulary.names
    voc2007, voc2012 = root / "voc_boxes", root / "voc_seg/VOC2012"
    document = root / "coco_more/annotations/instances_train2017.json"
    for needed in (root / "coco_small_seg/train", document, voc2007, voc2012):
        if not needed.exists():
            raise UserError(f"{needed} does not exist; datasets/README.md says what the folders hold")
    output, names = root / "mini_seg", [*plain_names(list(coco)), *VOC_SPELLINGS]
    of_voc = [names.index(name) for name in voc]
    write_text(output / "names.txt", "\n".join(names) + "\n")
    write_text(output / "voc.txt", "\n".join(voc) + "\n")
    parts = {
        "coco": from_panoptic(root, "train"),
        "masks": from_masks(root, document, "coco_more/train2017"),
        "voc2007": from_voc(
            voc2007 / "SegmentationClass", voc2007 / "train2007", voc2007 / "ImageSets/Segmentation/train.txt", of_voc
        ),
        "voc2012": from_voc(
            voc2012 / "SegmentationClass", voc2012 / "JPEGImages", voc2012 / "ImageSets/Segmentation/train.txt", of_voc
        ),
    }
    counts = {name: write(examples, output / "train", name) for name, examples in parts.items()}
    own = list(range(len(voc)))
    validation = from_voc(
        voc2007 / "SegmentationClass", voc2007 / "val2007", voc2007 / "ImageSets/Segmentation/val.txt", own
    )
    return counts | {"voc_val": write(validation, output / "voc_val", "voc2007")}


def finished_weights(cfg: CfgNode, trained: Path) -> dict[str, Tensor]:
    """What is shipped: backbone and head in half precision; CLIP is mini's own file.

    Args:
        trained: checkpoint of the training.
    """
    model = build_segmenter(cfg)
    load_weights(model, trained)
    return half_precision({key: value for key, value in model.state_dict().items() if not key.startswith(CLIP)})
