"""Text towers of every kind that open_clip has, shrunk, and tokenizers for them that need no download."""

from __future__ import annotations

import contextlib
import copy
import functools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch

from prompt_core.clip import Clip

TINY_VISION = {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
PREPROCESS = {"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3}

# One architecture for each kind of text tower among open_clip's configurations.
KINDS = (
    "ViT-B-16",
    "EVA02-B-16",
    "MobileCLIP2-S0",
    "PE-Core-B-16",
    "coca_ViT-B-32",
    "ViT-B-16-SigLIP",
    "ViT-B-16-SigLIP2",
    "ViT-SO400M-16-SigLIP-i18n-256",
    "ViT-H-14-CLIPA",
    "ViT-H-14-worldwide",
)
# The same for Hugging Face's text models, with the type of each.
HUGGING_FACE_KINDS = {
    "roberta-ViT-B-32": "roberta",
    "coca_roberta-ViT-B-32": "roberta",
    "mt5-base-ViT-B-32": "mt5",
    "nllb-clip-base": "m2m_100",
}


class WordTokenizer:
    """Stands for a Hugging Face tokenizer: a number for each word, an end token, padding, long texts cut."""

    def __init__(self, context_length: int, vocabulary_size: int, padding: int = 0, end: int = 1) -> None:
        self.context_length, self.size, self.end = context_length, vocabulary_size, end
        self.tokenizer = SimpleNamespace(pad_token_id=padding)

    def __call__(self, texts: Sequence[str], context_length: int | None = None) -> torch.Tensor:
        length = context_length or self.context_length
        ids = torch.full((len(texts), length), self.tokenizer.pad_token_id, dtype=torch.long)
        for row, text in enumerate(texts):
            words = [3 + zlib.crc32(word.encode()) % (self.size - 3) for word in text.split()][: length - 1]
            ids[row, : len(words) + 1] = torch.tensor([*words, self.end])
        return ids


def shrunk_settings(architecture: str) -> dict[str, Any]:
    """An open_clip configuration whose towers are tiny, and otherwise as published."""
    settings = copy.deepcopy(open_clip.get_model_config(architecture))
    settings["vision_cfg"] = TINY_VISION | ({"output_tokens": True} if "multimodal_cfg" in settings else {})
    settings["embed_dim"] = 24
    text = settings["text_cfg"]
    if "hf_model_name" not in text:
        text |= {"width": 24 if text.get("proj_type") == "none" else 32, "heads": 2, "layers": 2}
        if text.get("hf_tokenizer_name"):
            text["vocab_size"] = 500
    if "multimodal_cfg" in settings:
        settings["multimodal_cfg"] |= {"width": 32, "heads": 2, "layers": 1, "context_length": 76}
    return settings


def shrunk_clip(architecture: str) -> Clip:
    """A random model of one of :data:`KINDS`; its tokenizer is CLIP's, or stands for the one of the hub."""
    settings = shrunk_settings(architecture)
    text = settings["text_cfg"]
    builder = open_clip.CustomTextCLIP if settings.pop("custom_text", False) else open_clip.CLIP
    if "multimodal_cfg" in settings:
        builder = open_clip.CoCa
    torch.manual_seed(0)
    model = builder(**settings).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2 and "visual" not in name:
                parameter.mul_(3)  # the initial spread leaves attention almost uniform
    length = text.get("context_length", 77)
    if text.get("hf_tokenizer_name"):
        padding = 1 if text.get("pool_type") == "last" else 0  # SigLIP pads with its end token
        return Clip(model, architecture, None, PREPROCESS, WordTokenizer(length, 500, padding, text.get("eos_id", 1)))
    return Clip(model, architecture, None, PREPROCESS, open_clip.SimpleTokenizer(context_length=length))


# The same, each built once; nothing may change it.
shared_clip = functools.lru_cache(shrunk_clip)


@contextlib.contextmanager
def one_tokenizer() -> Iterator[None]:
    """Inside, open_clip's tokenizer is built once for each context length: its table of merges takes a while."""
    with pytest.MonkeyPatch.context() as patch:
        cached = functools.lru_cache(open_clip.SimpleTokenizer)
        patch.setattr(open_clip, "SimpleTokenizer", cached)
        patch.setattr("open_clip.factory.SimpleTokenizer", cached)
        patch.setattr("open_clip.tokenizer.SimpleTokenizer", cached)
        yield


def save_hugging_face_parts(folder: Path, kind: str) -> None:
    """A tiny text model's ``config.json`` and a tokenizer's files, as a folder of the hub has them."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = {f"w{number}": number + 4 for number in range(90)} | {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    words |= {word: 94 + row for row, word in enumerate(["a", "photo", "of", "cat", "red", "fox", ".", "the"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.save_pretrained(folder)
    sizes: dict[str, Any] = {"vocab_size": 110, "pad_token_id": 1}
    configurations = {
        "roberta": lambda: transformers.RobertaConfig(
            hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, **sizes
        ),
        "mt5": lambda: transformers.MT5Config(d_model=24, d_ff=32, d_kv=12, num_heads=2, num_layers=2, **sizes),
        "m2m_100": lambda: transformers.M2M100Config(
            d_model=24, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=32, decoder_ffn_dim=32,
            encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=80, **sizes,
        ),
    }  # fmt: skip
    configurations[kind]().save_pretrained(folder)
