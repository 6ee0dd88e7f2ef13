"""Loading a frozen CLIP: any open_clip architecture, OpenAI's files, or the embedded model ``mini``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prompt_core.errors import UserError, nearest
from prompt_core.safe_load import OPENAI_EXTRAS, first_sentence, read_state_dict


class Clip:
    """A frozen CLIP in evaluation mode.

    Attributes:
        model: the open_clip module.
        name: architecture name as given to :func:`load_clip`.
        pretrained: tag or file the weights came from, or None for random weights.
        preprocess: PIL image to normalised tensor (3, S, S).
        tokenizer: the open_clip tokenizer of the architecture, or None where it would need a download.
        preprocess_cfg: dictionary with ``size``, ``mean``, ``std``, ``interpolation`` and ``resize_mode``.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        pretrained: str | None,
        preprocess_cfg: dict[str, Any],
        tokenizer: Any,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        if isinstance(getattr(model, "visual", None), nn.Module):
            # Convolutional towers run about twice as fast on CPUs with the channels last; others do not care.
            model.visual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.name = name
        self.pretrained = pretrained
        self.preprocess_cfg = preprocess_cfg
        self.tokenizer = tokenizer

    @cached_property
    def preprocess(self) -> Callable[[Any], Tensor]:
        """CLIP's own test transform: resize, centre crop, normalise."""
        from open_clip.transform import PreprocessCfg, image_transform_v2

        return image_transform_v2(PreprocessCfg(**self.preprocess_cfg), is_train=False)

    @property
    def logit_scale(self) -> float:
        """The frozen logit scale, already exponentiated (about 100 for OpenAI's models)."""
        scale = self.model.logit_scale
        assert isinstance(scale, Tensor)
        return float(scale.detach().double().exp())

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
        if projection is None:
            return int(text.token_embedding.weight.shape[1])
        return int(projection.out_features if isinstance(projection, nn.Linear) else projection.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 over names, shapes and values of all weights, and over the preprocessing."""
        return self._hash("")

    @cached_property
    def image_fingerprint(self) -> str:
        """The same over the image tower alone, which determines image features."""
        return self._hash("visual.")

    def _hash(self, prefix: str) -> str:
        digest = hashlib.sha256(json.dumps(self.preprocess_cfg, sort_keys=True, default=str).encode())
        for key, value in sorted(self.model.state_dict().items()):
            if key.startswith(prefix):
                digest.update(f"{key}{tuple(value.shape)}{value.dtype}".encode())
                digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        """Encode preprocessed images (B, 3, S, S) to unit-norm features (B, E)."""
        return self.image_features(images)

    def image_features(self, images: Tensor, normalise: bool = True) -> Tensor:
        """The same with an autograd graph, for prompts in the tower (by hooks); optionally without the L2 norm."""
        images = images.to(self.device, self.dtype, memory_format=torch.channels_last)
        options = {} if normalise else {"normalize": False}
        features = self.model.encode_image(images, **options)  # type: ignore[operator]
        features = features if features.dtype == torch.float64 else features.float()
        return F.normalize(features, dim=-1) if normalise else features


def load_clip(name: str | Path, pretrained: str | Path | None = None, device: str | torch.device = "cpu") -> Clip:
    """Load a frozen CLIP.

    Args:
        name: an open_clip architecture (``ViT-B-16-quickgelu``), ``mini`` for the embedded model, ``openai`` to infer
            the architecture from the file given as ``pretrained``, or the path of an open_clip JSON configuration.
        pretrained: an open_clip tag, or a state dict of open_clip or OpenAI (``.pt``, ``.safetensors``). Without it
            the weights are random, and one warning says so.
        device: where to put the model.

    Raises:
        UserError: unknown architecture or tag (with the nearest names), an unreadable or unsuitable file, or a device
            that does not exist.
    """
    import open_clip

    name = str(name)

    if name == "mini":
        folder = resources.files("prompt_core") / "assets"
        config = folder / "mini.json"
        weights = Path(str(pretrained)) if pretrained is not None else Path(str(folder / "mini.safetensors"))
        clip = _from_json(Path(str(config)), weights)
    elif name == "openai":
        if pretrained is None or not Path(pretrained).is_file():
            raise UserError(f"name 'openai' needs pretrained=FILE with an OpenAI state dict, given {pretrained!r}")
        clip = _from_openai_file(Path(pretrained))
    elif name.endswith(".json"):
        clip = _from_json(Path(name), Path(pretrained) if pretrained is not None else None)
    else:
        if name not in open_clip.list_models():
            raise UserError(f"unknown architecture {name!r}{nearest(name, open_clip.list_models())}")
        clip = _from_name(name, pretrained)
    clip.name, clip.pretrained = name, str(pretrained) if pretrained is not None else clip.pretrained
    try:
        clip.model.to(device)
    except (AssertionError, RuntimeError) as error:
        raise UserError(f"device {str(device)!r} cannot be used: {first_sentence(error)}; 'cpu' always can") from error
    return clip


def _from_name(name: str, pretrained: str | Path | None) -> Clip:
    import open_clip

    file = Path(pretrained) if pretrained is not None and Path(pretrained).is_file() else None
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is not None and file is None and str(pretrained) not in tags:
        hint = nearest(str(pretrained), tags) or (f"; known tags: {', '.join(tags)}" if tags else "; it has no tags")
        raise UserError(f"pretrained {str(pretrained)!r} is neither a file nor a tag of {name}{hint}")
    if pretrained is None:
        warnings.warn(f"{name}: no pretrained weights given, the weights are random", stacklevel=3)
    options: dict[str, Any] = {"pretrained_image": False, "pretrained_text": False}
    state = read_state_dict(file) if file is not None else None
    if state is not None and any(key in state for key in OPENAI_EXTRAS) and not name.endswith("-quickgelu"):
        warnings.warn(f"{file}: OpenAI weights were trained with QuickGELU, {name} is built with it", stacklevel=3)
        options["force_quick_gelu"] = True
    try:
        tag = None if file is not None or pretrained is None else str(pretrained)
        with _without_open_clips_warning():
            model, _, _ = open_clip.create_model_and_transforms(name, pretrained=tag, **options)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"weights {name}/{pretrained} could not be fetched ({type(error).__name__}); "
            "download them elsewhere and give the file as pretrained"
        ) from error
    if file is not None and state is not None:
        _load_weights(model, state, file)
    return Clip(model, name, None, _preprocess_cfg(model), _tokenizer(name, model))


def _from_json(config: Path, weights: Path | None) -> Clip:
    """Build from an open_clip JSON configuration; an extra key ``preprocess_cfg`` sets the normalisation."""
    import open_clip

    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the open_clip configuration {config}: {error}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{config} is not an open_clip configuration: a JSON object is expected")
    settings = settings.get("model_cfg", settings) | {"preprocess_cfg": settings.get("preprocess_cfg", {})}
    preprocess = settings.pop("preprocess_cfg")
    settings.pop("name", None)
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= settings.keys():
        raise UserError(f"{config} is not an open_clip configuration: embed_dim, vision_cfg and text_cfg are expected")
    builder = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    state = read_state_dict(weights) if weights is not None else None
    try:
        model = builder(**settings)
        preprocess = _preprocess_cfg(model, preprocess)
    except TypeError as error:
        raise UserError(f"{config} is not an open_clip configuration: {first_sentence(error)}") from error
    if weights is None or state is None:
        warnings.warn(f"{config}: no pretrained weights given, the weights are random", stacklevel=3)
    else:
        _load_weights(model, state, weights)
    tokenizer = open_clip.SimpleTokenizer(context_length=settings["text_cfg"].get("context_length", 77))
    pretrained = str(weights) if weights is not None else None
    return Clip(model, str(config), pretrained, preprocess, tokenizer)


def _from_openai_file(file: Path) -> Clip:
    import open_clip
    from open_clip.model import build_model_from_openai_state_dict

    state = read_state_dict(file)
    if "text_projection" not in state or "ln_final.weight" not in state:
        raise UserError(f"{file} is not an OpenAI CLIP state dict: text_projection and ln_final.weight are expected")
    precise = {key: value.clone() for key, value in state.items() if key not in OPENAI_EXTRAS}
    try:
        model = build_model_from_openai_state_dict(dict(state), cast_dtype=torch.float32).float()
        # The builder goes through half precision; files with more precise weights keep them.
        model.load_state_dict(precise)
    except (KeyError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"{file} is not an OpenAI CLIP state dict: {first_sentence(error)}") from error
    return Clip(model, "openai", str(file), _preprocess_cfg(model), open_clip.SimpleTokenizer())


def _load_weights(model: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Load through open_clip's own conversions (custom text towers, resized positions)."""
    import tempfile

    import open_clip
    from safetensors.torch import save_file

    state = {key: value.contiguous() for key, value in state.items() if key not in OPENAI_EXTRAS}
    try:
        # open_clip's conversions read a file, so they get a temporary one with only the tensors.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "state.safetensors"
            save_file({key: value.clone() for key, value in state.items()}, path)
            open_clip.load_checkpoint(model, str(path))
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{file} does not fit the architecture: {reason}") from error


@contextlib.contextmanager
def _without_open_clips_warning() -> Iterator[None]:
    """open_clip says on the root logger that weights are random, also when a file is loaded right afterwards.

    It would also set up logging: a root logger without handlers gets one by that call.
    """

    def keep(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("No pretrained weights loaded")

    root, silent = logging.getLogger(), logging.NullHandler()
    root.addFilter(keep)
    root.addHandler(silent)
    try:
        yield
    finally:
        root.removeHandler(silent)
        root.removeFilter(keep)


def _preprocess_cfg(model: nn.Module, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    from open_clip.model import get_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    settings = merge_preprocess_dict(PreprocessCfg(), dict(get_model_preprocess_cfg(model))) | (changes or {})
    PreprocessCfg(**settings)  # refuses unknown keys
    return settings


def _tokenizer(name: str, model: nn.Module) -> Any:
    """The architecture's tokenizer; None where open_clip would have to download it."""
    import open_clip

    text_cfg = open_clip.get_model_config(name).get("text_cfg", {})
    if text_cfg.get("hf_tokenizer_name") or text_cfg.get("hf_model_name") or "siglip" in name.lower():
        return None
    return open_clip.get_tokenizer(name)
