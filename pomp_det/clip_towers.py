"""A frozen CLIP for training a detector: embeddings of image regions, and features of captions."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import Tensor

from prompt_core.data.region_crops import region_crops
from prompt_core.errors import UserError, nearest
from prompt_core.files import read_json
from prompt_core.towers.build import SCHEMAS

ENLARGEMENTS = (1.0, 1.5)  # ViLD (Gu et al., arXiv 2104.13921) adds the crop of a 1.5 times larger box


class RegionEmbedder:
    """A frozen CLIP image tower, loaded when the first region comes.

    Not a module: checkpoints of a detector that learns from it need not hold its weights.
    """

    def __init__(
        self,
        name: str,
        pretrained: str | None,
        width: int,
        enlargements: Sequence[float] = ENLARGEMENTS,
        half_precision: bool = False,
    ) -> None:
        """
        Args:
            name: see :func:`prompt_core.load_clip`, as ``pretrained``.
            width: E, which the embeddings must have.
            enlargements: of the boxes; a region's embedding is the mean over its crops.
            half_precision: encode in half precision on a GPU; the CPU stays in float32.

        Raises:
            UserError: an unknown architecture, or one of another width.
        """
        self.name, self.pretrained, self.width = name, pretrained, width
        self.enlargements, self.half_precision = tuple(enlargements), half_precision
        self._clip: Any = None
        known = clip_width(name)
        if known is not None:
            self._check_width(known)

    @torch.no_grad()
    def __call__(self, images: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Unit-norm embeddings (R, E) of the regions of all images, in their order.

        Args:
            images: (3, H_i, W_i) RGB in 0..255, all on one device, which the tower is loaded to.
            boxes: (R_i, 4) of each image, in its pixels.

        Raises:
            UserError: weights that cannot be loaded, or a tower of another width.
        """
        filled = [(image, image_boxes) for image, image_boxes in zip(images, boxes, strict=True) if len(image_boxes)]
        if not filled:
            return images[0].new_zeros(0, self.width, dtype=torch.float32)
        return torch.cat([self._embed(image, image_boxes) for image, image_boxes in filled])

    def _embed(self, image: Tensor, boxes: Tensor) -> Tensor:
        clip = self._loaded(image.device)
        crops = [region_crops(image, boxes, clip.image_size, enlargement) for enlargement in self.enlargements]
        pixels = torch.cat(crops) / 255  # (S * R, 3, size, size), one enlargement after the other
        mean, std = (pixels.new_tensor(statistics).view(3, 1, 1) for statistics in (clip.image_mean, clip.image_std))
        with torch.autocast(image.device.type, torch.float16, enabled=self.half_precision and image.is_cuda):
            embeddings = clip.encode_image((pixels - mean) / std)  # (S * R, E)
        self._check_width(embeddings.shape[1])
        return F.normalize(embeddings.view(len(self.enlargements), len(boxes), -1).mean(dim=0), dim=1)

    def _loaded(self, device: torch.device) -> Any:
        if self._clip is None:
            from prompt_core.clip import load_clip

            self._clip = load_clip(self.name, self.pretrained, device)
        return self._clip

    def _check_width(self, width: int) -> None:
        if width != self.width:
            raise UserError(
                f"image tower {self.name} gives embeddings of width {width}, the classes have width {self.width}; "
                "use the image tower of the CLIP that the class matrix was made with"
            )


def embedder_of(cfg: CfgNode) -> RegionEmbedder:
    """The image tower of ``MODEL.DISTILLATION_CLIP``, for classes of ``ZEROSHOT_WEIGHT_DIM``.

    Raises:
        UserError: as :class:`RegionEmbedder`.
    """
    clip, width = cfg.MODEL.DISTILLATION_CLIP, cfg.MODEL.ROI_BOX_HEAD.ZEROSHOT_WEIGHT_DIM
    return RegionEmbedder(clip.NAME, clip.PRETRAINED or None, width, half_precision=cfg.FP16)


def clip_width(name: str) -> int | None:
    """Width E of an architecture's embeddings, without loading it; None where only its files say it (``openai``,
    ``hf-hub:`` and ``local-dir:``).

    Raises:
        UserError: an unknown architecture, or a JSON file that is none.
    """
    import open_clip

    if name == "openai" or name.startswith(SCHEMAS):
        return None
    if name == "mini" or name.endswith(".json"):
        file = Path(str(resources.files("prompt_core") / "assets" / "mini.json")) if name == "mini" else Path(name)
        settings: Any = read_json(file)
        settings = settings.get("model_cfg", settings) if isinstance(settings, dict) else {}
    else:
        settings = open_clip.get_model_config(name)
        if settings is None:
            raise UserError(f"unknown architecture {name!r}{nearest(name, open_clip.list_models())}")
    if "embed_dim" not in settings:
        raise UserError(f"{name} is not an open_clip configuration: embed_dim is expected")
    return int(settings["embed_dim"])


class CaptionEncoder:
    """A frozen CLIP text tower, loaded when the first caption comes.

    Not a module: published checkpoints of caption runs hold the tower's weights, which need not be stored again. The
    published code takes ViT-B/32 whatever the class matrix is made with, so with POMP's ViT-B/16 matrix captions and
    class names are in different spaces; ``MODEL.CAPTION_CLIP`` chooses another.
    """

    def __init__(self, name: str, pretrained: str | None, synchronise: bool = False) -> None:
        """
        Args:
            name: see :func:`prompt_core.load_clip`, as ``pretrained``.
            synchronise: captions of all processes are negatives of each other.
        """
        self.name, self.pretrained = name, pretrained
        self.synchronise = synchronise
        self._encoder: Any = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> CaptionEncoder:
        """From ``MODEL.CAPTION_CLIP`` and ``MODEL.SYNC_CAPTION_BATCH``."""
        node = cfg.MODEL.CAPTION_CLIP
        return cls(node.NAME, node.PRETRAINED or None, cfg.MODEL.SYNC_CAPTION_BATCH)

    @torch.no_grad()
    def __call__(self, captions: Sequence[str], device: torch.device, absent: int = 0) -> tuple[Tensor | None, int]:
        """Unit-norm features (N, E) of the captions, and the row of the first of them.

        With ``synchronise`` every process must call this in every step, those whose batch has no caption too (with an
        empty sequence), or the others wait for ever. The features are None when no process has a caption.

        Args:
            absent: captions that a process without any would have. For the others they are rows of zeros, as published:
                they add a constant to the loss.
        """
        features = self._encode(captions, device) if captions else None
        if not self.synchronise or comm.get_world_size() == 1:
            return features, 0
        everyone = comm.all_gather((absent, None) if features is None else (len(features), features.cpu()))
        first = sum(rows for rows, _ in everyone[: comm.get_rank()])
        known = next((part for _, part in everyone if part is not None), None)
        if known is None:
            return None, first
        parts = [known.new_zeros(rows, known.shape[1]) if part is None else part for rows, part in everyone]
        return torch.cat(parts).to(device), first

    def _encode(self, captions: Sequence[str], device: torch.device) -> Tensor:
        if self._encoder is None:
            from prompt_core.clip import load_clip
            from prompt_core.text.encoder import PromptedTextEncoder

            self._encoder = PromptedTextEncoder(load_clip(self.name, self.pretrained, device))
        return self._encoder.encode_texts(list(captions)).float()
