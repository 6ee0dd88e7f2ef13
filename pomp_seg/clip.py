"""The frozen CLIP inside a segmenter: source of its weights, text features of names, classes of regions."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pomp_seg.prompts.prompt_learner import ClassFeatures, PromptLearner
from pomp_seg.regions.encode import RegionOptions, build_region_encoder, encode_any_size, similarity_logits
from prompt_core.clip import Clip, load_clip
from prompt_core.dassl.keys import BACKBONES
from prompt_core.errors import UserError, nearest
from prompt_core.text.encoder import PromptedTextEncoder
from prompt_core.text.tower import TextTower, learned_context_obstacle
from prompt_core.towers.placement import upload

# OpenAI's own names, as in published files, and the equivalent open_clip architectures.
OPENAI_NAMES = {name: clip for name, (clip, _) in BACKBONES.items()}

logger = logging.getLogger(__name__)


class ClipSource:
    """A CLIP that is built at once and gets its weights on demand, unless a checkpoint provides them.

    So a published checkpoint of a segmenter, which includes CLIP, needs no download.

    Attributes:
        clip: the model; until :meth:`ready` its weights may be random.
    """

    def __init__(self, name: str, pretrained: str = "") -> None:
        """
        Args:
            name: OpenAI's name (``ViT-B/16``) or one that :func:`prompt_core.load_clip` takes.
            pretrained: a tag or a file; empty for OpenAI's weights with OpenAI's names, and for ``mini``.

        Raises:
            UserError: an unknown architecture, no weights named, or a file that does not fit.
        """
        self.name, pretrained = self.weights_of(name, pretrained)
        if not pretrained and name != "mini":
            raise UserError(
                f"CLIP_MODEL_NAME is {name!r} and CLIP_PRETRAINED is empty; give a tag or a file of weights"
            )
        self.pretrained = pretrained or None
        self._pending = pretrained != "" and self.name != "openai" and not self.from_file
        with warnings.catch_warnings():
            if self._pending:
                _check_tag(self.name, pretrained)
                warnings.filterwarnings("ignore", message=".*weights are random")
            self.clip: Clip = load_clip(self.name, None if self._pending else self.pretrained)

    @staticmethod
    def weights_of(name: str, pretrained: str) -> tuple[str, str]:
        """open_clip's architecture of a name, and its weights: OpenAI's with OpenAI's names."""
        return OPENAI_NAMES.get(name, name), pretrained or ("openai" if name in OPENAI_NAMES else "")

    @property
    def from_file(self) -> bool:
        """Whether the weights are those of a file of one's own."""
        return self.pretrained is not None and Path(self.pretrained).is_file()

    def loaded(self) -> None:
        """Mark the weights as loaded from a checkpoint."""
        self._pending = False

    def ready(self) -> Clip:
        """The model with its weights.

        Raises:
            UserError: when they cannot be fetched.
        """
        if self._pending:
            device = self.clip.device
            weights = load_clip(self.name, self.pretrained).model.state_dict()
            self.clip.model.load_state_dict(weights)
            self.clip.model.to(device)
            self._pending = False
            logger.info("CLIP %s with weights %s", self.name, self.pretrained)
        return self.clip


def _check_tag(name: str, tag: str) -> None:
    import open_clip

    tags: list[Any] = open_clip.list_pretrained_tags_by_model(name)
    if name in open_clip.list_models() and tag not in tags:
        raise UserError(f"CLIP_PRETRAINED {tag!r} is neither a file nor a tag of {name}{nearest(tag, tags)}")


class ClipAdapter(nn.Module):
    """A frozen CLIP and a prompt learner.

    Weights carry the names of published checkpoints: ``clip_model.*`` and ``prompt_learner.*``.
    """

    def __init__(self, source: ClipSource, learner: PromptLearner) -> None:
        """Raises UserError when the prompt learner's vectors have another width than the text tower."""
        super().__init__()
        self._source = source
        self.clip_model = source.clip.model
        self.prompt_learner: PromptLearner = learner
        learner.connect(source.clip)
        self._features: ClassFeatures | None = None

    @property
    def clip(self) -> Clip:
        """The frozen model; its weights may still be missing, see :class:`pomp_seg.clip.ClipSource`."""
        return self._source.clip

    @property
    def clip_is_given(self) -> bool:
        """Whether its weights are of a file that ``CLIP_PRETRAINED`` names."""
        return self._source.from_file

    def text_features(self, names: Sequence[str]) -> Tensor:
        """Unit-norm features (N, E) of class names; names are encoded once while nothing learns."""
        clip = self._source.ready()
        if self._features is None:
            # Only once the weights are loaded: the encoder reads them, and the state dict holds some of them.
            encoder = PromptedTextEncoder(clip)
            self.prompt_learner.connect(clip)
            self._features = ClassFeatures(self.prompt_learner, encoder)
        return self._features(names)

    def image_features(self, images: Tensor) -> Tensor:
        """Unit-norm features (B, E) of normalised images (B, 3, H, W) of any size."""
        return encode_any_size(self._source.ready(), images)

    def whole_image_features(self, image: Tensor) -> Tensor:
        """Unit-norm features (1, E) of an image (3, H, W) in 0..255, in its own size as published."""
        pixels = image[None].float() / 255
        mean, std = (
            upload(torch.tensor(values), pixels.device).view(3, 1, 1)
            for values in (self.clip.image_mean, self.clip.image_std)
        )
        return self.image_features((pixels - mean) / std)

    def train(self, mode: bool = True) -> ClipAdapter:
        """As for any module, but CLIP stays in evaluation mode."""
        super().train(mode)
        self.clip_model.eval()
        return self

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *arguments: Any) -> None:
        expected = {f"{prefix}clip_model.{key}" for key in self.clip_model.state_dict()}
        given = {key for key in state if key.startswith(f"{prefix}clip_model.")}
        if given and not expected <= given:
            raise UserError(
                f"the weights hold {len(expected & given)} of the {len(expected)} tensors of CLIP {self.clip.name}; "
                "they come from another CLIP (CLIP_MODEL_NAME) or are incomplete"
            )
        if given:
            self._source.loaded()
        super()._load_from_state_dict(state, prefix, *arguments)


class RegionClipAdapter(ClipAdapter):
    """The same with a learned embedding for "no object", and a classifier of regions.

    Attributes:
        non_object_embedding: (1, E).
        encode_regions: image (3, H, W) and masks (Q, H, W) to features (V, E) and which regions they belong to, (Q,).
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, source: ClipSource, learner: PromptLearner, options: RegionOptions | None = None) -> None:
        """
        Args:
            options: how regions are encoded.

        Raises:
            UserError: as :func:`pomp_seg.regions.encode.build_region_encoder`.
        """
        super().__init__(source, learner)
        clip = source.clip
        self.encode_regions = build_region_encoder(clip, options or RegionOptions())
        width = TextTower(clip).width if learned_context_obstacle(clip) is None else clip.embed_dim
        self.non_object_embedding = nn.Parameter(torch.randn(1, clip.embed_dim) * width**-0.5)
        self.register_buffer("pixel_mean", 255 * torch.tensor(clip.image_mean).view(1, 3, 1, 1))
        self.register_buffer("pixel_std", 255 * torch.tensor(clip.image_std).view(1, 3, 1, 1))

    def text_features(self, names: Sequence[str]) -> Tensor:
        """Unit-norm features (N + 1, E) of class names and of "no object"."""
        features = super().text_features(names)
        return torch.cat((features, F.normalize(self.non_object_embedding, dim=-1).to(features)))

    def region_logits(self, image: Tensor, masks: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Class logits of the regions that are not empty.

        Args:
            image: (3, H, W) RGB in 0..255.
            masks: probabilities (Q, H, W).

        Returns:
            Logits (V, N + 1), the last for "no object", and which regions they belong to: bool (Q,).
        """
        self._source.ready()
        features, valid = self.encode_regions(image, masks)
        return similarity_logits(features, self.text_features(names)), valid
