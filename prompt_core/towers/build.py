"""Building open_clip's models: by name, from a folder or the Hugging Face hub, a JSON file, or OpenAI's weights."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prompt_core.documents.bounds import SMALL_BYTES
from prompt_core.documents.json_files import read_json
from prompt_core.errors import UserError, nearest
from prompt_core.files import write_json
from prompt_core.safe_load import OPENAI_EXTRAS, first_sentence, read_state_dict
from prompt_core.towers.offline import with_files
from prompt_core.towers.tokenizers import is_byte_pair, open_tokenizer

SCHEMAS = ("hf-hub:", "local-dir:")  # open_clip's prefixes of names that bring their own weights
CONFIG_FILE = "open_clip_config.json"


@dataclass(frozen=True)
class BuiltModel:
    """A model as built, on the CPU.

    Attributes:
        model: the open_clip module.
        preprocess_cfg: of its images.
        open_tokenizer: gives its tokenizer; by a download unless ``byte_pairs``.
        byte_pairs: whether that is CLIP's own.
        pretrained: where the weights came from; None for random ones.
        warnings: what the user should know.
    """

    model: nn.Module
    preprocess_cfg: dict[str, Any]
    open_tokenizer: Callable[[], Any]
    byte_pairs: bool
    pretrained: str | None
    warnings: list[str] = field(default_factory=list)


def build_model(name: str, pretrained: str | None) -> BuiltModel:
    """The model that :func:`prompt_core.load_clip` is asked for.

    Raises:
        UserError: as it says there.
    """
    import open_clip

    file = Path(pretrained) if pretrained is not None else None
    if name == "openai":
        if file is None or not file.is_file():
            raise UserError(f"name 'openai' needs pretrained=FILE with an OpenAI state dict, given {pretrained!r}")
        return _from_openai_file(file)
    if name.endswith(".json"):
        return _from_json(Path(name), file)
    if name.startswith(SCHEMAS):
        return _from_elsewhere(name, file)
    if name not in open_clip.list_models():
        raise UserError(f"unknown architecture {name!r}{nearest(name, open_clip.list_models())}")
    return _from_name(name, pretrained)


def _from_name(name: str, pretrained: str | None) -> BuiltModel:
    import open_clip

    file = Path(pretrained) if pretrained is not None and Path(pretrained).is_file() else None
    tags = open_clip.list_pretrained_tags_by_model(name)
    if pretrained is not None and file is None and pretrained not in tags:
        hint = nearest(pretrained, tags) or (f"; known tags: {', '.join(tags)}" if tags else "; it has no tags")
        raise UserError(f"pretrained {pretrained!r} is neither a file nor a tag of {name}{hint}")
    options: dict[str, Any] = {}
    notes = []
    state = read_state_dict(file) if file is not None else None
    if state is not None and any(key in state for key in OPENAI_EXTRAS) and not name.endswith("-quickgelu"):
        notes.append(f"{file}: OpenAI weights were trained with QuickGELU, {name} is built with it")
        options["force_quick_gelu"] = True
    if file is not None:
        options["force_preprocess_cfg"] = _common_preprocess(name, tags)
    model = _create(name, None if file is not None else pretrained, **options)
    if file is not None and state is not None:
        _load_weights(model, state, file)
    return _described(model, name, pretrained, notes)


def _common_preprocess(name: str, tags: list[str]) -> dict[str, Any]:
    """What all published weights of an architecture expect of images; a file of weights does not say it.

    SigLIP's and MobileCLIP's normalisations differ from CLIP's, and are the same for all of their weights.
    """
    from open_clip.pretrained import get_pretrained_cfg

    published = [get_pretrained_cfg(name, tag) for tag in tags]
    keys = ("mean", "std", "interpolation", "resize_mode")
    settings = [{key: weights[key] for key in keys if weights.get(key) is not None} for weights in published]
    return settings[0] if settings and all(other == settings[0] for other in settings) else {}


def _from_elsewhere(name: str, file: Path | None) -> BuiltModel:
    """A folder or a repository of the hub with an open_clip configuration and, unless ``file`` is given, weights."""
    if file is None:
        model = _create(name, require_pretrained=True)
    else:
        model = _create(name, load_weights=False)
        _load_weights(model, read_state_dict(file), file)
    return _described(model, name, str(file or name), [])


def _described(model: nn.Module, name: str, pretrained: str | None, notes: list[str]) -> BuiltModel:
    import open_clip

    text_cfg = with_files(lambda: open_clip.get_model_config(name))["text_cfg"]
    byte_pairs = is_byte_pair(name, text_cfg)
    return BuiltModel(model, _preprocess_cfg(model), partial(open_tokenizer, name), byte_pairs, pretrained, notes)


def _from_json(config: Path, weights: Path | None) -> BuiltModel:
    """Build from an open_clip JSON configuration; an extra key ``preprocess_cfg`` sets the normalisation."""
    settings = read_json(config, SMALL_BYTES)
    if not isinstance(settings, dict):
        raise UserError(f"{config} is not an open_clip configuration: a JSON object is expected")
    preprocess = settings.pop("preprocess_cfg", {})
    settings = settings.get("model_cfg", settings)
    settings.pop("name", None)
    if not {"embed_dim", "vision_cfg", "text_cfg"} <= settings.keys():
        raise UserError(f"{config} is not an open_clip configuration: embed_dim, vision_cfg and text_cfg are expected")
    state = read_state_dict(weights) if weights is not None else None
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / CONFIG_FILE, {"model_cfg": settings})
            model = _create(f"local-dir:{folder}", load_weights=False, shown=str(config))
        preprocess = _preprocess_cfg(model, preprocess)
    except TypeError as error:
        raise UserError(f"{config} is not an open_clip configuration: {first_sentence(error)}") from error
    if weights is not None and state is not None:
        _load_weights(model, state, weights)
    text_cfg = settings["text_cfg"]
    opener, byte_pairs = partial(open_tokenizer, str(config), text_cfg), is_byte_pair("", text_cfg)
    return BuiltModel(model, preprocess, opener, byte_pairs, None if weights is None else str(weights))


def _from_openai_file(file: Path) -> BuiltModel:
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
    return BuiltModel(model, _preprocess_cfg(model), open_clip.SimpleTokenizer, True, str(file))


def _create(name: str, pretrained: str | None = None, shown: str = "", **options: Any) -> nn.Module:
    """open_clip's own builder; base weights of single towers are never fetched.

    Args:
        shown: the model in messages; by default ``name`` and ``pretrained``.
    """
    import open_clip

    shown = shown or "/".join(filter(None, (name, pretrained)))
    try:
        model: nn.Module = with_files(
            lambda: open_clip.create_model(
                name, pretrained=pretrained, pretrained_image=False, pretrained_text=False, **options
            )
        )
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise UserError(_refusal(name, pretrained, shown, error)) from error
    return model


def _refusal(name: str, pretrained: str | None, shown: str, error: Exception) -> str:
    from huggingface_hub import constants
    from open_clip.pretrained import get_pretrained_cfg

    reason = " ".join(str(error).split())
    if "pip install transformers" in reason:
        return f"{shown}: its text tower needs the package transformers; run: pip install transformers"
    if name.startswith("local-dir:") and not shown.endswith(".json"):
        return f"{shown} cannot be built ({reason[:200]}); a folder with {CONFIG_FILE} and weights is expected"
    text_model = _text_model(name)
    if text_model:
        return (
            f"{shown}: the files of its text model {text_model} are not on this machine and could not be fetched from "
            f"{constants.ENDPOINT}; fetch them elsewhere and copy the Hugging Face cache (HF_HOME)"
        )
    if pretrained is not None:
        place = f"{constants.ENDPOINT}/{get_pretrained_cfg(name, pretrained).get('hf_hub', '').rstrip('/')}"
        return (
            f"weights {shown} are not on this machine and could not be fetched from {place}; "
            "download them elsewhere and give the file: --pretrained FILE (pretrained=FILE in Python)"
        )
    return (
        f"{shown} needs files that are not on this machine and could not be fetched from {constants.ENDPOINT} "
        f"({reason[:200]}); download its repository elsewhere and give the folder as local-dir:FOLDER"
    )


def _text_model(name: str) -> str | None:
    """The Hugging Face model that is the text tower of an architecture, if it is one."""
    from open_clip import get_model_config

    settings = None if name.startswith(SCHEMAS) else get_model_config(name)
    return settings["text_cfg"].get("hf_model_name") if settings else None


def _load_weights(model: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    """Load through open_clip's own conversions (custom text towers, resized positions)."""
    import open_clip

    try:
        with _only_tensors(state, file) as path:
            open_clip.load_checkpoint(model, str(path))
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{file} does not fit the architecture: {reason}") from error


@contextlib.contextmanager
def _only_tensors(state: dict[str, Tensor], file: Path) -> Iterator[Path]:
    """A file for open_clip's conversions, which read one: ``file``, or a temporary one without what else it holds."""
    from safetensors.torch import save_file

    tensors = {key: value for key, value in state.items() if key not in OPENAI_EXTRAS}
    if file.suffix == ".safetensors" and len(tensors) == len(state):
        yield file
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        save_file({key: value.clone().contiguous() for key, value in tensors.items()}, path)
        yield path


def _preprocess_cfg(model: nn.Module, changes: dict[str, Any] | None = None) -> dict[str, Any]:
    from open_clip.model import get_model_preprocess_cfg
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    settings = merge_preprocess_dict(PreprocessCfg(), dict(get_model_preprocess_cfg(model))) | (changes or {})
    PreprocessCfg(**settings)  # refuses unknown keys
    return settings
