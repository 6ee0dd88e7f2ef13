"""Protocols in words: when two are the same, and how they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

# What came out of a run, not what it followed.
OUTCOMES = frozenset({"total_detections"})

# The most telling first. {} is the value in words.
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
_TELLING = (
    "selection",
    "protocol",
    "split",
    "metric",
    "candidate_names",
    "candidates",
    "half",
    "detections",
    "miou_denominator",
    "evaluation_set",
    "images",
)
_VALUES = {
    ("miou_denominator", "ground_truth"): "classes with ground truth",
    ("miou_denominator", "union"): "classes with ground truth or predictions",
}


def protocol_key(protocol: Mapping[str, Any]) -> str:
    """The same text for two protocols exactly when they agree in every word."""
    kept = {key: value for key, value in protocol.items() if key not in OUTCOMES}
    return json.dumps(kept, sort_keys=True, default=str)


def in_words(protocol: Mapping[str, Any]) -> dict[str, str]:
    """Each word of a protocol as a phrase, the most telling first; hashes last, shortened."""
    keys = sorted((key for key in protocol if key not in OUTCOMES), key=_order)
    return {key: _phrase(key, protocol[key]) for key in keys}


def in_brief(protocols: Sequence[Mapping[str, Any]], dataset: str) -> str:
    """What several protocols share, as far as a reader of a table must know it."""
    shared = []
    for key in _TELLING:
        if len({_exact(each, key) for each in protocols}) == 1 and key in protocols[0] and protocols[0][key] != dataset:
            shared.append(_phrase(key, protocols[0][key]))
    return "; ".join(shared)


def differences(protocols: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each of several protocols, all that does not hold for all of them; texts differ where protocols do.

    Hashes are told only where nothing else tells two protocols apart.
    """
    keys = {key for protocol in protocols for key in protocol if key not in OUTCOMES}
    differing = sorted((key for key in keys if len({_exact(each, key) for each in protocols}) > 1), key=_order)
    plain = [key for key in differing if not _is_hash(key)]
    identities = [protocol_key(protocol) for protocol in protocols]
    texts = [_join(protocol, plain) for protocol in protocols]
    if _confused(texts, identities):
        texts = [_join(protocol, differing) for protocol in protocols]
    if _confused(texts, identities):
        # Two values that read the same: a number and its text, or two long lists.
        texts = [_join(protocol, differing, exact=True) for protocol in protocols]
    return texts


def _confused(texts: Sequence[str], identities: Sequence[str]) -> bool:
    return len(set(texts)) < len(set(identities))


def _join(protocol: Mapping[str, Any], keys: Sequence[str], exact: bool = False) -> str:
    parts = []
    for key in keys:
        if exact:
            parts.append(f"{json.dumps(key)} {_exact(protocol, key)}")
        elif key in protocol:
            parts.append(_phrase(key, protocol[key]))
        else:
            parts.append(f"{_plain(key)} not stated")
    return ", ".join(parts)


def _exact(protocol: Mapping[str, Any], key: str) -> str:
    return json.dumps(protocol[key], sort_keys=True, default=str) if key in protocol else "not stated"


def _phrase(key: str, value: Any) -> str:
    if value is None:
        return f"{_plain(key)} not stated"
    words = _VALUES.get((key, value)) if isinstance(value, str) else None
    text = words or _value(key, value)
    return _PHRASES[key].format(text) if key in _PHRASES else f"{_plain(key)} {text}"


def _value(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_value(key, each)}" for name, each in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return f"{len(value):,}" if len(value) > 3 else ", ".join(str(each) for each in value) or "none"
    return str(value)[:12] if _is_hash(key) else str(value)


def _plain(key: str) -> str:
    return key.replace("_", " ")


def _is_hash(key: str) -> bool:
    return key.endswith("sha256")


def _order(key: str) -> tuple[bool, int, str]:
    known = list(_PHRASES)
    return _is_hash(key), known.index(key) if key in known else len(known), key
