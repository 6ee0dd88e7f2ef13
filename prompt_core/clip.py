"""Loading a frozen CLIP: any open_clip architecture, OpenAI's files, or the embedded model ``mini``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prompt_core.errors import UserError, nearest
from prompt_core.files import hash_tensors
from prompt_core.safe_load import first_sentence
from prompt_core.towers.build import build_model

# What the matrix products of the towers are computed in; norms, sums, prompts, features and losses are float32 in both.
PRECISIONS = ("float32", "bfloat16")
# Images of a pass on a CPU: of more, each map of a convolution is so large that its memory is fetched from the system
# and given back every time, which takes half as long as the tower itself.
_PART = 4


class Clip:
    """A frozen CLIP in evaluation mode.

    Attributes:
        model: the open_clip module.
        name: architecture name as given to :func:`load_clip`.
        pretrained: tag or file the weights came from, or None for random weights.
        preprocess: PIL image to normalised tensor (3, S, S).
        tokenizer: the open_clip tokenizer of the model, opened at its first use where it is not CLIP's byte-pair one.
        preprocess_cfg: dictionary with ``size``, ``mean``, ``std``, ``interpolation`` and ``resize_mode``.
        precision: one of :data:`PRECISIONS`.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        pretrained: str | None,
        preprocess_cfg: dict[str, Any],
        tokenizer: Any,
        open_tokenizer: Callable[[], Any] | None = None,
        precision: str = "float32",
    ) -> None:
        """
        Args:
            open_tokenizer: opens the tokenizer when it is first asked for, instead of ``tokenizer``.
        """
        self.model = model.eval().requires_grad_(False)
        if isinstance(getattr(model, "visual", None), nn.Module):
            # Convolutional towers run about twice as fast on CPUs with the channels last; others do not care.
            model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.name = name
        self.pretrained = pretrained
        self.precision = precision
        self._logit_scale: tuple[tuple[int, int], float] = (0, 0), 0.0
        self.preprocess_cfg = preprocess_cfg
        self._open_tokenizer = open_tokenizer
        if open_tokenizer is None:
            self.tokenizer = tokenizer

    @cached_property
    def tokenizer(self) -> Any:
        """Texts to token ids (N, L). Raises UserError when its files are absent and cannot be fetched."""
        return None if self._open_tokenizer is None else self._open_tokenizer()

    @property
    def has_byte_pairs(self) -> bool:
        """Whether the tokenizer is CLIP's byte-pair encoding, which learned contexts need; opens no other."""
        return hasattr(self.__dict__.get("tokenizer"), "sot_token_id")

    @cached_property
    def preprocess(self) -> Callable[[Any], Tensor]:
        """CLIP's own test transform: resize, centre crop, normalise."""
        from open_clip.transform import PreprocessCfg, image_transform_v2

        return image_transform_v2(PreprocessCfg(**self.preprocess_cfg), is_train=False)

    @property
    def logit_scale(self) -> float:
        """The frozen logit scale, already exponentiated (about 100 for OpenAI's models).

        Scores are the softmax over classes of cosine times this scale, for every model. SigLIP (arXiv 2303.15343) adds
        a bias to each logit and was trained with a sigmoid: the bias is the same for all classes, so it cancels in the
        softmax.
        """
        scale = self.model.logit_scale
        assert isinstance(scale, Tensor)
        # Read from a GPU once, since reading waits for all that it has to do.
        known, value = self._logit_scale
        if known != (scale.data_ptr(), scale._version) or scale.device.type == "cpu":
            value = float(scale.detach().double().exp())
            self._logit_scale = (scale.data_ptr(), scale._version), value
        return value

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the image tower's weights."""
        return next(getattr(self.model, "visual", self.model).parameters()).dtype

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        size = self.preprocess_cfg["size"]
        return int(size[0] if isinstance(size, (tuple, list)) else size)

    @property
    def image_mean(self) -> tuple[float, ...]:
        """Per-channel mean of the normalisation, for values in [0, 1]."""
        return tuple(self.preprocess_cfg["mean"])

    @property
    def image_std(self) -> tuple[float, ...]:
        """Per-channel standard deviation of the normalisation."""
        return tuple(self.preprocess_cfg["std"])

    @cached_property
    def embed_dim(self) -> int:
        """Width E of the joint embedding space."""
        text: Any = getattr(self.model, "text", self.model)
        projection = getattr(text, "text_projection", None)
        if projection is None:  # a Hugging Face text model, or a tower without projection
            return int(getattr(text, "output_dim", None) or text.token_embedding.weight.shape[1])
        return int(projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over names, shapes and values of all weights, and over the preprocessing."""
        return self._hash("")

    @cached_property
    def image_fingerprint(self) -> str:
        """The same over the image tower alone, and over its precision, which determine image features."""
        return self._hash("visual.", "" if self.precision == "float32" else self.precision)

    def _hash(self, prefix: str, precision: str = "") -> str:
        digest = hashlib.sha256(json.dumps(self.preprocess_cfg, sort_keys=True, default=str).encode())
        digest.update(precision.encode())
        state = self.model.state_dict()
        hash_tensors(digest, {key: value for key, value in state.items() if key.startswith(prefix)})
        return digest.hexdigest()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """open_clip's modules in :attr:`precision`; float32 leaves the caller's own autocast as it is."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    @torch.no_grad()
    def encode_image(self, images: Tensor, normalise: bool = True) -> Tensor:
        """Encode preprocessed images (B, 3, S, S) to features (B, E), unit-norm unless told otherwise."""
        count = len(images) or 1
        if self.device.type == "cpu":
            count = max(_PART, torch.get_num_threads())
        parts = [self.image_features(part, normalise) for part in images.split(count)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def image_features(self, images: Tensor, normalise: bool = True) -> Tensor:
        """The same with an autograd graph, for prompts in the tower (by hooks)."""
        images = images.to(self.device, self.dtype, memory_format=torch.channels_last)
        options = {} if normalise else {"normalize": False}
        with self.autocast():
            features = self.model.encode_image(images, **options)  # type: ignore[operator]
        features = features if features.dtype == torch.float64 else features.float()
        return F.normalize(features, dim=-1) if normalise else features


def load_clip(
    name: str | Path,
    pretrained: str | Path | None = None,
    device: str | torch.device = "cpu",
    precision: str = "float32",
) -> Clip:
    """Load a frozen CLIP.

    Hand-written templates work with any open_clip model; a learned prompt needs open_clip's own text transformer with
    CLIP's tokenizer. ``python -m prompt_core.doctor --towers`` lists which has it.

    Args:
        name: an open_clip architecture (``ViT-B-16-quickgelu``), ``mini`` for the embedded model, ``openai`` to infer
            the architecture from the file given as ``pretrained``, the path of an open_clip JSON configuration, or
            ``hf-hub:OWNER/NAME`` and ``local-dir:FOLDER``, which hold a configuration, weights and a tokenizer.
        pretrained: an open_clip tag, or a state dict of open_clip or OpenAI (``.pt``, ``.safetensors``). Without it
            the weights are random, and one warning says so; those of ``hf-hub:`` and ``local-dir:`` are their own.
        device: where to put the model.
        precision: ``bfloat16`` for the matrix products of both towers in it, by weights that stay in float32.

    Raises:
        UserError: unknown architecture, tag or precision (with the nearest names), an unreadable or unsuitable file,
            files that are not on this machine and cannot be fetched, or a device that does not exist.
    """
    if precision not in PRECISIONS:
        raise UserError(
            f"unknown precision {precision!r}{nearest(precision, PRECISIONS)}; expected {' or '.join(PRECISIONS)}"
        )
    name, given = str(name), None if pretrained is None else str(pretrained)
    if name == "mini":
        folder = Path(str(resources.files("prompt_core") / "assets"))
        built = build_model(str(folder / "mini.json"), given or str(folder / "mini.safetensors"))
    else:
        built = build_model(name, given)
    for text in built.warnings:
        warnings.warn(text, stacklevel=2)
    if built.pretrained is None:
        warnings.warn(f"{name}: no pretrained weights given, the weights are random", stacklevel=2)
    tokenizer = built.open_tokenizer() if built.byte_pairs else None
    clip = Clip(
        built.model,
        name,
        built.pretrained,
        built.preprocess_cfg,
        tokenizer,
        None if built.byte_pairs else built.open_tokenizer,
        precision,
    )
    try:
        clip.model.to(device)
    except (AssertionError, RuntimeError) as error:
        raise UserError(f"device {str(device)!r} cannot be used: {first_sentence(error)}; 'cpu' always can") from error
    return clip
