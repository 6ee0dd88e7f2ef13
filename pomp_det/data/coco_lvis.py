"""Which class of LVIS is which of COCO: all 80 are in LVIS v1, 21 of them under another name."""

from __future__ import annotations

from prompt_core.vocabulary import Vocabulary, plain_name

# From lvis-api's data/coco_to_synset.json, with LVIS's "sausage" for "hot dog", as Detic's tools have it.
OTHER_NAMES = {
    "bus": "bus_(vehicle)",
    "car": "car_(automobile)",
    "cell phone": "cellular_telephone",
    "couch": "sofa",
    "donut": "doughnut",
    "fire hydrant": "fireplug",
    "hair drier": "hair_dryer",
    "hot dog": "sausage",
    "keyboard": "computer_keyboard",
    "laptop": "laptop_computer",
    "microwave": "microwave_oven",
    "mouse": "mouse_(computer_equipment)",
    "orange": "orange_(fruit)",
    "potted plant": "flowerpot",
    "remote": "remote_control",
    "skis": "ski",
    "sports ball": "ball",
    "tie": "necktie",
    "train": "train_(railroad_vehicle)",
    "tv": "television_set",
    "wine glass": "wineglass",
}


def lvis_classes_of_coco() -> dict[int, int]:
    """Row in LVIS's vocabulary of each category id of COCO."""
    coco, lvis = Vocabulary.load("coco"), Vocabulary.load("lvis")
    rows = {plain_name(name): row for row, name in enumerate(lvis.names)}
    return {
        int(category): rows[plain_name(OTHER_NAMES.get(name, name))]
        for category, name in zip(coco.ids or (), coco.names, strict=True)
    }
