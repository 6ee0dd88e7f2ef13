"""A detection network beside the image tower of a CLIP: where things are, and what words say of each place."""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from pomp_engine.backbones.efficientnet_lite import freeze_norms
from pomp_engine.backbones.folded import FoldedCopy
from pomp_engine.backbones.nanodet import NanoDet
from prompt_core.errors import UserError

WORDS_STRIDE = 32  # of the image tower's last features


def words_scale(size: int, input_size: int) -> float:
    """Cells of ``words`` that a pixel of the photo has.

    Args:
        size: pixels of the longer side that the image tower sees.
        input_size: pixels of the longer side of the photos that come in.
    """
    return size / input_size / WORDS_STRIDE


def add_words_config(cfg: CfgNode) -> None:
    """Add ``MODEL.WORDS``, in place; the keys are this project's own."""
    node = cfg.MODEL.WORDS = CfgNode()
    node.SEEN_CLASSES = 80  # classes that the detection network was trained for
    # The class of the detection network that each word learns, in the order of the words; empty where it stays frozen.
    node.LEARNED_ROWS = []
    node.CHANNELS = [32, 64, 128, 256]  # of its four stages
    node.TRUNK = "tf_efficientnet_lite0"  # the image tower, an EfficientNet of timm
    node.WIDTH = 116  # of the words' space
    node.SIZE = 320  # pixels of the longer side that the image tower sees
    node.MEAN = [0.48145466, 0.4578275, 0.40821073]  # of RGB values in 0..1, as the image tower was trained
    node.STD = [0.26862954, 0.26130258, 0.27577711]


class DetectionAndWords(Backbone):
    """NanoDet and a CLIP's convolutional image tower on the same photo, both frozen, but for NanoDet's last layers.

    Features are those of :class:`NanoDet`, and ``words`` (B, E, H, W): the image tower's last features behind CLIP's
    linear layer, so that their mean over a region is, but for its length, that region's embedding (as in F-VLM, arXiv
    2209.15639). The image tower sees the photo at a size of its own: a pixel has :func:`words_scale` of their cells.
    """

    learned_before = True  # see pomp_engine.trained_weights

    def __init__(
        self,
        detection: NanoDet,
        trunk: nn.Module,
        trunk_width: int,
        width: int,
        size: int,
        input_size: int,
        colours: tuple[Tensor, Tensor],
        reverse: tuple[bool, bool],
        learns: bool = False,
    ) -> None:
        """
        Args:
            trunk: an EfficientNet of timm.
            trunk_width: channels of its last features.
            width: E.
            size: pixels of the longer side that the image tower sees.
            input_size: pixels of the longer side of the photos that come in.
            colours: factor and shift (3, 1, 1) from the normalised values that come in to those of the image tower,
                channels in the order of the former.
            reverse: whether the detection network, and the image tower, take the channels in the other order.
            learns: the detection network's layers behind its pyramid, which predict cells, learn.
        """
        super().__init__()
        self.detection = detection
        self.image_tower = trunk
        self._folded = FoldedCopy()  # of the image tower
        self.projection = nn.Conv2d(trunk_width, width, 1)
        self.reverse = reverse
        self.shrink = size / input_size
        self.register_buffer("colour_factor", colours[0], persistent=False)
        self.register_buffer("colour_shift", colours[1], persistent=False)
        freeze_norms(self)
        self.requires_grad_(False)
        self.learns = learns
        if learns:
            detection.hidden.requires_grad_(True)
            detection.cells.requires_grad_(True)
        shapes = detection.output_shape()
        self._out_features = [*shapes, "words"]
        self._out_feature_channels = {name: shape.channels for name, shape in shapes.items()} | {"words": width}
        self._out_feature_strides = {name: shape.stride for name, shape in shapes.items()} | {"words": WORDS_STRIDE}

    @property
    def size_divisibility(self) -> int:
        """As the detection network's."""
        return self.detection.size_divisibility

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Features of normalised images (B, 3, H, W)."""
        with torch.no_grad():
            pyramid = self.detection.pyramid(x.flip(1) if self.reverse[0] else x)
            words = self.words(x)
        with torch.set_grad_enabled(self.learns and torch.is_grad_enabled()):
            return self.detection.predict(pyramid) | {"words": words}

    def words(self, x: Tensor) -> Tensor:
        """Embeddings (B, E, h, w) of the places of normalised images (B, 3, H, W), not of unit norm."""
        x = x * self.colour_factor + self.colour_shift
        if self.reverse[1]:
            x = x.flip(1)
        size = [max(1, round(side * self.shrink)) for side in x.shape[-2:]]
        x = F.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        right, bottom = (-size[1] % WORDS_STRIDE, -size[0] % WORDS_STRIDE)
        x = F.pad(x, (0, right, 0, bottom)).contiguous(memory_format=torch.channels_last)  # a quarter faster on CPUs
        features = self._folded(self.image_tower).forward_features(x)
        return self.projection(features)


@BACKBONE_REGISTRY.register()
def build_detection_and_words_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """The networks of ``MODEL.WORDS``, for photos whose longer side is ``INPUT.MAX_SIZE_TEST``.

    Raises:
        UserError: another order of colours, stages that do not fit, or a trunk that timm does not know.
    """
    node: Any = cfg.MODEL.WORDS
    if cfg.INPUT.FORMAT not in ("RGB", "BGR"):
        raise UserError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; build_detection_and_words_backbone takes RGB or BGR")
    rgb = cfg.INPUT.FORMAT == "RGB"
    first = node.CHANNELS[0]
    if first % 2 or list(node.CHANNELS) != [first * 2**stage for stage in range(4)]:
        raise UserError(
            f"MODEL.WORDS.CHANNELS is {list(node.CHANNELS)}; expected four numbers, each twice the one before, the "
            "first one even"
        )
    if node.TRUNK not in timm.list_models("*efficientnet*"):
        raise UserError(f"MODEL.WORDS.TRUNK is {node.TRUNK!r}, no EfficientNet of timm")
    trunk: Any = timm.create_model(node.TRUNK, num_classes=0, global_pool="")
    mean, std = (255 * torch.tensor(list(values)) for values in (node.MEAN, node.STD))  # RGB, 0..255
    if not rgb:
        mean, std = mean.flip(0), std.flip(0)
    input_mean, input_std = (torch.tensor(list(values)) for values in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD))
    factor, shift = input_std / std, (input_mean - mean) / std
    return DetectionAndWords(
        NanoDet(node.SEEN_CLASSES, tuple(node.CHANNELS)),
        trunk,
        trunk.num_features,
        node.WIDTH,
        node.SIZE,
        cfg.INPUT.MAX_SIZE_TEST,
        (factor[:, None, None], shift[:, None, None]),
        reverse=(rgb, not rgb),
        learns=bool(node.LEARNED_ROWS),
    )
