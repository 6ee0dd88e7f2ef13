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
    "model_detections_per_image": "model keeps {} per image",
    "miou_denominator": "mIoU over {}",
    "evaluation_set": "class sets {}",
    "class_groups": "class groups {}",
    "masks_without_ground_truth": "photos without true masks: {}",
    "namesakes": "duplicate names {}",
    "images": "{} images",
    "images_of": "images of {}",
    "unreadable": "unreadable: {}",
    "scorer": "scored by {}",
    "source": "from {}",
}
_IN_CAPTIONS = ["selection", "protocol", "split", "metric", "candidate_names", "candidates", "half", "detections"]
_IN_CAPTIONS += ["miou_denominator", "evaluation_set", "images"]
_VALUES = {"ground_truth": "classes with ground truth", "union": "classes with ground truth or predictions"}


def protocol_key(protocol: Mapping[str, Any]) -> str:
    """A text that two protocols share exactly when they agree in every entry."""
    return json.dumps({key: protocol[key] for key in protocol if key not in OUTCOMES}, sort_keys=True, default=str)


def phrases(protocol: Mapping[str, Any]) -> list[str]:
    """Each entry of a protocol as a phrase, the most informative first; hashes last, shortened."""
    return [_phrase(protocol, key) for key in _keys([protocol])]


def shared_phrases(protocols: Sequence[Mapping[str, Any]], dataset: str) -> str:
    """The shared entries of several protocols that a reader of a table must know."""
    first, different = protocols[0], _different_keys(protocols)
    keys = [key for key in _IN_CAPTIONS if key in first and key not in different and first[key] != dataset]
    return "; ".join(_phrase(first, key) for key in keys)


def differences(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each of several protocols, the entries that are not the same in all; texts differ where protocols do.

    Hashes are shown only where nothing else distinguishes two protocols.
    """
    keys = _different_keys(protocols)
    plain = [key for key in keys if not _is_hash(key)]
    distinct = len({protocol_key(protocol) for protocol in protocols})
    texts: list[str] = []
    # Two values may read the same: a number and its text, or two long lists.
    for shown_keys, text in ((plain, _phrase), (keys, _phrase), (keys, _exactly)):
        texts = [", ".join(text(protocol, key) for key in shown_keys) for protocol in protocols]
        if len(set(texts)) == distinct:
            break
    return texts


def _keys(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    order = {key: place for place, key in enumerate(_PHRASES)}
    known = {key for protocol in protocols for key in protocol} - OUTCOMES
    return sorted(known, key=lambda key: (_is_hash(key), order.get(key, len(order)), key))


def _different_keys(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    return [key for key in _keys(protocols) if len({_exactly(protocol, key) for protocol in protocols}) > 1]


def _exactly(protocol: Mapping[str, Any], key: str) -> str:
    value = json.dumps(protocol[key], sort_keys=True, default=str) if key in protocol else "not stated"
    return f"{json.dumps(key)} {value}"


def _phrase(protocol: Mapping[str, Any], key: str) -> str:
    name, value = key.replace("_", " "), protocol.get(key)
    if value is None:
        return f"{name} not stated"
    text = _value(value)[:12] if _is_hash(key) else _value(value)
    return _PHRASES[key].format(text) if key in _PHRASES else f"{name} {text}"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_value(part)}" for name, part in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return f"{len(value):,}" if len(value) > 3 else ", ".join(map(str, value)) or "none"
    return _VALUES.get(value, value) if isinstance(value, str) else str(value)


def _is_hash(key: str) -> bool:
    return key.endswith("sha256")
