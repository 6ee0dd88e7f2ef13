"""Protocols in words: when two are the same, and how they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

# Outcomes of a run, not part of its protocol.
OUTCOMES = frozenset({"total_detections"})
# The most informative first. {} is the value as text.
_PHRASES = {
    "selection": "{}",
    "split": "split {}",
    "metric": "{}",
    "mean_of": "mean of {} data sets",
    "candidate_names": "among {}",
    "candidates": "{} candidates",
    "half": "{} half",
    "classes": "{} classes",
    "detections": "detections: {}",
    "model_detections_per_image": "model keeps {} of an image",
    "miou_denominator": "mIoU over {}",
    "evaluation_set": "class sets {}",
    "class_groups": "class groups {}",
    "masks_without_ground_truth": "photos without true masks: {}",
    "namesakes": "classes of one name {}",
    "images": "{} images",
    "images_of": "images of {}",
    "unreadable": "unreadable: {}",
    "scorer": "scored by {}",
    "source": "from {}",
}
_ORDER = list(_PHRASES)
_SHARED = ["selection", "protocol", "split", "metric", "candidate_names", "candidates", "half", "detections"]
_SHARED += ["miou_denominator", "evaluation_set", "images"]
_VALUES = {
    ("miou_denominator", "ground_truth"): "classes with ground truth",
    ("miou_denominator", "union"): "classes with ground truth or predictions",
}


def protocol_key(protocol: Mapping[str, Any]) -> str:
    """A text that two protocols share exactly when they agree in every entry."""
    return json.dumps({key: protocol[key] for key in protocol if key not in OUTCOMES}, sort_keys=True, default=str)


def phrases(protocol: Mapping[str, Any]) -> list[str]:
    """Each entry of a protocol as a phrase, the most informative first; hashes last, shortened."""
    return [_phrase(key, protocol[key]) for key in sorted(protocol, key=_place) if key not in OUTCOMES]


def shared_phrases(protocols: Sequence[Mapping[str, Any]], dataset: str) -> str:
    """The shared entries of several protocols that a reader of a table must know."""
    shared = [key for key in _SHARED if len({_exact(protocol, key) for protocol in protocols}) == 1]
    first = protocols[0]
    return "; ".join(_phrase(key, first[key]) for key in shared if key in first and first[key] != dataset)


def differences(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each of several protocols, the entries that are not the same in all; texts differ where protocols do.

    Hashes are shown only where nothing else distinguishes two protocols.
    """
    keys = sorted({key for protocol in protocols for key in protocol} - OUTCOMES, key=_place)
    keys = [key for key in keys if len({_exact(protocol, key) for protocol in protocols}) > 1]
    plain = [key for key in keys if not _is_hash(key)]
    distinct = len({protocol_key(protocol) for protocol in protocols})
    texts: list[str] = []
    # Two values may read the same: a number and its text, or two long lists.
    for shown_keys, phrase in ((plain, _stated), (keys, _stated), (keys, _exactly)):
        texts = [", ".join(phrase(protocol, key) for key in shown_keys) for protocol in protocols]
        if len(set(texts)) == distinct:
            break
    return texts


def _stated(protocol: Mapping[str, Any], key: str) -> str:
    return _phrase(key, protocol[key]) if key in protocol else f"{_plain(key)} not stated"


def _exactly(protocol: Mapping[str, Any], key: str) -> str:
    return f"{json.dumps(key)} {_exact(protocol, key)}"


def _exact(protocol: Mapping[str, Any], key: str) -> str:
    return json.dumps(protocol[key], sort_keys=True, default=str) if key in protocol else "not stated"


def _phrase(key: str, value: Any) -> str:
    if value is None:
        return f"{_plain(key)} not stated"
    text = (_VALUES.get((key, value)) if isinstance(value, str) else None) or _value(key, value)
    return _PHRASES[key].format(text) if key in _PHRASES else f"{_plain(key)} {text}"


def _value(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_value(key, part)}" for name, part in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return f"{len(value):,}" if len(value) > 3 else ", ".join(map(str, value)) or "none"
    return str(value)[:12] if _is_hash(key) else str(value)


def _plain(key: str) -> str:
    return key.replace("_", " ")


def _is_hash(key: str) -> bool:
    return key.endswith("sha256")


def _place(key: str) -> tuple[bool, int, str]:
    return _is_hash(key), _ORDER.index(key) if key in _ORDER else len(_ORDER), key
