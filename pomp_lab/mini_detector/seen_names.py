"""Other names of COCO's 80 classes: words that the embedded detector answers by what it knows of a class."""

from __future__ import annotations

from collections.abc import Sequence

# Common English synonyms, spellings of Pascal VOC, and for people and dogs the words that are said instead.
OTHER_NAMES = {
    "person": ["people", "man", "woman", "child", "boy", "girl", "pedestrian", "human"],
    "bicycle": ["bike", "cycle"],
    "car": ["automobile", "sedan"],
    "motorcycle": ["motorbike", "scooter"],
    "airplane": ["aeroplane", "plane", "aircraft", "jet"],
    "bus": ["coach"],
    "train": ["locomotive"],
    "truck": ["lorry", "pickup truck"],
    "boat": ["ship", "sailboat"],
    "traffic light": ["traffic signal", "stoplight"],
    "fire hydrant": ["hydrant"],
    "cat": ["kitten", "house cat"],
    "dog": ["puppy", "hound"],
    "cow": ["cattle", "bull"],
    "sheep": ["lamb"],
    "horse": ["pony"],
    "backpack": ["rucksack"],
    "handbag": ["purse"],
    "tie": ["necktie"],
    "suitcase": ["luggage"],
    "skis": ["ski"],
    "sports ball": ["ball", "soccer ball", "football"],
    "wine glass": ["goblet"],
    "cup": ["mug", "coffee cup"],
    "donut": ["doughnut"],
    "couch": ["sofa", "settee"],
    "potted plant": ["pottedplant", "houseplant", "plant"],
    "dining table": ["diningtable", "table", "kitchen table"],
    "tv": ["tvmonitor", "tv monitor", "television", "monitor", "screen"],
    "laptop": ["notebook computer"],
    "mouse": ["computer mouse"],
    "remote": ["remote control"],
    "keyboard": ["computer keyboard"],
    "cell phone": ["mobile phone", "smartphone", "telephone"],
    "refrigerator": ["fridge"],
    "teddy bear": ["teddy"],
    "hair drier": ["hair dryer", "blow dryer"],
}


def seen_names(classes: Sequence[str]) -> tuple[list[str], list[int]]:
    """All names of the classes, first their own, and the class of each."""
    names, numbers = list(classes), list(range(len(classes)))
    for number, name in enumerate(classes):
        names += OTHER_NAMES.get(name, [])
        numbers += [number] * len(OTHER_NAMES.get(name, []))
    return names, numbers
