"""Which configurations are those of a segmenter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prompt_core.errors import UserError, nearest

META_ARCHITECTURES = ("MaskFormer", "ZeroShotMaskFormer", "ProposalClipClassifier", "ZeroShotPerPixelModel")


def is_segmenter(file: str | Path, overrides: Sequence[Any] = ()) -> bool:
    """Whether ``MODEL.META_ARCHITECTURE`` of a YAML file, or of ``KEY VALUE`` overrides, is a segmenter's.

    Raises:
        UserError: when the file is absent or cannot be read, or the name is nearly a segmenter's: a detector's keys
            would be asked for otherwise.
    """
    from pomp_engine.config import override_pairs, read_config

    settings: Any = read_config(Path(file)).get("MODEL", {})
    name = settings.get("META_ARCHITECTURE", "") if isinstance(settings, dict) else ""
    for key, value in override_pairs(overrides):
        if key == "MODEL.META_ARCHITECTURE":
            name = value
    hint = "" if name in META_ARCHITECTURES else nearest(str(name), META_ARCHITECTURES)
    if hint:
        raise UserError(f"MODEL.META_ARCHITECTURE is {name!r}, neither a detector nor a segmenter{hint}")
    return name in META_ARCHITECTURES
