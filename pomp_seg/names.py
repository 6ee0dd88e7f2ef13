"""Which configurations are those of a segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

META_ARCHITECTURES = ("MaskFormer", "ZeroShotMaskFormer", "ProposalClipClassifier", "ZeroShotPerPixelModel")


def is_segmenter(file: str | Path, overrides: Sequence[Any] = ()) -> bool:
    """Whether ``MODEL.META_ARCHITECTURE`` of a YAML file, or of ``KEY VALUE`` overrides, is a segmenter's.

    Raises:
        UserError: when the file is absent or cannot be read.
    """
    from pomp_engine.config import override_pairs, read_config

    settings: Any = read_config(Path(file)).get("MODEL", {})
    name = settings.get("META_ARCHITECTURE", "") if isinstance(settings, dict) else ""
    for key, value in override_pairs(overrides):
        if key == "MODEL.META_ARCHITECTURE":
            name = value
    return name in META_ARCHITECTURES
