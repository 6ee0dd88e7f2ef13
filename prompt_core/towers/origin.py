"""Which CLIP class features come from: by what their file says, else by the features themselves.

Features of two CLIPs may have one width and nothing in common, and published ``.npy`` files do not say whose they are.
But all class features of a CLIP share a mean direction, whose few large coordinates differ from tower to tower and
survive rounding, scaling, and another choice of classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prompt_core.dassl.keys import BACKBONES
from prompt_core.towers.build import SCHEMAS

# The eight largest coordinates of the mean unit row, over the published matrices of each tower: Detic's
# ``{lvis_v1,coco,oid}_clip_a+cname.npy`` and ``o365_clip_a+cnamefix.npy`` (facebookresearch/Detic), POMP's
# ``{lvis_v1,coco,o365_fixname}_clip_pomp+cname.npy`` (amazon-science/prompt-pretraining).
_MEAN_DIRECTIONS = {
    "ViT-B-32-quickgelu": {
        133: 0.554, 312: 0.554, 329: -0.204, 92: -0.144, 7: -0.083, 493: 0.069, 121: -0.053, 481: -0.047
    },
    "ViT-B-16-quickgelu": {
        362: 0.652, 442: 0.128, 486: 0.076, 167: -0.076, 212: -0.074, 39: 0.064, 130: -0.060, 179: 0.060
    },
}  # fmt: skip
_WIDTH = 512
# Relative distance in these coordinates. Measured: 0.02 for a published matrix, at most 0.26 for any two of its rows,
# at least 0.92 for rows of the other tower and for random ones.
_TOLERANCE = 0.3


@dataclass(frozen=True)
class Origin:
    """The CLIP that made class features.

    Attributes:
        clip: architecture, as :func:`prompt_core.load_clip` takes it.
        pretrained: tag or file name of the weights, where it is known.
        by_content: whether it was told from the features, not from what a file says.
    """

    clip: str
    pretrained: str | None = None
    by_content: bool = False

    def __str__(self) -> str:
        notes = [self.pretrained] if self.pretrained and "." not in self.pretrained else []
        notes += ["told by its content"] if self.by_content else []
        return f"CLIP {self.clip}" + (f" ({', '.join(notes)})" if notes else "")

    def differs_from(self, other: Origin) -> bool:
        """Whether both are known to be different architectures, or different published weights of one.

        OpenAI's architectures go with and without ``-quickgelu``; where files say the architecture, it is not known.
        """
        from open_clip import list_pretrained_tags_by_model

        clips = (self.clip, other.clip)
        if "openai" in clips or any(clip.startswith(SCHEMAS) for clip in clips):
            return False
        if _architecture(self.clip) != _architecture(other.clip):
            return True
        tags = list_pretrained_tags_by_model(_architecture(self.clip))
        return self.pretrained != other.pretrained and self.pretrained in tags and other.pretrained in tags


def stated_origin(metadata: Mapping[str, Any]) -> Origin | None:
    """What the metadata of a prompt or a classifier say."""
    clip, pretrained = metadata.get("clip"), metadata.get("pretrained")
    if not isinstance(clip, str) or not clip:
        return None
    return Origin(clip, pretrained if isinstance(pretrained, str) else None, metadata.get("clip_by_content") is True)


def origin_by_name(path: Path) -> Origin | None:
    """The CLIP of a published checkpoint, which only its name says, or that of its run's folder.

    ``vit_b16_ep20_randaug2_unc1000_…_seed42.pth.tar`` was learned with ViT-B/16; runs of POMP and CoOp begin with the
    name of their configuration.
    """
    for part in reversed(path.parts):
        for backbone, (clip, _) in BACKBONES.items():
            if part.startswith(backbone.lower().replace("-", "_").replace("/", "") + "_ep"):
                return Origin(clip, "openai")
    return None


def recognise(rows: Tensor) -> Origin | None:
    """The CLIP of class features (C, E) of any norm, as far as it is known by its features; rows of zeros are left out.

    Returns:
        None for another width, for features of other CLIPs and for those that are not finite.
    """
    if rows.dim() != 2 or rows.shape[1] != _WIDTH:
        return None
    rows = rows.detach().float().cpu()
    mean = F.normalize(rows[rows.abs().sum(dim=1) > 0], dim=1).mean(dim=0)  # (E,)
    for clip, coordinates in _MEAN_DIRECTIONS.items():
        expected = torch.tensor(list(coordinates.values()))
        if float((mean[list(coordinates)] - expected).norm() / expected.norm()) < _TOLERANCE:
            return Origin(clip, "openai", by_content=True)
    return None


def content_metadata(rows: Tensor, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """``metadata`` of class features, with the CLIP that they come from where only their content says it."""
    found = None if stated_origin(metadata) else recognise(rows)
    if found is None:
        return dict(metadata)
    return {**metadata, "clip": found.clip, "pretrained": found.pretrained, "clip_by_content": True}


def _architecture(name: str) -> str:
    return Path(name).name.removesuffix("-quickgelu")
