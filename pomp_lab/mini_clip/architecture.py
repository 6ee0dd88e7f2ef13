"""The architecture of ``mini``: its sizes, its tokenizer and its open_clip configuration."""

from __future__ import annotations

import functools
from typing import Any

IMAGE_SIZE = 192
CONTEXT_LENGTH, VOCABULARY_SIZE = 77, 49408
# Text features have the rank of the text width, so a wider joint space would be empty; this is all that 20 MB hold.
EMBED_DIM = WIDTH = 116
LAYERS, HEADS = 4, 4
SOT, EOT = 49406, 49407
TOKEN_STD = 0.02  # that of CLIP's word vectors, and of the usual random prompt initialisation


@functools.cache
def bpe_tokenizer() -> Any:
    """CLIP's byte-pair tokenizer from open_clip."""
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def model_config() -> dict[str, Any]:
    """The open_clip configuration."""
    return {
        "embed_dim": EMBED_DIM,
        "vision_cfg": {
            "timm_model_name": "tf_efficientnet_lite0",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "timm_proj_bias": True,
            "image_size": IMAGE_SIZE,
        },
        "text_cfg": {
            "context_length": CONTEXT_LENGTH,
            "vocab_size": VOCABULARY_SIZE,
            "width": WIDTH,
            "heads": HEADS,
            "layers": LAYERS,
        },
    }
