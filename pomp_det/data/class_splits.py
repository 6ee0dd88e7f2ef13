"""Class splits of the open-vocabulary protocols of detection."""

from __future__ import annotations

from prompt_core.vocabulary import Vocabulary

# The split of Bansal et al. 2018 ("Zero-Shot Object Detection") as OVR-CNN (Zareian et al. 2021) uses it: 48 classes
# have boxes in training, 17 have none, the other 15 of COCO's 80 are annotated in neither training nor validation.
COCO_SEEN = (
    *("person", "bicycle", "car", "motorcycle", "train", "truck", "boat", "bench", "bird", "horse", "sheep", "bear"),
    *("zebra", "giraffe", "backpack", "handbag", "suitcase", "frisbee", "skis", "kite", "surfboard", "bottle", "fork"),
    *("spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot", "pizza", "donut", "chair", "bed"),
    *("toilet", "tv", "laptop", "mouse", "remote", "microwave", "oven", "toaster", "refrigerator", "book", "clock"),
    *("vase", "toothbrush"),
)
COCO_UNSEEN = (
    *("airplane", "bus", "cat", "dog", "cow", "elephant", "umbrella", "tie", "snowboard", "skateboard", "cup", "knife"),
    *("cake", "couch", "keyboard", "sink", "scissors"),
)


def category_ids(names: tuple[str, ...], vocabulary: Vocabulary) -> list[int]:
    """Category ids of class names, in the order of the vocabulary.

    Raises:
        KeyError: when the vocabulary lacks a name.
    """
    assert vocabulary.ids is not None
    of_name = dict(zip(vocabulary.names, vocabulary.ids, strict=True))
    return sorted(int(of_name[name]) for name in names)
