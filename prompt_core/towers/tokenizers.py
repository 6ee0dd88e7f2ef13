"""The tokenizer that open_clip gives for a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prompt_core.errors import UserError
from prompt_core.safe_load import first_sentence
from prompt_core.towers.offline import with_files


def open_tokenizer(name: str, text_cfg: dict[str, Any] | None = None) -> Any:
    """open_clip's tokenizer of an architecture, a folder or a repository of the hub.

    Args:
        name: as :func:`prompt_core.load_clip` takes it.
        text_cfg: the text tower's settings, for a JSON file, which open_clip does not know by name.

    Raises:
        UserError: when its files are not on this machine and cannot be fetched, or the package transformers is absent.
    """
    import open_clip

    try:
        if text_cfg is None:
            return with_files(lambda: open_clip.get_tokenizer(name))
        return with_files(lambda: _of_settings(text_cfg, Path(name).parent))
    except ImportError as error:
        raise UserError(
            f"{name}: its tokenizer needs the package transformers; run: pip install transformers"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"the tokenizer of {name} is not on this machine and could not be fetched ({first_sentence(error)}); "
            "download the model's repository elsewhere and give the folder as local-dir:FOLDER"
        ) from error


def _of_settings(text_cfg: dict[str, Any], folder: Path) -> Any:
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer, SimpleTokenizer

    length = text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH)
    options = text_cfg.get("tokenizer_kwargs", {})
    source = text_cfg.get("hf_tokenizer_name")
    if not source:
        return SimpleTokenizer(context_length=length, **options)
    beside = folder / source
    source = str(beside) if beside.is_dir() else source
    return HFTokenizer(source, context_length=length, tokenizer_mode=text_cfg.get("tokenizer_mode"), **options)


def is_byte_pair(name: str, text_cfg: dict[str, Any]) -> bool:
    """Whether open_clip gives CLIP's byte-pair tokenizer, which comes with the package, for these settings."""
    return not text_cfg.get("hf_tokenizer_name") and not text_cfg.get("hf_model_name") and "siglip" not in name.lower()
